"""Chat: one to three models of a run on one loaded base, side by side, with the same seed; votes become preference pairs."""

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gradio as gr

from lite.chat.offers import Room, can_chat, room
from lite.errors import LiteError
from lite.fit.cards import this_card
from lite.ui import talk as talking
from lite.ui import watch
from lite.ui.markup import Child, Markup, div, empty, join, link, note, span, tag
from lite.ui.site import QUIET, Site, query, title
from lite.ui.talk import LETTERS, PANES, Talk

MOST_CHARACTERS = 8000
ENDS = {"length": "cut at the longest length", "stopped": "stopped", "": ""}
ANSWERING: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_id": "gpu", "concurrency_limit": 1}


def build(site: Site, page: gr.Blocks) -> None:
    gr.HTML(
        title("Chat and compare", "Ask the base and what was made of it the same question, with the same seed. All sit on one loaded base.")
    )
    with gr.Row():
        run = gr.Dropdown([], label="Run", scale=2, min_width=200)
        models = gr.Dropdown([], label="Models", info="One to three", multiselect=True, max_choices=PANES, scale=3, min_width=290)
    blind = gr.Checkbox(False, label="Blind: which is which is hidden until you vote", container=False)
    state = gr.State(Talk())
    view = gr.HTML(elem_id="chat-view")
    with gr.Row(visible=False) as votes:
        ballots = [gr.Button(f"{LETTERS[i]} is best", size="sm", scale=0, min_width=120, visible=False) for i in range(PANES)]
    with gr.Row(elem_classes="ask"):
        question = gr.Textbox(
            placeholder="Ask something",
            show_label=False,
            container=False,
            scale=6,
            max_length=MOST_CHARACTERS,
            autofocus=True,
            lines=1,
            max_lines=6,
        )
        send = gr.Button("Send", variant="primary", scale=0, min_width=90, interactive=False)  # until the page knows its run
        stop = gr.Button("Stop", variant="stop", scale=0, min_width=90, visible=False)
    with gr.Row():
        again = gr.Button("Regenerate", size="sm", scale=0, min_width=120)
        anew = gr.Button("New conversation", size="sm", scale=0, min_width=150)
    with gr.Accordion("Sampling", open=False), gr.Row():
        seed = gr.Number(1, label="Seed", precision=0, minimum=0, maximum=2**31, info="The same for all models", min_width=140)
        heat = gr.Slider(0, 2, 1.0, step=0.05, label="Temperature", info="0 always takes the likeliest token", min_width=180)
        top_p = gr.Slider(0.05, 1, 1.0, step=0.05, label="Top-p", info="Leaves out the unlikeliest tokens", min_width=180)
        longest = gr.Slider(8, 1024, 200, step=8, label="Longest reply (tokens)", min_width=180)
    with gr.Accordion("What the models read (raw prompts)", open=False):
        raw = gr.HTML()
    sampling = [seed, heat, top_p, longest]
    shown = [view, state, votes, *ballots, send, stop, raw]

    def attach(request: gr.Request):
        rows = [row for row in watch.rows(site.runs) if (found := site.run(row.name)) and can_chat(found)]
        asked = query(request, "run")
        name = asked if asked in [row.name for row in rows] else rows[0].name if rows else None
        choices = [(f"{row.label or row.recipe} · {row.base} · {row.name[-6:]}", row.name) for row in rows]
        return [gr.Dropdown(choices, value=name), *choose(name)]

    def choose(name: str | None):
        found = site.run(name)
        if found is None:
            nobody = empty(
                "Nobody to talk to yet", "A run that has finished its training stage brings models. ", link("new", "Start a run"), "."
            )
            return [gr.Dropdown([], value=[], multiselect=True), *show(Talk(), content=nobody, ready=False)]
        offered = room(found)
        return [gr.Dropdown([o.name for o in offered.offers], value=list(talking.defaults(offered)), multiselect=True), *show(Talk())]

    def show(talk: Talk, *, busy: bool = False, content: Markup | None = None, problem: str = "", ready: bool = True) -> list[Any]:
        last = talk.exchanges[-1] if talk.exchanges else None
        can_vote = not busy and last is not None and len(talk.seats) > 1 and not talk.voted and any(last.replies)
        body = content or _view(talk, busy)
        ballots_ = [
            gr.Button(f"{talk.label(i)} is best", visible=True) if can_vote and i < len(talk.seats) else gr.Button(visible=False)
            for i in range(PANES)
        ]
        return [
            join(body, note("bad", problem)) if problem else body, talk, gr.Row(visible=can_vote), *ballots_,
            gr.Button(visible=not busy, interactive=ready), gr.Button(visible=busy), _raw(talk),
        ]  # fmt: skip

    def answer(
        talk: Talk, name: str, names: list[str], hide: bool, text: str, seed_: float, heat_: float, top: float, most: float
    ) -> Iterator[list[Any]]:
        """What is shown, and the question's box: emptied when the question is asked, left alone before and after."""
        found = site.run(name)
        text = (text or "").strip()[:MOST_CHARACTERS]
        if found is None or not text:
            problem = "No run is chosen above yet; your question is kept." if text else ""
            yield [*show(talk, problem=problem, ready=found is not None), gr.skip()]
            return
        try:
            offered = room(found)
            chosen = [n for n in names or [] if offered.offer(n)][:PANES]
            if problem := _held(site, offered) if chosen else "Choose at least one model above.":
                yield [*show(talk, problem=problem), gr.skip()]
                return
            talk = talking.seat(talk, found.name, chosen, bool(hide))
            talk, asked = talking.ask(talk, offered, text, int(seed_ or 0))
            opening = not site.chat.is_open(offered.base)
            loading = join(_view(talk, True), note("info", "Loading the base; this is done once.")) if opening else None
            yield [*show(talk, busy=True, content=loading), ""]
            how = {"seed": int(seed_ or 0), "max_new_tokens": int(most), "temperature": float(heat_), "top_p": float(top)}
            for pane, (offer, prompt) in enumerate(asked):
                for event in site.chat.say(offered.base, offer.adapter, prompt, **how):
                    talk = talking.heard(talk, pane, str(event.get("text", "")), str(event.get("stop", "")))
                    yield [*show(talk, busy=True), gr.skip()]
                if talk.exchanges[-1].stops[pane] == "stopped":
                    break
            yield [*show(talk), gr.skip()]
        except LiteError as e:
            unanswered = bool(talk.exchanges) and not any(talk.exchanges[-1].replies)
            yield [*show(talking.without_last(talk) if unanswered else talk, problem=str(e)), text if unanswered else gr.skip()]

    def once_more(
        talk: Talk, name: str, names: list[str], hide: bool, seed_: float, heat_: float, top: float, most: float
    ) -> Iterator[list[Any]]:
        if not talk.exchanges:
            yield [*show(talk), gr.skip()]
            return
        yield from answer(talking.without_last(talk), name, names, hide, talk.exchanges[-1].question, seed_, heat_, top, most)

    def vote(winner: int, talk: Talk) -> list[Any]:
        found = site.run(talk.run)
        if found is None or not talk.exchanges or talk.voted or winner >= len(talk.seats):
            return show(talk)
        added = talking.vote(talk, found, room(found), winner)
        gr.Info("Kept as a preference pair." if added else "The replies are the same, so there is nothing to keep.", duration=4)
        return show(replace(talk, voted=True))

    given = [state, run, models, blind]
    page.load(attach, None, [run, models, *shown], **QUIET)
    run.input(choose, run, [models, *shown], **QUIET)
    gr.on([send.click, question.submit], answer, [*given, question, *sampling], [*shown, question], **ANSWERING)
    again.click(lambda: random.randrange(2**31), None, seed, **QUIET).then(once_more, [*given, *sampling], [*shown, question], **ANSWERING)
    stop.click(lambda: site.chat.hush(), None, None, **QUIET)
    anew.click(lambda: show(Talk()), None, shown, **QUIET)
    for i, ballot in enumerate(ballots):
        ballot.click(lambda talk, i=i: vote(i, talk), state, shown, **QUIET)


