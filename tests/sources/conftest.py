"""Small files of the same form as the published ones."""

import csv
import gzip
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from lite import tasks
from lite.tasks import Task


def transcript(*said: str) -> str:
    """hh-rlhf's form: human first, in turns."""
    return "".join(f"\n\n{('Human', 'Assistant')[i % 2]}: {text}" for i, text in enumerate(said))


@pytest.fixture(name="transcript")
def _transcript() -> Callable[..., str]:
    return transcript


@pytest.fixture
def helpful() -> Task:
    return tasks.load("helpful")


@pytest.fixture
def outline() -> Task:
    return tasks.load("outline")


@pytest.fixture
def write() -> Callable[[Path, Iterable[object]], Path]:
    """A file of rows: strings as lines, mappings as JSON or CSV by the ending; packed if it ends in .gz."""

    def put(path: Path, rows: Iterable[object]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = list(rows)
        packed: Any = gzip.open if path.suffix == ".gz" else open
        with packed(path, "wt", encoding="utf-8", newline="") as f:
            if ".csv" in path.name:
                writer = csv.DictWriter(f, list(rows[0]))  # type: ignore[call-overload]
                writer.writeheader()
                writer.writerows(rows)  # type: ignore[arg-type]
            else:
                f.writelines((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
        return path

    return put


@pytest.fixture
def hh(write) -> Callable[..., Path]:
    """A folder as a subset of hh-rlhf is published: train and test, packed, with chosen and rejected transcripts."""

    def make(folder: Path, *, train: int = 12, test: int = 8) -> Path:
        for split, n in (("train", train), ("test", test)):
            asked = [(f"What is {split} {i}?",) if i % 2 else (f"Hello {split} {i}", "Hi.", f"Now what is {i}?") for i in range(n)]
            rows = [{"chosen": transcript(*said, "Yes.\n\nIt is."), "rejected": transcript(*said, "No.")} for said in asked]
            write(folder / f"{split}.jsonl.gz", rows)
        return folder

    return make
