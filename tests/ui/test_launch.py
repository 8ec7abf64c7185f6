"""Runs as processes of their own: started, refused, stopped, resumed (S7, R6, R8, R9)."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from lite.errors import LockError, RecipeError, StageError
from lite.runs import control
from lite.runs.process import identity
from lite.runs.read import open_run
from lite.ui import launch, site, views, watch
from lite.ui.pages import run as page

PROMPTS_ONLY = "base: {model: tiny}\ntask: helpful\nstages:\n  - prompts: {train: 4, dev: 1, test: 2}\n"
HOLDER = """
import fcntl, os, signal, subprocess, sys, time
if sys.argv[2:] == ["wedged"]:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as one that hangs in a kernel; its child inherits it
lock = open(sys.argv[1], "a")
fcntl.flock(lock, fcntl.LOCK_EX)
child = subprocess.Popen(["sleep", "60"])
print(child.pid, flush=True)
try:
    time.sleep(60)
except KeyboardInterrupt:
    child.kill()
"""


def ended(run, seconds: float = 30):
    until = time.monotonic() + seconds
    while (found := open_run(run.folder.path)).state in watch.LIVE and time.monotonic() < until:
        time.sleep(0.05)
    return found


def gone(pid: int, seconds: float = 5) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        with open(f"/proc/{pid}/stat") as f:
            if f.read().rsplit(") ", 1)[1].startswith("Z"):
                return True
        time.sleep(0.05)
    return False


PAGE = """
import sys, time
from pathlib import Path
from lite.ui import launch
print(launch.start(Path(sys.argv[1]), sys.argv[2]).name, flush=True)
time.sleep(60)
"""


@contextlib.contextmanager
def holding(fakes, *how: str):
    """A run whose lock a process in a session of its own holds, with a child beside it."""
    run = fakes.go().run
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(run.folder.lock), *how], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout
    child = int(process.stdout.readline())
    run.folder.run.write_text(json.dumps({**run.facts, "state": "running", **identity(process.pid)}), encoding="utf-8")
    yield open_run(run.folder.path), process, child
    for pid in (process.pid, child):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()


@pytest.fixture
def held(fakes):
    with holding(fakes) as found:
        yield found


def test_a_run_goes_on_when_its_page_and_the_pages_terminal_are_killed(tmp_path):
    """R6. The page's whole process group is killed, as when a terminal is closed."""
    page = subprocess.Popen(
        [sys.executable, "-c", PAGE, str(tmp_path / "runs"), PROMPTS_ONLY], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert page.stdout
    name = page.stdout.readline().strip()
    os.killpg(page.pid, signal.SIGKILL)
    page.communicate()
    assert ended(open_run(tmp_path / "runs" / name)).state == "done"


def test_a_run_that_was_killed_is_told_as_interrupted_with_its_last_lines(held):
    """R9: at the next look, which is 1.5 s away at most; it can be gone on with."""
    run, process, _ = held
    run.folder.log.write_text("".join(f"line {i}\n" for i in range(1, 100)), encoding="utf-8")
    assert watch.row(open_run(run.folder.path)).state == "running"
    process.kill()
    process.wait()
    assert site.TICK_SECONDS <= 5
    row = watch.row(open_run(run.folder.path))
    assert row.state == "interrupted" and not row.live and row.state in views.RESUMABLE
    assert "Resume goes on" in views.head(row, run.facts)
    assert watch.tail(run.folder.log, page.LOG_LINES).splitlines()[-40:] == [f"line {i}" for i in range(60, 100)] and page.LOG_LINES >= 40


def test_a_wedged_run_is_left_by_stop_and_ended_by_stop_now_with_all_that_it_started(fakes):
    """R8."""
    with holding(fakes, "wedged") as (run, process, child):
        launch.stop(run)
        time.sleep(0.3)
        assert process.poll() is None and open_run(run.folder.path).state == "running"
        launch.stop(run, now=True)
        assert process.wait(5) == -signal.SIGKILL and gone(child)
        assert open_run(run.folder.path).state == "stopped"


def test_a_run_is_started_in_a_session_of_its_own_and_its_words_are_values(tmp_path):
    runs = tmp_path / "runs"
    run = launch.start(runs, PROMPTS_ONLY, ["seed=5"], name="small", label="mine")
    found = ended(run)
    assert (found.state, found.recipe, found.facts["name"], found.facts["overrides"]) == ("done", "small", "mine", ["seed=5"])
    assert found.facts["pid"] != os.getpid()


def test_a_sweep_is_a_run_for_each_of_its_combinations(tmp_path, monkeypatch):
    monkeypatch.delenv(launch.THREADS, raising=False)
    monkeypatch.setattr(launch, "cores", lambda: 2)
    given = []
    started = control.start

    def noted(*words, environment=None, **facts):
        given.append(environment)
        return started(*words, environment=environment, **facts)

    monkeypatch.setattr(control, "start", noted)
    runs = launch.start_all(tmp_path / "runs", PROMPTS_ONLY, [["seed=5"], ["seed=6"]], name="small", label="mine")
    found = [ended(run) for run in runs]
    assert [(run.state, run.facts["overrides"], run.facts["name"]) for run in found] == [("done", [f"seed={n}"], "mine") for n in (5, 6)]
    assert given == [{launch.THREADS: "1"}] * 2 and len({run.facts["pid"] for run in found}) == 2


def test_a_sweep_with_a_mistake_starts_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("a process was started"))
    with pytest.raises(RecipeError):
        launch.start_all(tmp_path / "runs", PROMPTS_ONLY, [["seed=5"], ["sed=6"]])