def _held(site: Site, offered: Room) -> str | None:
    """Why no chat is possible now: a run has the card."""
    if offered.base.device == "cpu" or this_card() is None:
        return None
    busy = next((row for row in watch.rows(site.runs) if row.live), None)
    return f"Run {busy.label or busy.recipe} has the graphics card; chat when it is done, or stop it." if busy else None


def _view(talk: Talk, busy: bool) -> Markup:
    if not talk.exchanges:
        return empty(
            "Ask something", "Every chosen model answers in its own column. Vote for the better reply, and it is kept as a preference pair."
        )
    columns = []
    for pane in range(len(talk.seats)):
        items: list[Child] = [div("pane-name", talk.label(pane))]
        for i, exchange in enumerate(talk.exchanges):
            last = busy and i == len(talk.exchanges) - 1
            reply, stop = exchange.replies[pane], exchange.stops[pane]
            waiting = last and not stop
            items.append(div("bubble human pre", exchange.question))
            body = reply if reply else (span("typing", "…") if waiting else span("dim", "(an empty reply)" if stop else "(no reply)"))
            items.append(div("bubble reply pre", body, span("caret", "") if waiting and reply else None))
            if ENDS.get(stop):
                items.append(div("dim small", ENDS[stop]))
        columns.append(div("pane", *items))
    return div(f"panes n{len(columns)}", *columns)


def _raw(talk: Talk) -> Markup:
    if not talk.prompts:
        return span("dim", "Ask something first.")
    if talk.blind and not talk.voted:
        return span("dim", "Hidden until you vote: the prompts would tell which model is which.")
    return join(*(join(tag("h3", talk.label(i)), tag("pre", prompt, cls="log")) for i, prompt in enumerate(talk.prompts)))
