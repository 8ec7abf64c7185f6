"""Runs: all of them, the newest first, and two laid side by side."""

import gradio as gr

from lite.ui import compare, views, watch
from lite.ui.markup import Markup
from lite.ui.site import QUIET, TICK_SECONDS, Site, title, unchanged
from lite.ui.watch import RunRow

STATES = ("all", "running", "done", "not finished")


def build(site: Site, page: gr.Blocks) -> None:
    gr.HTML(title("Runs", "Every run on this machine. Runs go on when this page is closed."))
    with gr.Row(elem_classes="filters"):
        search = gr.Textbox(placeholder="Filter by recipe, label or base", show_label=False, container=False, scale=3, max_length=80)
        state = gr.Radio(STATES, value="all", show_label=False, container=False, scale=2)
    shown = gr.HTML()
    with gr.Accordion("Compare two runs", open=False) as folded:
        with gr.Row():
            one = gr.Dropdown([], label="One run")
            other = gr.Dropdown([], label="Another")
        side_by_side = gr.HTML(compare.nothing())
    sent = gr.State("")
    timer = gr.Timer(TICK_SECONDS * 2)

    def look(search: str, state: str, before: str):
        content = views.list_of_runs(filtered(watch.rows(site.runs), search, state))
        return unchanged(content, Markup(before)), str(content)

    def choices():
        listed = [(f"{row.label or row.recipe} · {row.name[-6:]}", row.name) for row in watch.rows(site.runs)]
        return gr.Dropdown(listed), gr.Dropdown(listed)

    def beside(first: str | None, second: str | None) -> Markup:
        a, b = site.run(first), site.run(second)
        return compare.view(a, b) if a and b and first != second else compare.nothing()

    places = [search, state, sent]
    for event in (timer.tick, search.change, state.change):
        event(look, places, [shown, sent], **QUIET)
    folded.expand(choices, None, [one, other], **QUIET)
    gr.on([one.input, other.input], beside, [one, other], side_by_side, **QUIET)
    page.load(look, places, [shown, sent], **QUIET)


def filtered(rows: list[RunRow], search: str, state: str) -> list[RunRow]:
    words = (search or "").lower().split()
    kinds = {"running": lambda r: r.live, "done": lambda r: r.state == "done", "not finished": lambda r: not r.live and r.state != "done"}
    fits = kinds.get(state, lambda r: True)
    return [r for r in rows if fits(r) and all(word in f"{r.name} {r.label or ''} {r.base}".lower() for word in words)]
