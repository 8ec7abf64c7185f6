"""Export: adapters, replies, pairs and votes of a run, to be used elsewhere."""

import os
from typing import Any

import gradio as gr

from lite.export import parts
from lite.export.rows import exported
from lite.plan import tiny_folder
from lite.ui import pairs, rate, watch
from lite.ui.markup import empty, join, link, note, span, table, tag
from lite.ui.site import QUIET, Site, query, title, told
from lite.ui.words import gib


def build(site: Site, page: gr.Blocks) -> None:
    gr.HTML(title("Export", "Everything a run made is an open format on your disk: adapters load with nothing but PEFT, rows are JSONL."))
    run = gr.Dropdown([], label="Run")
    view = gr.HTML()
    with gr.Row(visible=False) as choices:
        with gr.Column(min_width=260):
            adapter = gr.Dropdown([], label="Adapter", info="A plain PEFT folder with safetensors")
            get_adapter = gr.DownloadButton("Download as zip", size="sm")
        with gr.Column(min_width=260):
            model = gr.Dropdown([], label="Replies of", info="In AlpacaEval's format, the first draw of each prompt")
            get_replies = gr.DownloadButton("Download JSON", size="sm")
        with gr.Column(min_width=260):
            rows = gr.Dropdown([], label="Preference pairs", info="TRL's format, with your decisions and votes")
            get_rows = gr.DownloadButton("Download JSONL", size="sm")
    code = gr.Code(language="python", label="How to load the adapter", interactive=False, visible=False)
    shown = [view, choices, adapter, model, rows, code]

    def attach(request: gr.Request):
        listed = [row for row in watch.rows(site.runs) if (found := site.run(row.name)) and (parts.adapters(found) or pairs.sources(found))]
        asked = query(request, "run")
        name = asked if asked in [row.name for row in listed] else listed[0].name if listed else None
        return [gr.Dropdown([(f"{row.label or row.recipe} · {row.name[-6:]}", row.name) for row in listed], value=name), *look(name)]

    def look(name: str | None) -> list[Any]:
        found = site.run(name)
        if found is None:
            return [
                empty("Nothing to export yet", "Finished stages leave adapters and pairs here. ", link("new", "Start a run"), "."),
                gr.Row(visible=False),
                *[gr.skip()] * 4,
            ]
        made, models = parts.adapters(found), rate.models(found)
        sources = [*pairs.sources(found), *(["votes"] if parts.votes(found) else [])]
        listed = table(
            ["Stage", "What", "Size", "Folder"], [[tag("b", a.stage), a.role, gib(a.bytes), span("mono", str(a.folder))] for a in made]
        )
        base = watch.base_of(found)
        later = note(
            "info",
            "For a whole model in 16 bits, with chat template and card, or for Ollama: ",
            tag("code", f"lite export {found.name} --what merged"),
            " (or ollama, dataset, job; --push puts it on the Hub).",
        )
        return [
            join(listed, later) if made else empty("No adapter yet", "The reward and training stages write them."),
            gr.Row(visible=True),
            gr.Dropdown([a.stage for a in made], value=made[-1].stage if made else None),
            gr.Dropdown(models, value=models[0] if models else None),
            gr.Dropdown(sources, value=sources[0] if sources else None),
            gr.Code(parts.use(made[-1], str(tiny_folder()) if base == "tiny" else base), visible=True) if made else gr.Code(visible=False),
        ]

    @told
    def give_adapter(name: str, stage: str) -> str:
        made = next((a for a in parts.adapters(site.need(name)) if a.stage == stage), None)
        if made is None:
            raise gr.Error("There is no such adapter.", print_exception=False)
        return str(parts.zipped(made, site.downloads / os.urandom(6).hex()))

    @told
    def give_replies(name: str, which: str) -> str:
        found = site.need(name)
        if which not in rate.models(found):
            raise gr.Error("There are no such replies.", print_exception=False)
        return site.download("alpaca_eval.json", parts.alpaca(found, which))

    @told
    def give_rows(name: str, source: str) -> str:
        found = site.need(name)
        return site.download("preferences.jsonl", parts.votes(found) if source == "votes" else exported(found, source))

    page.load(attach, None, [run, *shown], **QUIET)
    run.input(look, run, shown, **QUIET)
    get_adapter.click(give_adapter, [run, adapter], get_adapter, api_visibility="private")
    get_replies.click(give_replies, [run, model], get_replies, api_visibility="private")
    get_rows.click(give_rows, [run, rows], get_rows, api_visibility="private")
