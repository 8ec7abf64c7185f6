"""4-bit copies of bases on disk, so that the next start reads a quarter of the bytes and quantises nothing.

A copy is what ``save_pretrained`` writes of the quantised model, and a list of its files with their digests. It lies in the cache
folder of lite (``lite doctor`` says where) under a key of everything that decides its bits. It appears whole or not at all, is checked
to the byte before it is read, and is thrown away if it is not as it was written: a copy can be lost, but never change a result.
"""

import hashlib
import json
import logging
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from lite.runs import publish
from lite.runs.env import COPY, copies_folder
from lite.runs.journal import try_lock

FORMAT = 1
QUANTISERS = ("torch", "transformers", "bitsandbytes")
log = logging.getLogger(__name__)


def place(source: str, commit: str | None, *, dtype: torch.dtype, device: torch.device) -> Path | None:
    """Where the copy of a base lies or would lie; None for one whose weights cannot be told from others.

    The kernels of a CPU and of a GPU may round differently, so each has a copy of its own.
    """
    weights = f"commit {commit}" if commit else _folder_identity(Path(source))
    if weights is None:
        return None
    decides = {
        "format": FORMAT,
        "source": None if not commit else source,
        "weights": weights,
        "quantize": "nf4, block 64, double",
        "dtype": str(dtype),
        "device": device.type,
        "versions": {name: metadata.version(name) for name in QUANTISERS},
    }
    return copies_folder() / hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:24]


def sound(copy: Path) -> bool:
    """Whether there is a copy that is as it was written; another one is thrown away, with a word in the log."""
    if not copy.is_dir():
        return False
    try:
        expected = json.loads((copy / COPY).read_text(encoding="utf-8"))["files"]
        found = publish.digests(copy)
    except (OSError, ValueError, KeyError, TypeError) as e:
        discard(copy, f"{type(e).__name__}: {e}")
        return False
    found.pop(COPY)
    if found != expected:
        odd = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
        discard(copy, f"{', '.join(odd)} not as written")
        return False
    return True


def discard(copy: Path, why: str) -> None:
    log.warning("the 4-bit copy %s is damaged (%s): it is thrown away, and the original is read", copy, why)
    shutil.rmtree(copy, ignore_errors=True)


def store(model: PreTrainedModel, copy: Path) -> None:
    """Write a copy, unless another process is at it. A full disk costs the copy, never the run."""
    need = sum(p.numel() * p.element_size() for p in model.parameters()) * 11 // 10  # scales, and some air
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        if (free := shutil.disk_usage(copy.parent).free) < need:
            log.warning("no 4-bit copy: %s has %.1f GiB free, %.1f are needed", copy.parent, free / 2**30, need / 2**30)
            return
        with copy.with_suffix(".lock").open("a") as lock:
            if not try_lock(lock.fileno()):
                return
            with publish.folder(copy) as scratch:
                model.save_pretrained(scratch, max_shard_size="2GB")
                publish.write_json(scratch / COPY, _manifest(model, publish.digests(scratch)))
        log.info("a 4-bit copy for the next start: %s", copy)
    except OSError as e:
        log.warning("no 4-bit copy: %s could not be written (%s)", copy, e)


def _manifest(model: PreTrainedModel, files: dict[str, str]) -> dict[str, Any]:
    return {"format": FORMAT, "base": model.config.name_or_path, "files": files}


def _folder_identity(folder: Path) -> str | None:
    """Names, sizes and times of the weights, and what the config says. Weights changed in place without a trace in these go unseen."""
    config = folder / "config.json"
    weights = sorted(folder.glob("*.safetensors*"))
    if not weights or not config.is_file():
        return None
    facts = [(file.name, (stat := file.stat()).st_size, stat.st_mtime_ns) for file in weights]
    return hashlib.sha256(json.dumps([facts, publish.file_digest(config)]).encode()).hexdigest()
