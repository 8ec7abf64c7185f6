"""Start, stop and resume runs: each is a process of its own in a session of its own, which outlives the page.

What a browser sent reaches a run through a YAML file, never through a shell and never as an option.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile

from lite.errors import LockError, RecipeError, StageError
from lite.recipe import loads
from lite.runs import read
from lite.runs.journal import clean
from lite.runs.layout import RUN_NAME
from lite.runs.read import Run

SECONDS_TO_BEGIN = 30.0
SECONDS_TO_STOP = 30.0
STARTING = ".starting"


def start(
    runs: Path, text: str, overrides: Sequence[str] = (), *, name: str = "recipe", label: str | None = None, from_run: str | None = None
) -> Run:  # fmt: skip
    """Run a recipe's text in the background; returns when its folder is there.

    Raises :class:`RecipeError` for a recipe or a name that cannot be run, and the run's own words as :class:`StageError` if it
    refuses to begin.
    """
    for word in filter(None, (name, label, from_run)):
        if not RUN_NAME.fullmatch(word):
            raise RecipeError("name", [f"letters, digits, '.', '-' and '_' are needed, 80 at most, a letter or digit first (got {word!r})"])
    loads(text, overrides, name=name)
    folder = runs / STARTING / os.urandom(6).hex()
    folder.mkdir(parents=True)
    file = folder / f"{name}.yaml"
    file.write_text(text, encoding="utf-8")
    words = ["run", str(file.resolve()), *overrides, "--runs", str(runs.resolve()), "--quiet"]
    try:
        return _spawn([*words, *(["--name", label] if label else []), *(["--from-run", from_run] if from_run else [])], runs)
    finally:
        file.unlink(missing_ok=True)
        folder.rmdir()


def resume(run: Run) -> Run:
    """Go on with a run that has stopped, failed or was interrupted."""
    if run.alive:
        raise LockError(f"{run.name} is running already")
    return _spawn(
        ["run", "--resume", str(run.folder.path.resolve()), "--runs", str(run.folder.path.parent.resolve()), "--quiet"],
        run.folder.path.parent,
    )


def stop(run: Run, *, now: bool = False) -> None:
    """Ask a run to stop after what it is doing (it can be resumed), or end it and its children at once."""
    pid = run.facts.get("pid")
    if not run.alive or not isinstance(pid, int) or pid <= 1:
        return
    try:
        if now:
            group = os.getpgid(pid)
            os.killpg(group, signal.SIGKILL) if group == pid else os.kill(pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        pass  # it ended by itself in between


def _spawn(words: list[str], runs: Path) -> Run:
    """``lite <words>`` in a session of its own; the run that it makes or goes on with."""
    before = {run.name: run.facts.get("pid") for run in read.all_runs(runs)}
    with TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "lite.cli", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            start_new_session=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        threading.Thread(target=process.wait, daemon=True).start()  # so that an ended run leaves no zombie
        until = time.monotonic() + SECONDS_TO_BEGIN
        while time.monotonic() < until:
            found = next((r for r in read.all_runs(runs) if r.facts.get("pid") == process.pid and before.get(r.name) != process.pid), None)
            if found:
                return found
            if process.poll() is not None:
                break
            time.sleep(0.1)
        else:
            process.kill()
        said.seek(0)
        words_of_it = clean(said.read().decode("utf-8", errors="replace")).strip()
    raise StageError(re.sub(r"^lite: ", "", words_of_it) or "the run did not begin, and said nothing")
