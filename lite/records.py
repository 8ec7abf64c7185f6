"""One row type per kind of line that stages write, and the only code that reads and writes JSONL.

A row type is a frozen dataclass; its JSON is its fields. Unknown or missing fields are an error that names file and line.
"""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self, TypeVar

from lite.errors import ArtifactError
from lite.text.clean import StopReason
from lite.text.dialogue import Turn


class Plain:
    """A row whose JSON is its fields as they stand."""

    __slots__ = ()

    @classmethod
    def from_json(cls, row: dict) -> Self:
        return cls(**row)


@dataclass(frozen=True, slots=True)
class Prompt:
    """One dialogue that waits for an answer; the last turn is a human one."""

    id: str
    turns: tuple[Turn, ...]

    @classmethod
    def from_json(cls, row: dict) -> "Prompt":
        return cls(row["id"], tuple(Turn(**t) for t in row["turns"]))


@dataclass(frozen=True, slots=True)
class Pair(Plain):
    """Two responses to one prompt. ``prompt + chosen`` is the text that the base wrote, up to the cut.

    ``label`` is the probability that ``chosen`` is the better one: 1.0 for RLCD's hard labels. ``p_plus`` and ``p_minus`` are the
    prompts that the two were written under, ``chosen`` under ``p_plus`` unless a scorer turned the pair round (``turned``).
    ``attempts``: draws that the pair took, 0 where nobody counted.
    """

    id: str
    prompt: str
    chosen: str
    rejected: str
    label: float
    p_plus: str
    p_minus: str
    index: int
    attempts: int
    stop_chosen: StopReason
    stop_rejected: StopReason
    turned: bool = False


@dataclass(frozen=True, slots=True)
class Reply(Plain):
    """What one model answered to one held-out prompt. ``text`` follows ``prompt`` as it stands: strip it to read it."""

    id: str
    model: str
    draw: int
    prompt: str
    text: str
    stop: StopReason
    tokens: int
    score: float | None = None
    success: bool | None = None


@dataclass(frozen=True, slots=True)
class Candidate(Plain):
    """Response ``k`` of several that one writer gave to one prompt. ``prompt + text`` is what it wrote, up to the cut."""

    id: str
    k: int
    prompt: str
    text: str
    stop: StopReason
    tokens: int


@dataclass(frozen=True, slots=True)
class Example(Plain):
    """A target of supervised training: ``response`` (with its stop string) is learnt after ``prompt``. ``kind`` says where it is from."""

    id: str
    prompt: str
    response: str
    kind: str


@dataclass(frozen=True, slots=True)
class Ranked:
    """Responses to one prompt that people ranked: rank 0 is the best, equal ranks are ties."""

    id: str
    prompt: str
    responses: tuple[str, ...]
    ranks: tuple[int, ...]

    @classmethod
    def from_json(cls, row: dict) -> "Ranked":
        return cls(row["id"], row["prompt"], tuple(row["responses"]), tuple(row["ranks"]))


@dataclass(frozen=True, slots=True)
class Judgement(Plain):
    """Judgement ``draw`` of candidate ``k`` of prompt ``id``: the judge's words, and the score in them; None: it could not be read."""

    id: str
    k: int
    draw: int
    text: str
    stop: StopReason
    score: int | None


@dataclass(frozen=True, slots=True)
class HeadToHead(Plain):
    """What one judge said of two models' replies to one prompt; ``id`` is prompt id and draw. ``verdict``: first, second, tie, or none."""

    id: str
    first: str
    second: str
    judge: str
    form: str | None
    verdict: str | None
    showings: list[dict[str, Any]]


AnyRow = Prompt | Pair | Reply | Candidate | Example | Ranked | Judgement | HeadToHead
Row = TypeVar("Row", Prompt, Pair, Reply, Candidate, Example, Ranked, Judgement, HeadToHead)


def write_rows(path: Path, rows: Iterable[AnyRow]) -> int:
    """Write the rows, one JSON object a line, and return how many; flushed to disk before it returns."""
    n = 0
    with path.open("w", encoding="utf-8") as f:
        for row in rows:
            f.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")
            n += 1
        f.flush()
        os.fsync(f.fileno())
    return n


def read_rows(path: Path, kind: type[Row]) -> list[Row]:
    """All rows of a file; an :class:`ArtifactError` names file and line of the first that does not fit."""
    return list(iter_rows(path, kind))


def iter_rows(path: Path, kind: type[Row]) -> Iterator[Row]:
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file; was the stage that writes it run?")
    with path.open(encoding="utf-8") as f:
        for number, line in enumerate(f, 1):
            try:
                yield kind.from_json(json.loads(line))
            except (ValueError, TypeError, KeyError) as e:
                expected = ", ".join(field.name for field in fields(kind))
                raise ArtifactError(f"{path}:{number}: not a {kind.__name__} row ({e}); its fields are {expected}") from e
