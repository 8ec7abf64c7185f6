"""How often a scorer prefers the better of two responses: RewardBench's rows (Lambert et al. 2024), accuracy by subset.

A row has ``prompt`` (a question, or a transcript), ``chosen``, ``rejected`` and perhaps ``subset`` and ``id``. A tie counts one half;
what a scorer could not score is left out of its accuracy, and counted. Torch-free: whoever has a model gives its scores.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from lite.errors import RecipeError
from lite.sources.files import read_file
from lite.sources.rows import REASONS, SchemaError, Unreadable, read_row, text_of
from lite.tasks import Task
from lite.text.clean import as_response
from lite.text.dialogue import prompt as plain_prompt

ALL = "all"
MOST_SHOWN = 20


@dataclass(frozen=True)
class Contest:
    """``chosen`` and ``rejected`` are responses: what stands behind the prompt's open tag."""

    id: str
    subset: str
    prompt: str
    chosen: str
    rejected: str


@dataclass(frozen=True)
class Accuracy:
    """None of no contest that could be scored."""

    accuracy: float | None
    scored: int
    ties: int
    unreadable: int


def read_contests(file: Path, task: Task, most: int | None = None) -> list[Contest]:
    """The rows of a file; a :class:`RecipeError` tells every one that is none."""
    if not file.is_file():
        raise RecipeError("--suite", [f"{file}: no such file"])
    found: list[Contest] = []
    problems: list[str] = []
    for number, (place, row) in enumerate(read_file(file, plain="prompt")):
        if most is not None and len(found) == most:
            break
        try:
            found.append(_contest(row, number, task))
        except SchemaError as e:
            problems.append(f"{place}: {e}")
    if problems or not found:
        raise RecipeError(str(file), problems[:MOST_SHOWN] or ["no rows"])
    return found


def _contest(row: Any, number: int, task: Task) -> Contest:
    if isinstance(row, SchemaError):
        raise row
    if not isinstance(row, Mapping) or not {"prompt", "chosen", "rejected"} <= row.keys():
        raise SchemaError("the columns prompt, chosen and rejected are needed")
    asked = read_row({"prompt": row["prompt"]}, task)
    if isinstance(asked, Unreadable):
        raise SchemaError(REASONS[asked.reason])
    return Contest(
        f"{number}-{row.get('id', '')}",
        str(row.get("subset") or ALL),
        plain_prompt(asked.turns),
        as_response(text_of(row, "chosen")),
        as_response(text_of(row, "rejected")),
    )


Scores = Sequence[tuple[float | None, float | None]]
"""Of chosen and rejected, contest by contest; None where there is none."""


def accuracies(contests: Sequence[Contest], scores: Scores) -> dict[str, Accuracy]:
    """By subset, in the order in which they come, and of all together at the end."""
    subsets = dict.fromkeys(contest.subset for contest in contests)
    groups = {name: [s for c, s in zip(contests, scores, strict=True) if c.subset == name] for name in subsets}
    return {name: _accuracy(group) for name, group in groups.items() if name != ALL} | {ALL: _accuracy(scores)}


def _accuracy(scores: Scores) -> Accuracy:
    read = [(a, b) for a, b in scores if a is not None and b is not None]
    points = [0.5 if a == b else float(a > b) for a, b in read]
    return Accuracy(fmean(points) if points else None, len(read), points.count(0.5), len(scores) - len(read))
