"""Start, stop and resume runs from the page: each is a process of its own in a session of its own, which outlives the page.

What a browser sent reaches a run through its files, never through a shell and never as an option.
"""

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from lite.errors import LockError, RecipeError, StageError
from lite.fit.cards import this_card
from lite.recipe import Recipe, loads
from lite.runs import control, locks
from lite.runs.env import cores
from lite.runs.journal import Journal, clean
from lite.runs.layout import RUN_NAME
from lite.runs.read import Run, open_run
from lite.ui.places import open_run as run_of_name
from lite.ui.watch import tail

SECONDS_TO_BEGIN = 20.0
LINES_OF_REFUSAL = 12
THREADS = "OMP_NUM_THREADS"


def start(
    runs: Path, text: str, overrides: Sequence[str] = (), *, name: str = "recipe", label: str | None = None, from_run: str | None = None
) -> Run:  # fmt: skip
    """Run a recipe's text in the background; returns when it has begun.

    Raises :class:`RecipeError` for a recipe or a name that cannot be run, :class:`LockError` while another run has the card, and
    the run's own words as :class:`StageError` if it refuses to begin.
    """
    _check_names(name, label)
    source = run_of_name(runs, from_run) if from_run else None
    if from_run and source is None:
        raise RecipeError("from_run", [f"no such run ({from_run!r})"])
    loaded = loads(text, overrides, name=name)
    _need_the_card(loaded)
    words = ["--from-run", str(source.folder.path.resolve())] if source else []
    return _begun(*_process(runs, text, loaded, overrides, label, words))


def start_all(runs: Path, text: str, wanted: Sequence[Sequence[str]], *, name: str = "recipe", label: str | None = None) -> list[Run]:
    """A run for each of these overrides; returns when the first has begun. Raises as :func:`start` does.

    Those on a graphics card wait for one another; on a CPU all go on at once, each with its share of the cores.
    """
    _check_names(name, label)
    recipes = [loads(text, overrides, name=name) for overrides in wanted]
    for loaded in recipes:
        _need_the_card(loaded)
    share = {} if os.environ.get(THREADS) else {THREADS: str(max(1, cores() // len(recipes)))}
    started = [
        _process(runs, text, loaded, overrides, label, ["--queue"], {} if _wants_the_card(loaded) else share)
        for loaded, overrides in zip(recipes, wanted, strict=True)
    ]
    first = _begun(*started[0])
    for _, child in started[1:]:
        _reap(child)
    return [first, *(open_run(journal.run.path) for journal, _ in started[1:])]


def _check_names(name: str, label: str | None) -> None:
    for word in filter(None, (name, label)):
        if not RUN_NAME.fullmatch(word):
            raise RecipeError("name", [f"letters, digits, '.', '-' and '_' are needed, 80 at most, a letter or digit first (got {word!r})"])


def _process(
    runs: Path, text: str, loaded: Recipe, overrides: Sequence[str], label: str | None, words: Sequence[str],
    environment: Mapping[str, str] | None = None,
) -> tuple[Journal, subprocess.Popen[bytes]]:  # fmt: skip
    journal = Journal.create(runs, label or loaded.name)
    facts = {"recipe": loaded.name, "name": label, "overrides": list(overrides), "stages": len(loaded.stages)}
    return journal, control.start(journal, text, words=words, environment=environment, **facts)


def resume(run: Run) -> Run:
    """Go on with a run that has stopped, failed or was interrupted."""
    if run.alive:
        raise LockError(f"{run.name} is running already")
    text = run.folder.recipe.read_text(encoding="utf-8")
    _need_the_card(loads(text, [str(o) for o in run.facts.get("overrides") or ()], name=run.recipe or "recipe"))
    journal = Journal(run.folder, run.facts)
    return _begun(journal, control.start(journal, text, words=[]))


def stop(run: Run, *, now: bool = False) -> None:
    """Ask a run to stop where nothing is lost, or end it and its children at once. Returns without waiting for the first."""
    control.stop(run, now=now, wait=control.STOP_SECONDS if now else 0.0)


def _wants_the_card(loaded: Recipe) -> bool:
    return loaded.base.device != "cpu" and this_card() is not None


def _need_the_card(loaded: Recipe) -> None:
    if _wants_the_card(loaded):
        with locks.held(locks.gpu_name(), queue=False, say=lambda text: None):
            pass  # refused now rather than in the background


def _begun(journal: Journal, child: subprocess.Popen[bytes]) -> Run:
    """The run, as soon as its process has taken it up."""
    _reap(child)
    until = time.monotonic() + SECONDS_TO_BEGIN
    while time.monotonic() < until:
        run = open_run(journal.run.path)
        if run.facts.get("state") != "queued":
            return run
        if child.poll() is not None and open_run(journal.run.path).facts.get("state") == "queued":
            said = clean(tail(journal.run.console, LINES_OF_REFUSAL)).strip().removeprefix("lite: ")
            raise StageError(said or "the run did not begin, and said nothing")
        time.sleep(0.1)
    return open_run(journal.run.path)  # on a busy machine: the page shows it as queued


def _reap(child: subprocess.Popen[bytes]) -> None:
    """An ended run leaves no zombie."""
    threading.Thread(target=child.wait, daemon=True).start()
