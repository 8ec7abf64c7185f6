"""The preference pairs of a run as rows to take away, with what people decided about them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

from lite.runs import read
from lite.runs.read import Run
from lite.validate import COLUMNS

FILE = "pairs.jsonl"
Action = Literal["keep", "exclude", "flip"]


def sources(run: Run) -> list[str]:
    """The stages that gave pairs."""
    return list(_files(run))


def reviews(run: Run, stage: str) -> dict[str, Action]:
    """The last decision on every pair that has one."""
    found: dict[str, Action] = {}
    for line in read.lines(run.folder.reviews(stage)):
        if line.get("action") in get_args(Action):
            found[str(line.get("id"))] = line["action"]
    return found


def reviewed(run: Run, stage: str) -> Iterator[dict[str, Any]]:
    """The pairs of a stage: excluded ones are left out, flipped ones turned round; ``review`` says so."""
    decided = reviews(run, stage)
    file = _files(run).get(stage)
    for i, row in enumerate(read.lines(file) if file else (), 1):
        action = decided.get(str(row.get("id", i)), "keep")
        if action == "exclude" or not all(key in row for key in COLUMNS):
            continue
        turned = {"chosen": row["rejected"], "rejected": row["chosen"]} if action == "flip" else {}
        yield {**row, **turned, "review": action}


def exported(run: Run, stage: str) -> str:
    """JSONL in TRL's preference format."""
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in reviewed(run, stage))


def _files(run: Run) -> dict[str, Path]:
    return {r.id: file for r in run.stages() if r.done and (file := r.folder.out / FILE).is_file()}
