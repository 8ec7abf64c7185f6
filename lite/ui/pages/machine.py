"""Machine: whether it is fit for lite, check by check, and what this page does and does not do."""

import os
from collections.abc import Iterator, Sequence

import gradio as gr

from lite import __version__, doctor
from lite.doctor import Check
from lite.runs.env import snapshot
from lite.ui.markup import Child, Markup, div, empty, note, span, table, tag
from lite.ui.site import QUIET, Site, title

SIGNS = {"green": "good", "amber": "warn", "red": "bad"}
PROMISES = (
    ("Network", "The page listens on this machine only, unless it was started with --listen or --share; both ask for a login."),
    ("Telemetry", "Off, for this page and for every library behind it. Nothing is sent anywhere."),
    ("Users", "One. Whoever can log in can start processes and read the runs: this is no service for strangers."),
    ("Foreign code", "Code that comes with a model is never run, and weights are read from safetensors only."),
    ("Licence", "lite: Apache-2.0. Bases and prompts have licences of their own: read them before you publish what came of them."),
)


def build(site: Site, page: gr.Blocks) -> None:
    gr.HTML(title("Machine", "What is here, whether it works, and what to do where it does not."))
    check = gr.Button("Check this machine", variant="primary", scale=0, min_width=190)
    found = gr.HTML(empty("Not checked yet", "The check tries 4-bit arithmetic for real, so it takes about ten seconds."))
    gr.HTML(tag("h3", "About this page"))
    about = gr.HTML()

    def examine() -> Iterator[Markup]:
        done: list[Check] = []
        yield note("info", "Checking ...")
        for result in doctor.checks(site.runs):
            done.append(result)
            yield _checks(done, going=True)
        yield _checks(done, going=False)

    def tell() -> Markup:
        versions = ", ".join(f"{name} {version}" for name, version in snapshot()["packages"].items() if version)
        rows: list[list[Child]] = [[tag("b", key), value] for key, value in PROMISES]
        rows += [[tag("b", "Runs"), str(site.runs.resolve())], [tag("b", "Models"), os.environ.get("HF_HOME", "~/.cache/huggingface")]]
        return table(["", ""], [*rows, [tag("b", "Versions"), f"lite {__version__}, {versions}"]], "about")

    check.click(examine, None, found, api_visibility="private", show_progress="hidden", concurrency_limit=1)
    page.load(tell, None, about, **QUIET)


def _checks(done: Sequence[Check], *, going: bool) -> Markup:
    rows: list[list[Child]] = [
        [span(f"light {SIGNS[c.level]}", c.level), tag("b", c.name), div("", c.found, div("dim", c.fix) if c.fix else None)] for c in done
    ]
    worst = "red" if any(c.level == "red" for c in done) else "amber" if any(c.level == "amber" for c in done) else "green"
    told = {"green": "All is well.", "amber": "It works, with what stands below.", "red": "Something has to be mended first."}[worst]
    return div(
        "checks", note("info", "Checking ...") if going else note(SIGNS[worst], tag("strong", told)), table(["", "Check", "Found"], rows)
    )
