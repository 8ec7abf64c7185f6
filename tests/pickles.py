"""Files that run code in whoever unpickles them, under the names that trainers and loaders look for (S9)."""

import io
import pickle
import zipfile
from pathlib import Path

CHECKPOINT_FILES = ("optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state.pth", "training_args.bin", "pytorch_model.bin", "adapter_model.bin",
                    "state.pkl")  # fmt: skip


class _Touch:
    """Unpickled, it makes a file."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self):
        return open, (str(self.canary), "w")


def bomb(canary: Path) -> bytes:
    """As torch.save writes a file: a zip with a pickle in it."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(_Touch(canary), protocol=2))
        archive.writestr("archive/version", "3\n")
    return packed.getvalue()


def plant(folder: Path, canary: Path) -> None:
    """Every one of them, as a zip and as a plain pickle."""
    for i, name in enumerate(CHECKPOINT_FILES):
        (folder / name).write_bytes(pickle.dumps(_Touch(canary)) if i % 2 else bomb(canary))
