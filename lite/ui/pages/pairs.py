"""Pairs: what the run learns from, one pair at a time; what is wrong can be left out or turned round, and the rest exported."""

from typing import Any, cast

import gradio as gr

from lite.export.rows import exported
from lite.ui import pairs, watch
from lite.ui.dialogueview import pair as pair_view
from lite.ui.lineage import lineage
from lite.ui.markup import Markup, div, empty, link, span
from lite.ui.pairs import FLAGS, Action, PairRow
from lite.ui.site import QUIET, Site, query, title, told
from lite.ui.words import plural

ALL = "all"
REVIEWS = {ALL: "", "excluded": "exclude", "flipped": "flip", "untouched": "keep"}


def build(site: Site, page: gr.Blocks) -> None:
    gr.HTML(title("Pairs", "What training learns from: two replies to each prompt, one of them preferred. Differences are marked."))
    with gr.Row():
        run = gr.Dropdown([], label="Run", scale=3, min_width=250)
        stage = gr.Dropdown([], label="Stage", scale=1, min_width=120)
        words = gr.Textbox(label="Search", placeholder="words in any text", scale=2, max_length=200, min_width=200)
        flag = gr.Dropdown([ALL, *FLAGS], value=ALL, label="Show", scale=2, min_width=150)
        review = gr.Dropdown(list(REVIEWS), value=ALL, label="Decision", scale=1, min_width=120)
    place = gr.State(0)
    shown_id = gr.State("")
    with gr.Row(elem_classes="pager"):
        back = gr.Button("← Back", size="sm", scale=0, min_width=90)
        on = gr.Button("Next →", size="sm", scale=0, min_width=90)
        exclude = gr.Button("Exclude", size="sm", scale=0, min_width=90)
        flip = gr.Button("Flip", size="sm", scale=0, min_width=90)
        keep = gr.Button("Undo", size="sm", scale=0, min_width=90)
        export = gr.DownloadButton("Export JSONL", size="sm", scale=0, min_width=120)
    count = gr.HTML()
    view = gr.HTML()
    filters = [run, stage, words, flag, review]
    shown = [view, count, place, shown_id, exclude, flip, keep]

    def attach(request: gr.Request):
        names = [row for row in watch.rows(site.runs) if (found := site.run(row.name)) and pairs.sources(found)]
        choices = [(f"{row.label or row.recipe} · {row.name[-6:]}", row.name) for row in names]
        asked = query(request, "run")
        chosen = asked if asked in [row.name for row in names] else names[0].name if names else None
        ids = pairs.sources(found) if (found := site.run(chosen)) else []
        return gr.Dropdown(choices, value=chosen), *stages(chosen), *look(chosen, ids[0] if ids else None, "", ALL, ALL, 0)

    def stages(run_name: str | None):
        found = site.run(run_name)
        ids = pairs.sources(found) if found else []
        return (gr.Dropdown(ids, value=ids[0] if ids else None, visible=len(ids) != 1),)

    def first(run_name: str, stage_id: str, words: str, flag: str, review: str) -> list[Any]:
        return look(run_name, stage_id, words, flag, review, 0)

    def back_one(run_name: str, stage_id: str, words: str, flag: str, review: str, at: int) -> list[Any]:
        return look(run_name, stage_id, words, flag, review, at - 1)

    def on_one(run_name: str, stage_id: str, words: str, flag: str, review: str, at: int) -> list[Any]:
        return look(run_name, stage_id, words, flag, review, at + 1)

    def look(run_name: str | None, stage_id: str | None, words: str, flag: str, review: str, at: int) -> list[Any]:
        found = site.run(run_name)
        every = pairs.rows(found, stage_id) if found and stage_id else []
        if not every:
            return [_none(), "", 0, "", *[gr.Button(visible=False)] * 3]
        rows = pairs.filtered(every, words=words or "", flag=flag if flag in FLAGS else "", review=REVIEWS.get(review, ""))
        if not rows:
            return [
                empty("Nothing fits", "Change the words or the filters above."),
                _count(every, rows, 0),
                0,
                "",
                *[gr.Button(visible=False)] * 3,
            ]
        at = min(max(int(at or 0), 0), len(rows) - 1)
        row = rows[at]
        buttons = [
            gr.Button(visible=row.review != "exclude"),
            gr.Button(visible=row.review != "flip"),
            gr.Button(visible=row.review != "keep"),
        ]
        origin = lineage(found, stage_id, row.id) if found and stage_id else None
        return [pair_view(row, origin), _count(every, rows, at), at, row.id, *buttons]

    @told
    def decide(action: str, run_name: str, stage_id: str, id: str) -> None:
        if id:
            try:
                pairs.decide(site.need(run_name), stage_id, id, cast(Action, action))
            except ValueError as e:
                raise gr.Error("There is no such pair.", print_exception=False) from e

    @told
    def save(run_name: str, stage_id: str) -> str:
        found = site.need(run_name)
        return site.download(
            f"{found.recipe or 'run'}-{stage_id if stage_id in pairs.sources(found) else 'pairs'}.jsonl", exported(found, stage_id)
        )

    page.load(attach, None, [run, stage, *shown], **QUIET)
    run.input(stages, run, [stage], **QUIET).then(first, filters, shown, **QUIET)
    gr.on([stage.input, words.change, flag.input, review.input], first, filters, shown, trigger_mode="always_last", **QUIET)
    back.click(back_one, [*filters, place], shown, **QUIET)
    on.click(on_one, [*filters, place], shown, **QUIET)
    for button, action in ((exclude, "exclude"), (flip, "flip"), (keep, "keep")):
        button.click(lambda *g, action=action: decide(action, *g), [run, stage, shown_id], None, **QUIET).then(
            look, [*filters, place], shown, **QUIET
        )
    export.click(save, [run, stage], export, api_visibility="private")


def _count(every: list[PairRow], rows: list[PairRow], at: int) -> Markup:
    changed = sum(row.review != "keep" for row in every)
    told = f"{plural(len(rows), 'pair')} of {len(every):,}" if len(rows) != len(every) else plural(len(every), "pair")
    return div(
        "facts",
        span("strong", f"{min(at + 1, len(rows)):,} of {len(rows):,}"),
        span("dim", told),
        span("dim", f"{changed} changed by you") if changed else None,
    )


def _none() -> Markup:
    return empty(
        "No pairs yet",
        "Pairs are made by the contrast stage of a run. ",
        link("new", "Start a run"),
        " and come back once that stage is done.",
    )
