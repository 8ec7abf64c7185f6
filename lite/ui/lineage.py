"""Where a pair comes from: its prompt, the candidates that were written for it, and what judges said of each. Read along the plan's wires."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lite.runs import read
from lite.runs.read import Run
from lite.text.judging import mean_score
from lite.ui.watch import stage_folder


@dataclass(frozen=True)
class Opinion:
    """One judgement; ``score`` None: it could not be read."""

    text: str
    score: int | None


@dataclass(frozen=True)
class Candidate:
    """One response to the pair's prompt, with the judgements of it."""

    k: int
    text: str
    opinions: tuple[Opinion, ...] = ()

    @property
    def score(self) -> float | None:
        return mean_score([opinion.score for opinion in self.opinions])


@dataclass(frozen=True)
class Lineage:
    """``steps``: the stages on the way, from the prompt on, each with the model that did it (none where no model did).

    ``candidates`` come best first, those that nobody could read last. ``losers``: where the rejected one is from another model,
    the candidates among which it was found.
    """

    steps: tuple[tuple[str, str], ...]
    candidates: tuple[Candidate, ...]
    losers: tuple[Candidate, ...] = ()


def lineage(run: Run, stage: str, id: str) -> Lineage | None:
    """Of one pair of a stage; None where pairs are not chosen from candidates."""
    planned = {str(s.get("id")): s for s in read.read_json(run.folder.plan).get("stages") or () if isinstance(s, dict)}
    inputs = _inputs(planned, stage)
    written = inputs.get("candidates")
    if not written:
        return None
    judged, before = inputs.get("judgements"), _inputs(planned, written)
    way = [(before.get("prompts"), _inputs(planned, before.get("prompts")).get("policy")), (written, before.get("policy") or "base"),
           (judged, _inputs(planned, judged).get("policy")), (stage, None)]  # fmt: skip
    return Lineage(
        tuple((step, model or "") for step, model in way if step),
        _candidates(run, written, judged, id),
        _candidates(run, inputs["anchors"], inputs.get("anchor_judgements"), id) if inputs.get("anchors") else (),
    )


def _inputs(planned: Mapping[str, Mapping[str, Any]], stage: str | None) -> dict[str, str]:
    """A stage's inputs that are one stage each."""
    found = planned.get(stage or "", {}).get("inputs")
    return {name: wire for name, wire in found.items() if isinstance(wire, str)} if isinstance(found, Mapping) else {}


def _candidates(run: Run, written: str, judged: str | None, id: str) -> tuple[Candidate, ...]:
    opinions: dict[int, list[Opinion]] = {}
    for row in _rows_of(run, judged, "judgements.jsonl", id):
        opinions.setdefault(int(row["k"]), []).append(Opinion(str(row["text"]), row["score"]))
    found = [
        Candidate(int(row["k"]), str(row["text"]), tuple(opinions.get(int(row["k"]), ())))
        for row in _rows_of(run, written, "candidates.jsonl", id)
    ]
    return tuple(sorted(found, key=lambda c: (c.score is None, -(c.score or 0.0), c.k)))


def _rows_of(run: Run, stage: str | None, file: str, id: str) -> Iterator[Mapping[str, Any]]:
    """The rows of one id. Only lines with the id in them are parsed: a file of a whole round has more than a hundred thousand."""
    folder = stage_folder(run, stage) if stage else None
    if folder is None or not (folder.out / file).is_file():
        return
    yield from _lines_with(folder.out / file, id)


def _lines_with(path: Path, id: str) -> Iterator[Mapping[str, Any]]:
    needle = json.dumps(id, ensure_ascii=False).encode()
    with path.open("rb") as f:
        for line in f:
            if needle in line:
                row = json.loads(line)
                if row.get("id") == id:
                    yield row
