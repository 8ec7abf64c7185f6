"""Which runs a table is over: finished ones with an evaluation, a section for each task, and for each set of knobs where they differ.

Of runs that are alike in task, knobs and seed the newest is taken. Knobs are those that the stages were run with (their identities),
so that a recipe that was edited between two runs is seen as well, and a knob that changes no result is not.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from lite.runs.read import Run, StageRecord

MOST_NAMED, MOST_SHOWN = 4, 60
FREE = ("seed", "task")
"""What the runs of a recipe are expected to differ in."""


class Section(NamedTuple):
    """``runs``: by seed. ``knobs``: what tells these runs from the others of their task, empty where there are none."""

    task: str
    knobs: tuple[str, ...]
    runs: Mapping[int, Run]
    passed_over: int

    @property
    def reports(self) -> dict[int, dict[str, Any]]:
        return {seed: run.report() for seed, run in self.runs.items()}

    def to_json(self) -> dict[str, Any]:
        used = [{"run": run.name, "task": self.task, "seed": seed, "overrides": overrides(run)} for seed, run in sorted(self.runs.items())]
        return {"task": self.task, "knobs": list(self.knobs), "runs": used, "passed_over": self.passed_over}


def overrides(run: Run) -> list[str]:
    """What the run was told beside its recipe, without seed and task."""
    return [text for text in map(str, run.facts.get("overrides") or ()) if text.partition("=")[0] not in FREE]


def sections(runs: Iterable[Run]) -> dict[str, Section]:
    """By title, the runs in the order of their age."""
    groups: dict[str, list[tuple[dict[str, str], list[tuple[int, Run]]]]] = {}
    for run in runs:
        report = run.report() if run.state == "done" else {}
        if report.get("models"):
            alike, knobs = groups.setdefault(str(report["run"]["task"]), []), knobs_of(run)
            members = next((members for known, members in alike if known == knobs), None)
            if members is None:
                alike.append((knobs, members := []))
            members.append((int(report["run"]["seed"]), run))
    found: dict[str, Section] = {}
    for task, alike in sorted(groups.items()):
        for number, (told, (_, members)) in enumerate(zip(_apart([knobs for knobs, _ in alike]), alike, strict=True), 1):
            title = ", ".join((task, *told))
            newest = dict(members)
            found[title if title not in found else f"{title} ({number})"] = Section(task, told, newest, len(members) - len(newest))
    return found


def knobs_of(run: Run) -> dict[str, str]:
    """All that the stages' results hang on but seed and task, by place."""
    found: dict[str, str] = {}
    for record in run.stages():
        if record.done:
            found |= _stage(record)
    return found


def _stage(record: StageRecord) -> dict[str, str]:
    of, id = record.identity, record.id
    wires = {param: list(ids) for param, ids in (of.get("inputs") or {}).items()}
    parts = {"": of.get("spec"), "base": of.get("base"), "from": wires, "content": of.get("files"), "templates": of.get("templates")}
    flat = {f"{id}.{place}": value for name, part in parts.items() for place, value in _flat(part or {}, name)}
    return {id: str(of.get("kind")), f"{id}.version": str(of.get("version")), **flat}


def _flat(value: Any, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{place}.{key}" if place else str(key))
    else:
        yield place, "none" if value is None else str(value)


def _apart(groups: Sequence[Mapping[str, str]]) -> list[tuple[str, ...]]:
    """What tells each group from the others: stages that only some have, then knobs of the stages that all have."""
    places = [place for place in dict.fromkeys(place for knobs in groups for place in knobs) if len({g.get(place) for g in groups}) > 1]
    some = [place for place in places if any(f"{place}.version" in knobs for knobs in groups)]
    knobs = [place for place in places if place not in some and not any(place.startswith(f"{id}.") for id in some)]
    return [_few(list(dict.fromkeys([*(_has(id, g) for id in some), *(_told(place, g.get(place)) for place in knobs)]))) for g in groups]


def _has(id: str, knobs: Mapping[str, str]) -> str:
    return f"{knobs[id]} as {id}" if id in knobs else f"no {id}"


def _told(place: str, value: str | None) -> str:
    """A base is the same in every stage, so it is told once, under its own name."""
    digest = value and re.fullmatch("[0-9a-f]{64}", value)
    return f"{re.sub(r'^.+[.](?=base[.])', '', place)}={value[:8] if digest and value else _short(value)}"


def _short(value: str | None) -> str:
    return "none" if value is None else value if len(value) <= MOST_SHOWN else f"{value[: MOST_SHOWN - 3]}..."


def _few(told: Sequence[str]) -> tuple[str, ...]:
    return tuple(told) if len(told) <= MOST_NAMED else (*told[: MOST_NAMED - 1], f"and {len(told) - MOST_NAMED + 1} more")
