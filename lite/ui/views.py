"""The list of runs, and one run: head, stages, samples and log, as markup."""

from collections.abc import Mapping, Sequence
from typing import Any

from lite.ui.markup import Child, Markup, badge, div, empty, join, link, note, span, table, tag, text
from lite.ui.watch import RunRow, StageView
from lite.ui.words import ago, length, shortened

MOST_CHANGED = 44
RESUMABLE = ("stopped", "failed", "interrupted", "diverged")
HELP = {
    "interrupted": "Its process is gone (killed, or the machine restarted). What is finished is kept: Resume goes on from there.",
    "stopped": "Stopped on request. What is finished is kept: Resume goes on from there.",
}


def list_of_runs(rows: Sequence[RunRow]) -> Markup:
    if not rows:
        return empty(
            "No runs yet",
            "A run takes a base model through a recipe and leaves an aligned adapter. ",
            link("new", "Start the first one"),
            ": the tiny recipe needs no GPU and takes about three minutes.",
        )
    return table(
        ["Run", "State", "Stage", "Started", "Time", "Result"],
        [
            [
                _name(row),
                badge(row.state),
                _place(row),
                span("", ago(row.started), title=str(row.started or "")),
                length(row.seconds),
                row.headline or span("dim", "–"),
            ]
            for row in rows
        ],
        "runs",
    )  # fmt: skip


def _name(row: RunRow) -> Markup:
    facts = " · ".join(filter(None, (row.base, shortened(row.changed, MOST_CHANGED), row.name[-6:])))
    return join(link(f"run?name={row.name}", row.label or row.recipe, cls="strong"), tag("br"), span("dim", facts, title=row.changed))


def _place(row: RunRow) -> Markup:
    if row.state == "done":
        return span("dim", f"all {row.stages}")
    return tag("span", f"{row.number} of {row.stages}", span("dim", f" {row.stage}"))


def head(row: RunRow, facts: Mapping[str, Any]) -> Markup:
    parts: list[Child] = [
        div("run-title", tag("h2", row.label or row.recipe), badge(row.state)),
        div(
            "facts",
            span("", "base ", tag("b", row.base)),
            span("", "started ", tag("b", ago(row.started))),
            span("", "time ", tag("b", length(row.seconds))),
        ),
        div("dim mono", row.name),
    ]
    if row.changed:
        parts.append(div("dim mono", f"changed: {row.changed}"))
    if row.headline:
        parts.append(note("good", tag("strong", row.headline)))
    error = facts.get("error")
    if row.state in ("failed", "diverged") and error:
        parts.append(note("bad", tag("strong", "This run ended early. "), tag("span", error, cls="pre")))
    elif row.state in HELP:
        parts.append(note("warn", HELP[row.state]))
    return div("run-head", *parts)


def strip(stages: Sequence[StageView]) -> Markup:
    """The stages in a row, each with how far it is."""
    return tag("ol", [_stage(stage) for stage in stages], cls="strip")


def _stage(stage: StageView) -> Markup:
    sign = {"done": "✓", "running": "●", "waiting": "", "stopped": "❚❚"}[stage.state]
    told = {"done": "taken over" if stage.reused else length(stage.seconds), "waiting": "to come", "stopped": "not finished"}
    below = told.get(stage.state) or _running(stage)
    bar = None
    if stage.state == "running":
        width = "" if stage.share is None else f"width:{100 * stage.share:.1f}%"
        bar = div("bar" if width else "bar busy", tag("i", style=width or None))
    return tag(
        "li", div("stage-name", span("sign", sign), stage.id), bar, div("dim", below), cls=f"stage {stage.state}", title=stage.about,
        aria_label=f"{stage.id}: {stage.state}",
    )  # fmt: skip


def _running(stage: StageView) -> str:
    if stage.share is None:
        return f"preparing, {length(stage.seconds)}" if stage.seconds else "beginning"
    return f"{stage.what}, about {length(stage.left)} left"


ORDER = ("prompt", "candidate", "response", "chosen", "rejected")
HIDDEN = ("id", "at")


def samples(rows: Sequence[Mapping[str, Any]]) -> Markup:
    """What a stage wrote down to be looked at: texts as blocks, numbers in a line above."""
    if not rows:
        return empty("No samples yet", "Stages that write text show some of it here as soon as it is made.")
    return div("samples", [_sample(row) for row in rows])


def _sample(row: Mapping[str, Any]) -> Markup:
    ordered = sorted(row, key=lambda key: ORDER.index(key) if key in ORDER else len(ORDER))
    figures = [_figure(key, row[key]) for key in ordered if isinstance(row[key], int | float)]
    blocks = [
        div(f"sample-text {key if key in ORDER else 'other'}", span("label", key.replace("_", " ")), *(div("pre", told) for told in texts))
        for key in ordered
        if key not in HIDDEN and (texts := _texts(row[key]))
    ]
    return div("sample", div("dim", " · ".join(figures)) if figures else None, *blocks)


def _figure(key: str, value: float) -> str:
    return f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"


def _texts(value: Any) -> list[Markup]:
    """The texts in a value: itself, those of a list, or a ``text`` with what is told beside it (a judgement and its score)."""
    if isinstance(value, str):
        return [text(value.strip())]
    if isinstance(value, list):
        return [told for one in value for told in _texts(one)]
    if isinstance(value, Mapping) and isinstance(value.get("text"), str):
        beside = [_figure(key, v) for key, v in value.items() if isinstance(v, int | float) and not isinstance(v, bool)]
        return [join(value["text"].strip(), span("dim", f"  {' · '.join(beside)}") if beside else None)]
    return []


def log(lines: str) -> Markup:
    if not lines:
        return empty("The log is empty", "Messages of the run and of its libraries stand here.")
    return tag("pre", lines, cls="log", tabindex=0)


def code(content: str) -> Markup:
    return tag("pre", text(content), cls="log")
