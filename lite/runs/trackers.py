"""A run's figures in the tracker that somebody uses already: tensorboard, wandb or trackio, by name. Our own files are written either way.

The packages are imported when a run begins, and are not dependencies. Every stage has its own steps, so figures are named
``ppo/kl`` and have the step of their stage. A tracker that fails while the run goes on is let go with a word in the log: the run matters
more.
"""

import importlib.util
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from lite.errors import PreconditionError
from lite.runs.journal import Journal, untracked

Name = Literal["tensorboard", "wandb", "trackio"]
NAMES: tuple[Name, ...] = get_args(Name)
PROJECT = "lite"


class Tracker(Protocol):
    def log(self, stage: str, step: int, figures: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


def check(name: str | None) -> None:
    """A :class:`PreconditionError` says what to install for a tracker whose package is not there; nothing is imported."""
    if name and importlib.util.find_spec(name) is None:
        raise PreconditionError(f"track: {name} is not installed; pip install {name}, or leave `track` out")


@contextmanager
def tracking(name: str | None, journal: Journal, config: Mapping[str, Any]) -> Iterator[None]:
    """For the length of the block, what stages tell the journal goes to the tracker too. ``config``: the recipe, for its page."""
    if name is None:
        yield
        return
    check(name)
    makers: Mapping[str, Callable[[Journal, Mapping[str, Any]], Tracker]] = {
        "tensorboard": TensorBoard,
        "wandb": Session,
        "trackio": Session,
    }
    try:
        with redirect_stdout(sys.stderr):
            tracker = makers[name](journal, {"tracker": name, **config})
    except Exception as e:  # theirs, of any kind: no login, no network, an older version
        raise PreconditionError(f"track: {name} cannot begin ({type(e).__name__}: {e}); mend it, or leave `track` out") from e
    relay = Relay(tracker, journal, name)
    journal.track = relay.tell
    try:
        yield
    finally:
        journal.track = untracked
        relay.close()


class Relay:
    """Between the journal and a tracker: numbers only, a step for every line, and no error of the tracker's gets through."""

    def __init__(self, tracker: Tracker, journal: Journal, name: str):
        self._tracker: Tracker | None = tracker
        self._journal, self._name = journal, name
        self._lines: dict[str, int] = {}

    def tell(self, stage: str, values: Mapping[str, Any]) -> None:
        """One line of a stage's metrics. A line without a step has the number of the line."""
        self._lines[stage] = self._lines.get(stage, 0) + 1
        figures = numbers({name: value for name, value in values.items() if name not in ("step", "at")})
        if figures:
            step = int(values.get("step", self._lines[stage]))
            self._try(lambda tracker: tracker.log(stage, step, figures))

    def close(self) -> None:
        self._try(lambda tracker: tracker.close())

    def _try(self, act: Callable[[Tracker], None]) -> None:
        if self._tracker is None:
            return
        try:
            with redirect_stdout(sys.stderr):  # ours is for results
                act(self._tracker)
        except Exception as e:  # whatever it is, it is not worth the run
            self._tracker = None
            self._journal.log(f"{self._name} is told nothing more: {type(e).__name__}: {e}")


def numbers(values: Mapping[str, Any], before: str = "") -> dict[str, float]:
    """The finite numbers among the values, with those inside mappings as ``words.chosen``."""
    found: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= numbers(value, f"{before}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            found[f"{before}{name}"] = float(value)
    return found


class TensorBoard:
    """Event files in the run's folder: ``tensorboard --logdir runs``. Written by tensorboard's own writer, without torch."""

    def __init__(self, journal: Journal, config: Mapping[str, Any]):
        from tensorboard.compat.proto import event_pb2, summary_pb2  # pyright: ignore[reportMissingImports]
        from tensorboard.summary.writer.event_file_writer import EventFileWriter  # pyright: ignore[reportMissingImports]

        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        self._folder: Path = journal.run.tensorboard
        self._writer = EventFileWriter(str(self._folder))

    def log(self, stage: str, step: int, figures: Mapping[str, float]) -> None:
        told = [self._summary.Value(tag=f"{stage}/{name}", simple_value=value) for name, value in figures.items()]
        self._writer.add_event(self._event(wall_time=time.time(), step=step, summary=self._summary(value=told)))

    def close(self) -> None:
        self._writer.close()


class Session:
    """wandb, or trackio, which is called alike. A resumed run goes on in the same session."""

    def __init__(self, journal: Journal, config: Mapping[str, Any]):
        name = str(config["tracker"])
        module = importlib.import_module(name)
        options: dict[str, Any] = {"project": PROJECT, "name": journal.run.name, "config": dict(config), "resume": "allow"}
        if name == "wandb":
            if os.environ.get("HF_HUB_OFFLINE") == "1":
                os.environ.setdefault("WANDB_MODE", "offline")
            options |= {"id": journal.run.name, "dir": str(journal.run.path)}
        self._run = module.init(**options)
        self._known: set[str] = set()

    def log(self, stage: str, step: int, figures: Mapping[str, float]) -> None:
        if stage not in self._known:
            self._known.add(stage)
            if define := getattr(self._run, "define_metric", None):  # a stage's figures over its own steps
                define(f"{stage}/*", step_metric=f"{stage}/step")
        self._run.log({f"{stage}/step": step, **{f"{stage}/{name}": value for name, value in figures.items()}})

    def close(self) -> None:
        self._run.finish()
