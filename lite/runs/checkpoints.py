"""Checkpoints of one stage: each appears whole, and none is believed before it is checked.

ckpt/checkpoint-40/ holds what the stage wrote there and ``manifest.json`` {step, of, figures, files: {name: sha256}}. A folder
without a manifest is half-written, whoever wrote it; Hugging Face's trainer names its folders alike, so its checkpoints are
believed too once they are sealed (it checks nothing by itself, and goes on with a fresh optimiser where that file is missing).
"""

import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lite.errors import ArtifactError
from lite.runs import publish
from lite.runs.read import read_json

MANIFEST = "manifest.json"
NAME = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True)
class Checkpoint:
    path: Path
    manifest: Mapping[str, Any]

    @property
    def step(self) -> int:
        """How many steps it holds; ``of`` how many there were to be."""
        return int(self.manifest["step"])

    @property
    def of(self) -> int:
        return int(self.manifest["of"])

    @property
    def figures(self) -> Mapping[str, int]:
        """How long the files of figures were, in bytes."""
        return self.manifest["figures"]


def seal(folder: Path, *, step: int, of: int, figures: Mapping[str, int]) -> None:
    """Write the manifest of a folder that is complete."""
    files = publish.digests(folder)
    publish.flush_files(folder)
    publish.write_json(folder / MANIFEST, {"step": step, "of": of, "figures": dict(figures), "files": files})


def check(folder: Path) -> Checkpoint:
    """The checkpoint of a folder; an :class:`ArtifactError` says what is wrong with it."""
    manifest = read_json(folder / MANIFEST)
    if not {"step", "of", "figures", "files"} <= manifest.keys():
        raise ArtifactError(f"{folder}: not complete (no readable {MANIFEST})")
    found = publish.digests(folder)
    for name, digest in manifest["files"].items():
        if found.get(name) != digest:
            raise ArtifactError(f"{folder}: {name} is {'damaged' if name in found else 'missing'}")
    return Checkpoint(folder, manifest)


class Checkpoints:
    """Those of one stage, in its ``ckpt`` folder; the newest two are kept."""

    KEPT = 2
    SECONDS = 600.0
    """A checkpoint is due after so long, however few the steps: what a crash costs is minutes."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._written_at = time.monotonic()

    def due(self, step: int, every: int) -> bool:
        return step % every == 0 or time.monotonic() - self._written_at > self.SECONDS

    @contextmanager
    def write(self, step: int, of: int, figures: Mapping[str, int]) -> Iterator[Path]:
        """A scratch folder that becomes the checkpoint of ``step`` when the block ends."""
        with publish.folder(self.folder / f"checkpoint-{step}") as scratch:
            yield scratch
            seal(scratch, step=step, of=of, figures=figures)
        self._written_at = time.monotonic()
        self.drop_old()

    def drop_old(self) -> None:
        for old in self._newest_first()[self.KEPT :]:
            shutil.rmtree(old, ignore_errors=True)

    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest one that is whole, and what is wrong with those that are newer; these are removed."""
        problems = []
        for folder in self._newest_first():
            try:
                return check(folder), problems
            except ArtifactError as e:
                problems.append(str(e))
                shutil.rmtree(folder, ignore_errors=True)
        return None, problems

    def _newest_first(self) -> list[Path]:
        found = [(int(match[1]), path) for path in self.folder.glob("checkpoint-*") if (match := NAME.fullmatch(path.name))]
        return [path for _, path in sorted(found, reverse=True)]
