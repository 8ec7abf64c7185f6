"""Rows of local files: .jsonl, .csv and .txt, each also with .gz behind it.

A line of a .txt file is one prompt, or one premise where the task has an ``ask``; blank lines are skipped. A folder has a file
per split, ``train.*`` and ``test.*`` and perhaps ``dev.*``: a subset of hh-rlhf as it is published, or what a prompts stage left.
Nothing is ever unpacked to disk, and a file that unpacks to a line or a number of rows without end is refused.
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lite.errors import RecipeError
from lite.sources.rows import SchemaError

ENDINGS = (".jsonl", ".csv", ".txt")
SPLITS = ("train", "dev", "test")
NAMED = ("micro", "hh-rlhf", "oasst1", "oasst2")
"""Sources that are no place on disk, whatever lies in the working directory."""

MOST_CHARACTERS = 16 * 2**20
"""Of one line."""
MOST_ROWS = 5_000_000

Row = tuple[str, Any]
"""Where a row stands in its file ("line 3"), and its columns; in their place a SchemaError where it cannot be read."""


def is_row_file(path: Path) -> bool:
    return path.name.removesuffix(".gz").endswith(ENDINGS) and path.is_file()


def row_files(source: str) -> dict[str, Path]:
    """The files of a source by split; the split of a single file is ``all``. Empty if there is no such source on disk."""
    path = Path(source).expanduser()
    if source in NAMED:
        return {}
    if not path.is_dir():
        return {"all": path} if is_row_file(path) else {}
    found = {}
    for split in SPLITS:
        files = sorted(file for file in path.glob(f"{split}.*") if is_row_file(file))
        if len(files) > 1:
            raise RecipeError(str(path), [f"{' and '.join(file.name for file in files)}: which of them is the {split} split? leave one"])
        if files:
            found[split] = files[0]
    return found


def splits_of(source: str) -> dict[str, Path]:
    """``row_files``, or a :class:`RecipeError` that says what is needed."""
    files, path = row_files(source), Path(source).expanduser()
    endings = ", ".join(ENDINGS)
    if path.is_dir() and not {"train", "test"} <= files.keys():
        there = ", ".join(sorted(file.name for file in path.iterdir())[:10]) or "nothing"
        raise RecipeError(
            str(path), [f"a folder needs a train and a test file with one of the endings {endings}, or these with .gz (there is: {there})"]
        )
    if not files:
        why = f"no ending that is known ({endings}, or these with .gz)" if path.is_file() else "no such file or folder"
        raise RecipeError(
            "prompts.source",
            [f"{path}: {why}; write `micro`, `hh-rlhf`, `oasst1`, `oasst2`, a file of prompts, or a folder with train and test files"],
        )
    return files


def read_file(path: Path, *, plain: str) -> Iterator[Row]:
    """The rows of a file. ``plain`` is the column that a line of a .txt file fills."""
    reader = {".jsonl": _jsonl, ".csv": _csv}.get(Path(path.name.removesuffix(".gz")).suffix)
    try:
        with _opened(path) as text:
            lines = _bounded(text, path)
            for number, row in enumerate(reader(lines) if reader else _lines(lines, plain)):
                if number == MOST_ROWS:
                    raise RecipeError(str(path), [f"more than {MOST_ROWS:,} rows; give a part of it"])
                yield row
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as e:  # the last three: a torn or mislabelled archive
        raise RecipeError(str(path), [f"cannot be read: {e}"]) from e


@contextmanager
def _opened(path: Path) -> Iterator[io.TextIOWrapper]:
    """The file as text, unpacked; every line end is \\n, and there is no byte order mark."""
    with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as packed:
        yield io.TextIOWrapper(packed, encoding="utf-8-sig")  # type: ignore[arg-type]


def _bounded(text: io.TextIOWrapper, path: Path) -> Iterator[str]:
    """The lines, none of them longer than memory bears: a few kilobytes of an archive can be gigabytes of one line."""
    while line := text.readline(MOST_CHARACTERS + 1):
        if len(line) > MOST_CHARACTERS:
            raise RecipeError(str(path), [f"a line of more than {MOST_CHARACTERS:,} characters; is it a file of rows?"])
        yield line


def _jsonl(lines: Iterable[str]) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield f"line {number}", json.loads(line)
            except (ValueError, RecursionError) as e:
                yield f"line {number}", SchemaError(f"not JSON: {e}")


def _csv(lines: Iterable[str]) -> Iterator[Row]:
    """A row of a CSV file may take many lines, so rows are counted; the header is not one."""
    reader = csv.DictReader(lines, strict=True)
    number = 0
    try:
        for number, row in enumerate(reader, 1):
            uneven = None in row or None in row.values()
            problem = f"not as many fields as the header has (the columns are: {', '.join(reader.fieldnames or ())})"
            yield f"row {number}", SchemaError(problem) if uneven else row
    except csv.Error as e:
        yield f"row {number + 1}", SchemaError(f"not CSV: {e} (file line {reader.line_num})")


def _lines(lines: Iterable[str], column: str) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield f"line {number}", {column: line.strip()}
