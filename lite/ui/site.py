"""What every page shares: where the runs lie, which folders recipes may name, how an error is told."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import gradio as gr

from lite.chat.process import ChatProcess
from lite.errors import LiteError
from lite.runs.read import Run
from lite.ui import places
from lite.ui.markup import Markup, div, tag

P = ParamSpec("P")
R = TypeVar("R")
TICK_SECONDS = 1.5
QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None, "queue": True}
"""For events that only read: no spinner, no waiting for one another. Private is not a boundary: handlers check what they are given."""


@dataclass(frozen=True)
class Site:
    runs: Path
    downloads: Path
    """an empty folder of this process; nothing else is ever handed out as a file"""
    roots: tuple[Path, ...] = ()
    chat: ChatProcess = field(default_factory=ChatProcess)

    @property
    def folders(self) -> tuple[Path, ...]:
        return (Path.cwd(), self.runs, *self.roots)

    def run(self, name: object) -> Run | None:
        return places.open_run(self.runs, name)

    def need(self, name: object) -> Run:
        """The run, or a message that there is none."""
        found = self.run(name)
        if found is None:
            raise gr.Error("There is no such run here; choose one from the list.", title="No run", print_exception=False)
        return found

    def download(self, name: str, content: str) -> str:
        """A file to hand out, in a folder of its own."""
        folder = self.downloads / os.urandom(6).hex()
        folder.mkdir(parents=True)
        (folder / name).write_text(content, encoding="utf-8")
        return str(folder / name)


def told(function: Callable[P, R]) -> Callable[P, R]:
    """An error of lite becomes a message on the page, without a traceback."""

    @wraps(function)
    def guarded(*given: P.args, **named: P.kwargs) -> R:
        try:
            return function(*given, **named)
        except LiteError as e:
            raise gr.Error(plain(e), title="This did not work", duration=15, print_exception=False) from e

    return guarded


def plain(error: LiteError) -> str:
    """The message for Gradio's toast, which takes HTML."""
    return str(tag("span", str(error), cls="pre"))


def title(heading: str, lede: str) -> Markup:
    return div("page-title", tag("h1", heading), tag("p", lede, cls="lede"))


def query(request: gr.Request | None, key: str) -> str | None:
    """A parameter of the page's address."""
    found: Mapping[str, str] = getattr(request, "query_params", None) or {}
    return found.get(key)


def unchanged(content: Markup, before: object) -> Any:
    """The content, or nothing to send if the page has it already."""
    return gr.skip() if content == before else content
