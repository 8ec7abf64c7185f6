"""Responses under the accept/cut/reject rules: what is rejected is drawn again, a few times.

The same rules for RLCD's pairs and for plain candidates (Yang et al. 2023), so that what differs between them is the prompts.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from lite.model.generate import Decoding
from lite.stages.bench import Bench
from lite.stages.writers import Wanted, Writer, Written
from lite.text.clean import Accepted, Rejected, accept

Place = TypeVar("Place", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Drawn:
    """The last outcome of one place, how many draws it took, and what was written in the last."""

    outcome: Accepted | Rejected
    attempts: int
    written: Written


@dataclass(frozen=True)
class Writing(Generic[Place]):
    """How the draws of a stage are made: a key per place, ``seed_of(place, attempt)``; places with one ``group_of`` share their prefix
    (None: no sharing)."""

    decoding: Decoding
    attempts: int
    rows: int
    key_of: Callable[[Place], str]
    seed_of: Callable[[Place, int], int]
    group_of: Callable[[Place], int] | None
    what: str


def draw_accepted(writer: Writer, prompts: Mapping[Place, str], how: Writing[Place], bench: Bench) -> dict[Place, Drawn]:
    """One response per place. A rejected continuation is drawn again under the seed of its next attempt."""
    found: dict[Place, Drawn] = {}
    with bench.progress(len(prompts), "responses", how.what) as bar:
        for attempt in range(how.attempts):
            todo = [place for place in prompts if place not in found or isinstance(found[place].outcome, Rejected)]
            if not todo:
                break
            wanted = Wanted(
                name=f"attempt-{attempt + 1}",
                prompts=[prompts[place] for place in todo],
                keys=[how.key_of(place) for place in todo],
                seeds=[how.seed_of(place, attempt) for place in todo],
                decoding=how.decoding,
                rows=how.rows,
                groups=[how.group_of(place) for place in todo] if how.group_of else None,
            )
            written = writer.write(bench, wanted, bar if attempt == 0 else None)
            for place, text in zip(todo, written, strict=True):
                found[place] = Drawn(accept(text.text, text.stop), attempt + 1, text)
            bench.metric(attempt=attempt + 1, drawn=len(todo), accepted=sum(isinstance(found[p].outcome, Accepted) for p in todo))
    return found
