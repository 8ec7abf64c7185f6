"""Two runs side by side: what their recipes differ in, their results, and their figures in the same charts."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from lite.runs.read import Run
from lite.ui import charts, series, watch
from lite.ui.markup import Child, Markup, div, empty, note, span, table, tag


def view(one: Run, other: Run) -> Markup:
    names = (label(one), label(other))
    if names[0] == names[1]:
        names = (f"{names[0]} {one.name[-6:]}", f"{names[1]} {other.name[-6:]}")
    changed = recipe_differences(one, other)
    rows: list[list[Child]] = [[tag("b", place), a, b] for place, a, b in changed]
    parts: list[Child] = [
        tag("h3", "Recipe"),
        table(["Setting", *names], rows) if rows else note("info", "The two recipes are the same."),
        tag("h3", "Results"),
        table(["", *names], [["result", *(watch.headline(run.report()) or span("dim", "–") for run in (one, other))]]),
    ]
    for stage in shared_stages(one, other):
        drawn = series.beside(series.charts(watch.metrics(one, stage)), series.charts(watch.metrics(other, stage)), names)
        if drawn:
            parts += [tag("h3", f"Figures of {stage}"), charts.grid(drawn)]
    return div("compare", *parts)


def nothing() -> Markup:
    return empty("Choose two runs", "Their recipes, results and figures are laid side by side here.")


def label(run: Run) -> str:
    return str(run.facts.get("name") or run.recipe)


def shared_stages(one: Run, other: Run) -> list[str]:
    theirs = {record.id for record in other.stages()}
    return [record.id for record in reversed(one.stages()) if record.id in theirs]


def recipe_differences(one: Run, other: Run) -> list[tuple[str, str, str]]:
    """(place, value in one, value in the other) of every knob that differs, by stage id; ``–`` where a recipe has no such place."""
    a, b = dict(_knobs(one.folder.resolved)), dict(_knobs(other.folder.resolved))
    places = list(dict.fromkeys([*a, *b]))
    return [(place, str(a.get(place, "–")), str(b.get(place, "–"))) for place in places if a.get(place, "–") != b.get(place, "–")]


def _knobs(resolved: Path) -> Iterator[tuple[str, Any]]:
    try:
        found = yaml.safe_load(resolved.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return
    if not isinstance(found, Mapping):
        return
    for key, value in found.items():
        if key != "stages":
            yield from _flat(str(key), value)
    for stage in found.get("stages") or []:
        for kind, knobs in stage.items():
            yield from _flat(str(knobs.get("as", kind)), {key: value for key, value in knobs.items() if key != "as"})


def _flat(place: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{place}.{key}", inner)
    else:
        yield place, value
