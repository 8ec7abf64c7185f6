"""Rounds of a recipe: ``each_round`` is repeated ``rounds`` times, between ``stages`` and ``finally``, as one flat list.

    rounds: 2
    each_round:
      - instruct
      - respond: {from: {policy: previous}}
      - judge
      - pair
      - dpo: {from: {policy: previous}}

becomes ``r1.instruct, r1.respond, ..., r1.dpo, r2.instruct, ...``. Inside a round a name means the round's own stage, if it has one of
that name, then any stage before it. ``previous`` is the model that the round before gave (the last policy of it; before the first round: of
``stages``), and ``before_previous`` the one before that.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

from lite.artifacts import Policy
from lite.contracts import CONTRACTS
from lite.knobs import NAMES_STAGES, Spec

PREVIOUS = ("previous", "before_previous")
MOST_ROUNDS = 99


@dataclass
class Entry:
    """One item of a recipe's list on its way to a Stage. ``round`` counts from 1; 0: outside the rounds."""

    section: str
    index: int
    kind: str
    id: str
    knobs: dict[Any, Any]
    round: int = 0
    source: Any = None
    spec: Spec | None = field(default=None)

    def place(self, *path: str | int) -> str:
        inner = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path)
        return f"{self.section}[{self.index}]{inner} ({self.id})"

    @property
    def aliases(self) -> tuple[str, ...]:
        return () if self.section == "stages" else PREVIOUS

    @property
    def gives_policy(self) -> bool:
        return self.kind in CONTRACTS and CONTRACTS[self.kind].gives is Policy


def unroll(before: Sequence[Entry], each: Sequence[Entry], rounds: int, after: Sequence[Entry]) -> list[Entry]:
    """The flat list; every round has knobs of its own, so that an override of one changes no other."""
    turns = [replace(e, id=f"r{n}.{e.id}", knobs=deepcopy(e.knobs), round=n) for n in range(1, rounds + 1) for e in each]
    return [*before, *turns, *after]


def resolve(entries: Sequence[Entry], problems: list[str]) -> None:
    """Put the ids of the flat list where stages are named: in ``from``, and in knobs that list stages."""
    own = {n: {e.id for e in entries if e.round == n} for n in {e.round for e in entries}}
    outside = [e.id for e in entries if not e.round and e.section == "stages" and e.gives_policy]
    last = {n: id for n in own if n and (id := next((e.id for e in reversed(entries) if e.round == n and e.gives_policy), None))}
    rounds = max(own, default=0)
    for entry in entries:
        if entry.section == "stages":
            continue
        reached = entry.round or rounds + 1
        models = [*outside, *(last[n] for n in range(1, reached) if n in last)]
        names: dict[str, str | None] = {name: models[-1 - i] if len(models) > i else None for i, name in enumerate(PREVIOUS)}
        names |= {id.partition(".")[2]: id for id in own[entry.round]} if entry.round else {}
        entry.source = _renamed(entry.source, names, entry.place("from"), problems)
        for knob in _naming(entry.kind):
            if knob in entry.knobs:
                entry.knobs[knob] = _renamed(entry.knobs[knob], names, entry.place(knob), problems)


def _naming(kind: str) -> list[str]:
    """The knobs of a kind that list stages."""
    fields = CONTRACTS[kind].spec.model_fields if kind in CONTRACTS else {}
    return [name for name, info in fields.items() if info.json_schema_extra == NAMES_STAGES]


def _renamed(value: Any, names: Mapping[str, str | None], place: str, problems: list[str]) -> Any:
    if isinstance(value, list):
        found = [_renamed(v, names, place, problems) for v in value]
        twice = any(found.count(v) > value.count(old) for v, old in zip(found, value, strict=True))
        return [v for i, v in enumerate(found) if v not in found[:i]] if twice else found  # `previous` may be what stands beside it
    if isinstance(value, dict):
        return {k: _renamed(v, names, place, problems) for k, v in value.items()}
    if not isinstance(value, str) or value not in names:
        return value
    found = names[value]
    if found is None:
        problems.append(f"{place}: there is no model that {value!r} could be: no stage before this round gives one")
    return found or value
