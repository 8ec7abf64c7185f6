"""What a run ran on: versions from the packages' metadata (nothing heavy is imported), platform and cores."""

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from lite import __version__
from lite.runs.read import read_json

PACKAGES = (
    "torch", "transformers", "peft", "bitsandbytes", "trl", "datasets", "accelerate", "safetensors", "tokenizers", "pydantic", "unsloth"
)  # fmt: skip


COPY = "copy.json"
"""What a finished 4-bit copy says of itself."""


def version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def cache_folder() -> Path:
    """What may be made again at any time lies here: ``$LITE_CACHE``, or ``lite`` in the user's cache folder (XDG)."""
    own, common = os.environ.get("LITE_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(own).expanduser() if own else (Path(common).expanduser() if common else Path.home() / ".cache") / "lite"


def copies_folder() -> Path:
    """Where ``lite.model.copies`` keeps 4-bit copies of bases, a folder each."""
    return cache_folder() / "4bit"


def copies() -> dict[Path, str]:
    """The 4-bit copies that are there, each with the place that its base was read from: a folder, or one of the Hub's cache."""
    return {file.parent: str(read_json(file).get("base", "?")) for file in sorted(copies_folder().glob(f"*/{COPY}"))}


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
