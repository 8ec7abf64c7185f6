"""Start, stop and remove runs from outside. A run is a process of its own that outlives its terminal; the truth is on the disk."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lite.errors import LiteError, LockError, PreconditionError
from lite.runs import process, publish
from lite.runs.journal import Journal
from lite.runs.read import Run, open_run

STOP_SECONDS = 30.0
"""So long `stop` waits for the step to be finished."""
DELETED = ".deleted-"


def start(
    journal: Journal, text: str, *, words: Sequence[str], environment: Mapping[str, str] | None = None, **facts: Any
) -> subprocess.Popen[bytes]:
    """Run ``lite run --resume`` on a new run's folder, in a session of its own, its output in console.txt."""
    run = journal.run
    publish.write_text(run.recipe, text)
    with journal.held():  # the new process waits for this: run.json has one writer
        journal.update(state="queued", **facts)
        command = [sys.executable, "-m", "lite.cli", "run", "--resume", str(run.path.resolve()), "--quiet", *words]
        with run.console.open("ab") as out:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, env={**os.environ, **(environment or {})}
            )
        journal.update(**process.identity(child.pid))
    return child


def stop(run: Run, *, now: bool, wait: float = STOP_SECONDS) -> str:
    """Ask a run to stop where nothing is lost and wait for it, or end its whole process group ``now``; the state it is in then."""
    if not run.alive:
        return run.state
    if not process.lives(run.facts):
        where = run.facts.get("host")
        raise LiteError(f"{run.name} runs on {where}, process {run.facts.get('pid')}, which cannot be reached from here; stop it there")
    pid = int(run.facts["pid"])
    if now:
        os.killpg(pid, signal.SIGKILL) if os.getpgid(pid) == pid else os.kill(pid, signal.SIGKILL)
    else:
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + wait
    while process.lives(run.facts) and time.monotonic() < deadline:
        time.sleep(0.05)
    after = open_run(run.folder.path)
    if now and not after.alive:
        with Journal(after.folder, after.facts).held() as _:
            journal = Journal(after.folder, after.facts)
            journal.update(state="stopped", exit_code=-signal.SIGKILL, error=f"killed; go on with: lite run --resume {run.folder.path}")
            journal.event("run killed")
        after = open_run(run.folder.path)
    return after.state


def remove(run: Run) -> None:
    """Delete a run's folder: renamed first, so that a half-deleted one is never taken for a run."""
    if run.alive:
        raise LockError(f"{run.name} is running; stop it first (`lite stop {run.name}`)")
    doomed = run.folder.path.with_name(DELETED + run.name)
    run.folder.path.rename(doomed)
    shutil.rmtree(doomed)


class Waste(NamedTuple):
    path: Path
    why: str


def waste(runs: Path, found: Sequence[Run], *, checkpoints: bool, replaced: bool) -> Iterator[Waste]:
    """What can be deleted without loss of a result; with ``checkpoints`` also what unfinished runs would go on from, with ``replaced``
    results in whose place a changed recipe put others."""
    for path in sorted(runs.glob(f"{DELETED}*")):
        yield Waste(path, "half-deleted run")
    for run in found:
        if run.alive:
            continue
        for scratch in sorted(
            [*run.folder.path.glob(".*.tmp"), *run.folder.path.glob("stages/*/*.tmp"), *run.folder.path.glob("stages/*/ckpt/*.tmp")]
        ):
            yield Waste(scratch, "half-written by a process that is no more")
        for stage in run.stages():
            if stage.folder.ckpt.is_dir() and (stage.done or checkpoints):
                yield Waste(stage.folder.ckpt, "checkpoints of a finished stage" if stage.done else "checkpoints of an unfinished stage")
        for earlier in sorted(run.folder.replaced.glob("*")) if replaced else ():
            yield Waste(earlier, "results that a changed recipe replaced")


def size(path: Path) -> int:
    """Bytes on disk; a file that other runs share by hard links is counted as theirs."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(stat.st_size for file in files if (stat := file.stat()).st_nlink == 1)


def delete(path: Path) -> None:
    try:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    except OSError as e:
        raise PreconditionError(f"{path}: cannot be deleted ({e.strerror})") from e
