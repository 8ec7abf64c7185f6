"""A result appears whole or not at all: written beside its place, flushed to disk, then renamed."""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from lite.errors import ArtifactError


def plain(value: Any) -> Any:
    """The value as JSON knows it: NaN and infinities become null, scalars of numpy and torch become numbers."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, BaseModel):
        return plain(value.model_dump())
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return str(value)


def dumps(value: Any, *, indent: int | None = None) -> str:
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False, indent=indent)


def write_text(path: Path, content: str) -> None:
    """Replace the file at once: a reader sees the old content or the new, never a part."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with scratch.open("w", encoding="utf-8") as f:
            f.write(content)
            f.flush()
            os.fsync(f.fileno())
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    write_text(path, dumps(value, indent=2) + "\n")


def scratch_of(out: Path) -> Path:
    return out.with_name(out.name + ".tmp")


@contextmanager
def folder(out: Path) -> Iterator[Path]:
    """A scratch folder that becomes ``out`` when the block ends without an error, and is removed otherwise."""
    scratch = scratch_of(out)
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        yield scratch
        readable = scratch.stat().st_mode & 0o666  # as the user's mask has it; safetensors writes files that only their owner reads
        for file in _files(scratch):
            file.chmod(readable)
        flush_files(scratch)
        shutil.rmtree(out, ignore_errors=True)
        os.replace(scratch, out)
        _flush(out.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def flush_files(root: Path) -> None:
    """See every file below a folder to the disk."""
    for file in _files(root):
        _flush(file)


def digests(root: Path) -> dict[str, str]:
    """sha256 of every file below a folder, by its path from there."""
    return {str(file.relative_to(root)): file_digest(file) for file in _files(root)}


def file_digest(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def verify(root: Path, expected: Mapping[str, str]) -> None:
    """An :class:`ArtifactError` names the first file that is missing or not as it was published."""
    found = digests(root)
    for name, digest in expected.items():
        if name not in found:
            raise ArtifactError(f"{root / name}: the file is missing; delete {root} to have the stage run again")
        if found[name] != digest:
            raise ArtifactError(f"{root / name}: the file has changed since it was published; delete {root} to have the stage run again")


def link_tree(source: Path, target: Path) -> None:
    """``target`` becomes a copy of ``source`` by hard links, or by copies where the file system has none."""
    with folder(target) as scratch:
        for file in _files(source):
            copy = scratch / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(file, copy)
            except OSError:
                shutil.copy2(file, copy)


def _files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def _flush(path: Path) -> None:
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:  # folders cannot be opened everywhere
        return
    try:
        os.fsync(handle)
    except OSError:  # nor flushed
        pass
    finally:
        os.close(handle)