@pytest.mark.parametrize(
    "word", ["; touch canary", "$(touch canary)", "`touch canary`", "--help", "-x", "a\nb", "../x", "a b", "&& touch canary"]
)
@pytest.mark.parametrize("field", ["name", "label", "from_run"])
def test_no_field_becomes_a_command_or_an_option(tmp_path, monkeypatch, word, field):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("a process was started"))
    with pytest.raises(RecipeError):
        launch.start(tmp_path / "runs", PROMPTS_ONLY, **{field: word})
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("override", ["; touch canary", "--help", "--runs=/x", "prompts.train=$(touch canary)", "nothing"])
def test_overrides_are_checked_before_anything_is_started(tmp_path, monkeypatch, override):
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("a process was started"))
    with pytest.raises(RecipeError):
        launch.start(tmp_path / "runs", PROMPTS_ONLY, [override])


def refusing(popen):
    def start(command, **given):
        return popen([sys.executable, "-c", "import sys; print('lite: no room here', file=sys.stderr); sys.exit(3)"], **given)

    return start


def test_what_a_run_says_when_it_refuses_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(control.subprocess, "Popen", refusing(subprocess.Popen))
    with pytest.raises(StageError, match="no room here") as e:
        launch.start(tmp_path / "runs", PROMPTS_ONLY)
    assert "Traceback" not in str(e.value)


def test_stop_asks_and_stop_now_ends_the_whole_session(held):
    run, process, child = held
    assert run.state == "running"
    with pytest.raises(LockError):
        launch.resume(run)
    launch.stop(run, now=True)
    assert process.wait(5) == -signal.SIGKILL and gone(child)
    assert open_run(run.folder.path).state == "stopped"


def test_stop_sends_the_signal_that_can_be_resumed_from(held):
    run, process, _ = held
    launch.stop(run)
    assert process.wait(5) == -signal.SIGTERM


def test_a_process_that_is_not_the_run_any_more_is_left_alone(fakes):
    """The pid may be another program's by now: without the lock nobody is signalled."""
    run = fakes.go().run
    bystander = subprocess.Popen(["sleep", "30"])
    run.folder.run.write_text(json.dumps({**run.facts, "state": "running", "pid": bystander.pid}), encoding="utf-8")
    launch.stop(open_run(run.folder.path), now=True)
    time.sleep(0.1)
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()
