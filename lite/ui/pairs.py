"""Preference pairs of a run as the Pairs page shows them: rows with flags, filters, differences, and the reviews that people add.

A review never touches the stage's result, which later stages were made of: it is a line in a file beside it, and an export takes
the last one of each pair into account.
"""

import difflib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

from lite.export.rows import FILE, Action, reviews, sources
from lite.runs import read
from lite.runs.journal import append_line, now
from lite.runs.publish import dumps
from lite.runs.read import Run
from lite.ui.watch import stage_folder
from lite.validate import COLUMNS

REFUSAL = re.compile(r"\b(I can(?:no|')t|I won't|I'm sorry|I am sorry|as an AI|I don't know)\b", re.I)
FLAGS = {
    "same prompt": "Another pair has this prompt too.",
    "refusal preferred": "The preferred reply declines or does not know.",
    "much longer": "The preferred reply has more than twice the words of the other.",
    "much shorter": "The preferred reply has less than half the words of the other.",
    "uncertain": "The label is near one half: the judge was undecided.",
}


@dataclass(frozen=True)
class PairRow:
    """``figures``: the other columns, short ones only. ``review``: what a person decided, the last word on it."""

    id: str
    prompt: str
    chosen: str
    rejected: str
    p_plus: str = ""
    p_minus: str = ""
    flags: tuple[str, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
    review: Action = "keep"


def rows(run: Run, stage: str) -> list[PairRow]:
    """All pairs of a stage with the reviews that are there; [] if there is no such stage."""
    if stage not in sources(run):
        return []
    folder = stage_folder(run, stage)
    assert folder
    file = folder.out / FILE
    decided = reviews(run, stage)
    return [PairRow(**{**pair.__dict__, "review": decided.get(pair.id, "keep")}) for pair in _pairs(file, file.stat().st_mtime_ns)]


@lru_cache(maxsize=4)
def _pairs(file: Path, changed: int) -> tuple[PairRow, ...]:
    raw = [row for row in read.lines(file) if all(isinstance(row.get(key), str) for key in COLUMNS)]
    prompts = Counter(row["prompt"] for row in raw)
    return tuple(_pair(i, row, prompts[row["prompt"]] > 1) for i, row in enumerate(raw, 1))


def _pair(i: int, row: Mapping[str, Any], twin: bool) -> PairRow:
    known = ("id", *COLUMNS, "p_plus", "p_minus")
    figures = {k: v for k, v in row.items() if k not in known and (isinstance(v, int | float) or (isinstance(v, str) and len(v) <= 40))}
    return PairRow(
        str(row.get("id", i)), row["prompt"], row["chosen"], row["rejected"], str(row.get("p_plus") or ""), str(row.get("p_minus") or ""),
        tuple(_flags(row, twin)), figures,
    )  # fmt: skip


def _flags(row: Mapping[str, Any], twin: bool) -> Iterator[str]:
    long, short = len(row["chosen"].split()), len(row["rejected"].split())
    if twin:
        yield "same prompt"
    if REFUSAL.search(row["chosen"]):
        yield "refusal preferred"
    if long > 2 * short:
        yield "much longer"
    elif short > 2 * long:
        yield "much shorter"
    if isinstance(row.get("label"), int | float) and abs(row["label"] - 0.5) < 0.1:
        yield "uncertain"


def filtered(found: Sequence[PairRow], *, words: str = "", flag: str = "", review: str = "") -> list[PairRow]:
    """Pairs with all the words in one of their texts, with a flag, with a decision."""
    wanted = words.lower().split()
    return [
        pair
        for pair in found
        if (not flag or flag in pair.flags)
        and (not review or pair.review == review)
        and all(any(word in text.lower() for text in (pair.prompt, pair.chosen, pair.rejected)) for word in wanted)
    ]


def differences(one: str, other: str) -> tuple[list[tuple[str, bool]], list[tuple[str, bool]]]:
    """Both texts in pieces, each with whether it differs; word by word, white space belongs to the word before it."""
    a, b = re.findall(r"\s*\S+|\s+$", one), re.findall(r"\s*\S+|\s+$", other)
    left: list[tuple[str, bool]] = []
    right: list[tuple[str, bool]] = []
    for kind, i, j, k, m in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        left.append(("".join(a[i:j]), kind != "equal"))
        right.append(("".join(b[k:m]), kind != "equal"))
    return [piece for piece in left if piece[0]], [piece for piece in right if piece[0]]


def decide(run: Run, stage: str, id: str, action: Action) -> None:
    """Add a decision; nothing is ever taken out, so that who decided what and when can be looked up."""
    if id not in {pair.id for pair in rows(run, stage)} or action not in get_args(Action):
        raise ValueError(f"no pair {id!r} in {stage}, or no such decision {action!r}")
    file = run.folder.reviews(stage)
    file.parent.mkdir(exist_ok=True)
    append_line(file, dumps({"at": now(), "id": id, "action": action}))
