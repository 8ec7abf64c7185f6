"""Responses under the accept/cut/reject rules: what is rejected is drawn again, a few times.

The same rules for RLCD's pairs and for plain candidates (Yang et al. 2023), so that what differs between them is the prompts.
Finished chunks of responses are kept in the stage's ``ckpt`` folder. A stage that was stopped takes them from there and draws the
rest in the same batches, so that it ends with the same bits.
"""

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from lite.model.bank import AdapterBank
from lite.model.generate import Decoding, Generated, generate
from lite.runs.publish import write_text
from lite.stages.bench import Bench
from lite.text.clean import Accepted, Rejected, accept

Place = TypeVar("Place", bound=Hashable)
CHUNK = 1024
"""Responses that are kept together; whatever the batch size, so that a stage can go on with another one."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """The last outcome of one place, how many draws it took, and what was generated in the last."""

    outcome: Accepted | Rejected
    attempts: int
    generated: Generated


@dataclass(frozen=True)
class Writing(Generic[Place]):
    """How the draws of a stage are made: ``seed_of(place, attempt)``; places with one ``group_of`` share their prefix (None: no sharing)."""

    decoding: Decoding
    attempts: int
    rows: int
    seed_of: Callable[[Place, int], int]
    group_of: Callable[[Place], int] | None
    what: str


def draw(
    bank: AdapterBank, role: str | None, prompts: Mapping[Place, Sequence[int]], how: Writing[Place], bench: Bench
) -> dict[Place, Drawn]:
    """One response per place. A rejected continuation is drawn again under the seed of its next attempt."""
    found: dict[Place, Drawn] = {}
    with bench.progress(len(prompts), "responses", how.what) as bar:
        for attempt in range(how.attempts):
            todo = [place for place in prompts if place not in found or isinstance(found[place].outcome, Rejected)]
            if not todo:
                break
            written: list[Generated] = []
            for at in range(0, len(todo), CHUNK):
                kept = bench.ckpt / f"drawn-{attempt}-{at}.json"
                done = (lambda n, tokens: bar.advance(n, tokens=tokens)) if attempt == 0 else None
                written += _kept(kept) or _write(bank, role, prompts, how, todo[at : at + CHUNK], attempt, done, kept)
            for place, text in zip(todo, written, strict=True):
                found[place] = Drawn(accept(text.text, text.stop), attempt + 1, text)
            bench.metric(attempt=attempt + 1, drawn=len(todo), accepted=sum(isinstance(found[p].outcome, Accepted) for p in todo))
    return found


def _write(
    bank: AdapterBank,
    role: str | None,
    prompts: Mapping[Place, Sequence[int]],
    how: Writing[Place],
    todo: Sequence[Place],
    attempt: int,
    done: Callable[[int, int], None] | None,
    kept: Path,
) -> list[Generated]:
    written = generate(
        bank,
        role,
        [prompts[place] for place in todo],
        seeds=[how.seed_of(place, attempt) for place in todo],
        decoding=how.decoding,
        rows=how.rows,
        groups=[how.group_of(place) for place in todo] if how.group_of else None,
        done=done,
    )
    write_text(kept, json.dumps(written))
    return written


def _kept(path: Path) -> list[Generated]:
    """The responses of a chunk that was finished before, if it was."""
    if not path.is_file():
        return []
    return [Generated(tuple(ids), text, stop) for ids, text, stop in json.loads(path.read_text(encoding="utf-8"))]
