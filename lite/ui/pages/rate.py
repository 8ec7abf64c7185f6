"""Rate: two replies to one prompt, which is which is hidden; 1 to 8 says which is better, and by how much."""

import math
from typing import Any

import gradio as gr
import yaml

from lite.errors import LiteError
from lite.evaluate.intervals import Estimate
from lite.runs.read import Run
from lite.ui import rate, watch
from lite.ui.dialogueview import dialogue, side
from lite.ui.markup import Child, Markup, div, empty, join, link, note, span, tag, term
from lite.ui.rate import Outcome, Sheet
from lite.ui.site import QUIET, Site, query, title, told
from lite.ui.words import plural, share

KEYS = """<script>
document.addEventListener("keydown", (e) => {
  if (e.ctrlKey || e.metaKey || e.altKey || /INPUT|TEXTAREA|SELECT/.test(e.target.tagName) || e.target.isContentEditable) return;
  const id = /^[1-8]$/.test(e.key) ? "rate-" + e.key : e.key === "u" ? "rate-undo" : null;
  const button = id && document.getElementById(id);
  if (button) { button.click(); e.preventDefault(); }
});
</script>"""
"""Keys 1 to 8 and u press the buttons, unless one is writing."""


def build(site: Site, page: gr.Blocks) -> None:
    gr.HTML(
        title(
            "Rate",
            "Which reply is better? The models are hidden and stand in random order. Use the keys 1 to 8; u takes the last one back.",
        )
    )
    with gr.Row():
        run = gr.Dropdown([], label="Run", scale=3, min_width=250)
        first = gr.Dropdown([], label="Model", scale=2, min_width=140)
        second = gr.Dropdown([], label="Against", scale=2, min_width=140)
    progress = gr.HTML()
    view = gr.HTML()
    with gr.Row(elem_classes="scale-row", visible=False) as scale:
        buttons = [gr.Button(str(n), elem_id=f"rate-{n}", min_width=0, scale=1, size="lg") for n in range(1, 9)]
    with gr.Row(visible=False) as ends:
        gr.HTML(div("scale-ends", span("dim", "A is much better"), span("dim", "B is much better")))
    with gr.Row():
        undo = gr.Button("Undo (u)", size="sm", scale=0, min_width=110, elem_id="rate-undo", visible=False)
        reveal = gr.Button("Show the result", size="sm", scale=0, min_width=150, visible=False)
    result = gr.HTML()
    place = gr.State(-1)
    chosen = [run, first, second]
    shown = [progress, view, scale, ends, undo, reveal, result, place]

    def attach(request: gr.Request):
        rows = [
            row for row in watch.rows(site.runs) if row.state == "done" and (found := site.run(row.name)) and len(rate.models(found)) > 1
        ]
        asked = query(request, "run")
        name = asked if asked in [row.name for row in rows] else rows[0].name if rows else None
        picked, one, other = models(name)
        choices = [(f"{row.label or row.recipe} · {row.name[-6:]}", row.name) for row in rows]
        return [gr.Dropdown(choices, value=name), picked, one, *look(name, other[0], other[1])]

    def models(name: str | None):
        """The choices of both models, and what is chosen at first: the trained model against the base."""
        found = site.run(name)
        names = rate.models(found) if found else []
        pair = (names[0], "base" if "base" in names else names[-1]) if len(names) > 1 else (None, None)
        return gr.Dropdown(names, value=pair[0]), gr.Dropdown(names, value=pair[1]), pair

    def choose(name: str):
        one, other, pair = models(name)
        return [one, other, *look(name, *pair)]

    def look(name: str | None, one: str | None, other: str | None) -> list[Any]:
        found = site.run(name)
        if found is None or not one or not other:
            return [
                *_hidden(
                    empty("Nothing to rate yet", "Rating needs a finished run with an evaluate stage. ", link("new", "Start a run"), ".")
                )
            ]
        try:
            sheet = _sheet(found, one, other)
        except LiteError as e:
            return [*_hidden(note("warn", str(e)))]
        at = sheet.next
        body = (
            _view(sheet, at)
            if at is not None
            else note("good", tag("strong", "All rated. "), "Show the result to see which model is which.")
        )
        open_, any_ = at is not None, bool(sheet.rated)
        return [
            _progress(sheet),
            body,
            gr.Row(visible=open_),
            gr.Row(visible=open_),
            gr.Button(visible=any_),
            gr.Button(visible=any_),
            "",
            -1 if at is None else at,
        ]

    @told
    def give(n: int, name: str, one: str, other: str, at: int):
        sheet = _sheet(site.need(name), one, other)
        if at == sheet.next:  # a second click of the same pair is no rating of the next one
            rate.rate(sheet, at, n)
        return look(name, one, other)

    @told
    def take_back(name: str, one: str, other: str):
        rate.undo(_sheet(site.need(name), one, other))
        return look(name, one, other)

    @told
    def tell(name: str, one: str, other: str) -> Markup | str:
        found = site.need(name)
        outcome = rate.outcome(found, _sheet(found, one, other))
        return _outcome(outcome) if outcome else ""

    page.load(attach, None, [*chosen, *shown], **QUIET)
    run.input(choose, run, [first, second, *shown], **QUIET)
    gr.on([first.input, second.input], look, chosen, shown, **QUIET)
    for n, button in enumerate(buttons, 1):
        button.click(lambda *g, n=n: give(n, *g), [*chosen, place], shown, **QUIET)
    undo.click(take_back, chosen, shown, **QUIET)
    reveal.click(tell, chosen, result, **QUIET)


def _sheet(run: Run, one: str, other: str) -> Sheet:
    try:
        task = yaml.safe_load(run.folder.resolved.read_text(encoding="utf-8"))["task"]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        task = "helpful"
    return rate.open_sheet(run, one, other, task)


def _hidden(content: Markup) -> list[Any]:
    return ["", content, gr.Row(visible=False), gr.Row(visible=False), gr.Button(visible=False), gr.Button(visible=False), "", -1]


def _progress(sheet: Sheet) -> Markup:
    done, total = sheet.rated, len(sheet.rows)
    return div(
        "rate-progress",
        div("bar", tag("i", style=f"width:{100 * done / max(1, total):.1f}%")),
        span("dim", f"{done} of {total} rated; stop whenever you like, this is where you go on"),
    )


def _view(sheet: Sheet, at: int) -> Markup:
    row = sheet.rows[at]
    return join(
        div("question", sheet.question),
        div("prompt-box", span("label", "Prompt"), dialogue(row["prompt"])),
        div("pair", side("A", row["A"], "neutral"), side("B", row["B"], "neutral")),
    )


def _interval(found: Estimate) -> str:
    return f"; 95% interval of its score {found.low:.2f} to {found.high:.2f}" if math.isfinite(found.low) else ""


def _outcome(found: Outcome) -> Markup:
    scores = found.scores
    parts: list[Child] = [
        tag("h3", f"{found.first}: {scores.first.mean:.2f} of 9, {found.second}: {scores.second:.2f} of 9"),
        tag(
            "p",
            f"4.5 is even. {found.first} was preferred in {share(scores.preferred)} of {plural(scores.rated, 'pair')}",
            f"{_interval(scores.first)}.",
        ),
    ]
    if found.judge and found.judge.decided_accuracy:
        parts.append(
            tag("p", term("Agreement with the judge", "Of the pairs in which the judge had a preference, how often yours was the same."),
                f": {share(found.judge.decided_accuracy.mean)} of {plural(found.judge.decided, 'pair')} in which it had a preference.")
        )  # fmt: skip
    return div("card", *parts)
