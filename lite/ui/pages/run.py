"""One run: how far it is, its figures and samples as they come, its log, its results; stop and resume."""

from pathlib import Path
from typing import Any

import gradio as gr

from lite.runs.read import Run
from lite.ui import charts, launch, reportview, series, views, watch
from lite.ui.markup import Markup, empty, link
from lite.ui.site import QUIET, TICK_SECONDS, Site, query, title, told

LOG_LINES = 300


def build(site: Site, page: gr.Blocks) -> None:
    head = gr.HTML(title("Run", "Loading ..."))
    name = gr.Textbox("", visible="hidden", show_label=False)  # a State would not reach the line of script below
    sent: gr.State = gr.State({})
    with gr.Row(visible=False) as buttons:
        stop = gr.Button("Stop", variant="secondary", size="sm", scale=0, min_width=110)
        stop_now = gr.Button("Stop now", variant="stop", size="sm", scale=0, min_width=110)
        resume = gr.Button("Resume", variant="primary", size="sm", scale=0, min_width=110)
        ways = {place: gr.Button(place.capitalize(), size="sm", scale=0, min_width=90) for place in ("pairs", "rate", "chat", "export")}
    strip = gr.HTML()
    with gr.Tabs(visible=False) as tabs:
        with gr.Tab("Figures", id="figures"):
            stage = gr.Radio([], show_label=False, container=False)
            pictures = gr.HTML()
        with gr.Tab("Samples", id="samples"):
            texts = gr.HTML()
        with gr.Tab("Results", id="results"):
            results = gr.HTML()
        with gr.Tab("Log", id="log"):
            log = gr.HTML()
        with gr.Tab("Recipe", id="recipe"):
            recipe = gr.Code(language="yaml", interactive=False, show_label=False, max_lines=40)
    timer: gr.Timer = gr.Timer(TICK_SECONDS, active=False)
    live = [head, strip, pictures, texts, results, log]
    shown = [*live, stage, stop, stop_now, resume, timer, sent]

    def attach(request: gr.Request):
        """The run of the address, else the newest."""
        run = site.run(query(request, "name")) or _newest(site)
        if run is None:
            return {head: views.list_of_runs([]), name: ""}
        chosen = _stage_to_show(run)
        return {
            name: run.name,
            buttons: gr.Row(visible=True),
            tabs: gr.Tabs(visible=True, selected="results" if run.state == "done" else "figures"),
            recipe: _text(run.folder.resolved),
            **dict(zip(shown, look(run.name, chosen, {}), strict=True)),
        }

    def look(run_name: str, chosen: str | None, before: dict[str, str]) -> list[Any]:
        run = site.run(run_name)
        if run is None:
            return [gr.skip()] * len(shown)
        row, stages = watch.row(run), watch.stages(run)
        with_figures = [s.id for s in stages if watch.metrics(run, s.id)]
        another = row.live and before.get("stages", "") not in ("", " ".join(with_figures))
        chosen = chosen if chosen in with_figures and not another else _stage_to_show(run)  # a live page follows the run
        new = {
            "head": views.head(row, run.facts),
            "strip": views.strip(stages),
            "pictures": figures(run, chosen),
            "texts": views.samples(watch.samples(run, _stage_with_samples(run, chosen))),
            "results": reportview.report(run.report()) if row.state == "done" else _no_results(row.state),
            "log": views.log(watch.tail(run.folder.log, LOG_LINES) or watch.tail(run.folder.console, LOG_LINES)),
        }
        sends = [gr.skip() if before.get(key) == content else content for key, content in new.items()]
        same = before.get("stages") == " ".join(with_figures) and before.get("state") == row.state
        controls = [gr.skip()] * 5 if same else [
            gr.Radio(with_figures, value=chosen, visible=len(with_figures) > 1),
            gr.Button("Stop", visible=row.live, interactive=True),
            gr.Button(visible=row.live),
            gr.Button(visible=row.state in views.RESUMABLE),
            gr.Timer(active=row.live),
        ]  # fmt: skip
        return [*sends, *controls, {**{key: str(c) for key, c in new.items()}, "stages": " ".join(with_figures), "state": row.state}]

    @told
    def end(run_name: str, now: bool) -> None:
        run = site.need(run_name)
        launch.stop(run, now=now)
        gr.Info(
            "The run is being ended."
            if now
            else "The run stops after its step, and can be resumed. A long step? Stop now ends it at once.",
            duration=8,
        )

    @told
    def go_on(run_name: str):
        run = site.need(run_name)
        site.chat.stop()
        launch.resume(run)
        return gr.Timer(active=True), {}

    page.load(attach, None, [*shown, name, buttons, tabs, recipe], **QUIET)
    timer.tick(look, [name, stage, sent], shown, **QUIET)
    stage.input(look, [name, stage, sent], shown, **QUIET)
    stop.click(lambda n: end(n, False), name, None, **QUIET).success(
        lambda: gr.Button("Stopping ...", interactive=False), None, stop, **QUIET
    )
    stop_now.click(lambda n: end(n, True), name, None, **QUIET)
    resume.click(go_on, name, [timer, sent], api_visibility="private")
    for place, button in ways.items():
        button.click(None, name, None, js=f"(name) => {{ window.location.href = '{place}?run=' + encodeURIComponent(name) }}")


def figures(run: Run, stage: str | None) -> Markup:
    drawn = series.charts(watch.metrics(run, stage)) if stage else []
    return (
        charts.grid(drawn) if drawn else empty("No figures yet", "They appear here as soon as a stage that trains has made its first step.")
    )


def _newest(site: Site) -> Run | None:
    rows = watch.rows(site.runs)
    return site.run(rows[0].name) if rows else None


def _stage_to_show(run: Run) -> str | None:
    """The running stage if it has figures, else the last that has the most kinds of them."""
    found = {s.id: len(series.charts(watch.metrics(run, s.id), 2)) for s in watch.stages(run)}
    now = str(run.facts.get("stage") or "")
    if run.state in watch.LIVE and found.get(now):
        return now
    return max(found, key=lambda id: found[id], default=None) if any(found.values()) else None


def _stage_with_samples(run: Run, chosen: str | None) -> str:
    """The chosen stage if it shows samples, else the last that does."""
    showing = [s.id for s in watch.stages(run) if watch.samples(run, s.id, 1)]
    return chosen if chosen in showing else showing[-1] if showing else ""


def _no_results(state: str) -> Markup:
    if state in watch.LIVE:
        return empty(
            "The results come at the end", "The evaluate stage answers held-out prompts with every model and compares the replies."
        )
    return empty("No results", "This run has not reached its end. ", "Resume it, or ", link("new", "start another"), ".")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
