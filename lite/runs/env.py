"""What a run ran on: versions from the packages' metadata (nothing heavy is imported), platform and cores."""

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from lite import __version__

PACKAGES = (
    "torch", "transformers", "peft", "bitsandbytes", "trl", "datasets", "accelerate", "safetensors", "tokenizers", "pydantic", "unsloth"
)  # fmt: skip


def version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def cache_folder() -> Path:
    """What may be made again at any time lies here: ``$LITE_CACHE``, or ``lite`` in the user's cache folder (XDG)."""
    own, common = os.environ.get("LITE_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(own).expanduser() if own else (Path(common).expanduser() if common else Path.home() / ".cache") / "lite"


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def snapshot() -> dict[str, Any]:
    return {
        "lite": __version__,
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cores": cores(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "executable": sys.executable,
        "packages": {name: version_of(name) for name in PACKAGES},
    }
