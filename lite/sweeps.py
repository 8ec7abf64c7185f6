"""Sweeps: a recipe that asks for several runs, one after the other or side by side, and the table over all of them."""

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from lite import launch
from lite.errors import LiteError, RecipeError
from lite.launch import Ready, detached
from lite.runs import control, read
from lite.runs.env import cores
from lite.runs.layout import table_file
from lite.runs.publish import dumps, write_json, write_text
from lite.runs.signals import INTERRUPTED, STOPPED, Switch
from lite.terminal import say
from lite.yamltext import hint

THREADS = "OMP_NUM_THREADS"
LOOK_SECONDS = 0.5


def _name(it: Ready) -> str:
    return " ".join(it.overrides)


def earlier(runs: Path, recipe: str, overrides: Sequence[str]) -> str | None:
    """The folder of the newest run of one combination, to go on with."""
    known = [run for run in read.all_runs(runs) if run.recipe == recipe and run.facts.get("overrides") == list(overrides)]
    return str(known[-1].folder.path) if known else None


def jobs_here(first: Ready) -> int:
    """How many runs at a time: a GPU serves one; on a CPU two runs with a core each end sooner than one after the other with both."""
    return 1 if first.wants_gpu else cores()


def refuse_what_cannot_fit(wanted: Sequence[Ready]) -> None:
    """Refuse a sweep before any of its runs begins, if one of them cannot be run here; what all of them write is added up."""
    from lite.fit.preflight import refuse_disk_of
    from lite.fit.together import Asked, named

    for it in wanted:
        with named(_name(it)):
            launch.refuse_what_cannot_fit(it)
    asked = [Asked(_name(it), it.loaded, [s.node for s in it.statuses], launch.to_run(it.statuses)) for it in wanted]
    refuse_disk_of(asked, runs=wanted[0].wish.runs)


def in_turn(run: Callable[[Ready], int], wanted: Sequence[Ready]) -> int:
    """One run after the other in this process; the exit code of the first that does not end well."""
    for number, it in enumerate(wanted, 1):
        say(f"run {number} of {len(wanted)}: {_name(it)}")
        with redirect_stdout(sys.stderr):
            code = run(it)
        if code:
            return code
    return 0


@dataclass
class _Going:
    name: str
    run: read.Run
    child: subprocess.Popen[bytes]
    said: str = ""

    def tell(self) -> None:
        """Say where the run is, whenever that is another stage."""
        facts = read.open_run(self.run.folder.path).facts
        now = f"stage {facts['number']} of {facts['stages']}: {facts['stage']}" if facts.get("stage") else ""
        if now != self.said:
            self.said = now
            say(f"{self.name}  {now}")


def side_by_side(wanted: Sequence[Ready], *, jobs: int, quiet: bool = False) -> int:
    """``jobs`` runs at a time, each in a process of its own with its share of the cores; the first exit code that is not 0.

    After a run that did not end well no other one begins. A signal stops them all where nothing is lost; a second Ctrl-C ends them.
    """
    environment = {} if os.environ.get(THREADS) else {THREADS: str(max(1, cores() // jobs))}
    waiting, going, ended, stopping = deque(wanted), list[_Going](), list[int](), False
    try:
        with Switch(say) as switch:
            while going or (waiting and not any(ended) and not switch.asked()):
                while waiting and len(going) < jobs and not any(ended) and not switch.asked():
                    it = waiting.popleft()
                    going.append(_Going(_name(it), *detached(it, environment)))
                    say(f"run {len(wanted) - len(waiting)} of {len(wanted)}: {going[-1].name}  {going[-1].run.folder.path}")
                if switch.asked() and not stopping:
                    stopping = True
                    _stop(going, now=False)
                time.sleep(LOOK_SECONDS)
                for one in list(going):
                    if not quiet:
                        one.tell()
                    if one.child.poll() is not None:
                        going.remove(one)
                        ended.append(_ended(one))
    except KeyboardInterrupt:
        _stop(going, now=True)
        return INTERRUPTED
    except LiteError:  # the next one could not begin: what goes on is not left without anybody who waits for it
        _stop(going, now=False)
        raise
    return next(filter(None, ended), STOPPED if stopping and waiting else 0)


def _stop(going: Sequence[_Going], *, now: bool) -> None:
    for one in going:
        control.stop(read.open_run(one.run.folder.path), now=now, wait=control.STOP_SECONDS if now else 0.0)


def _ended(one: _Going) -> int:
    run = read.open_run(one.run.folder.path)
    why = f": {run.facts['error']}" if run.facts.get("error") else ""
    say(f"{one.name}  {run.state}{why}")
    code = one.child.returncode
    return code if code >= 0 else 1  # ended by a signal from outside


def print_table(name: str, runs: Path, as_json: bool, only: Sequence[str] = ()) -> None:
    """The table over the finished runs of a recipe, or ``only`` over some of them; kept beside the runs too."""
    from lite.evaluate import table
    from lite.evaluate.sections import sections

    found = sections(_chosen(name, runs, only))
    if not found:
        raise RecipeError(str(runs), [f"the finished runs of {name} have no evaluation, which a table is made of"])
    tasks = [section.task for section in found.values()]
    for task in (task for task in dict.fromkeys(tasks) if tasks.count(task) > 1):
        say(
            f"{task}: the runs differ in more than their seed, so there are {tasks.count(task)} tables, none over all; --run takes only some:"
        )
        for section in (section for section in found.values() if section.task == task):
            say(f"  {', '.join(section.knobs)}: {', '.join(run.name for run in section.runs.values())}")
    summary = table.of_sections(found)
    page = table.markdown(summary, name)
    files = {ending: table_file(runs, name, ending) for ending in ("md", "json")}
    write_json(files["json"], summary)
    write_text(files["md"], page)
    print(dumps(summary) if as_json else page.rstrip())
    say(f"written: {files['md']} and {files['json']}")


def _chosen(name: str, runs: Path, only: Sequence[str]) -> list[read.Run]:
    """The finished runs of a recipe, oldest first; of those that are named, all must be such."""
    known = read.all_runs(runs)
    finished = [run for run in known if run.recipe == name and run.state == "done"]
    if not finished:
        raise RecipeError(str(runs), [f"no finished run of {name} here{hint(name, sorted({run.recipe for run in known}))}"])
    named = {run.name: run for run in (read.find(runs, text, name) for text in only)}
    wrong = {run.name: f"a run of {run.recipe}" if run.recipe != name else run.state for run in named.values()}
    problems = [f"{run} is no finished run of {name} ({why})" for run, why in wrong.items() if why != "done"]
    if problems:
        raise RecipeError("--run", problems)
    return [run for run in finished if not only or run.name in named]
