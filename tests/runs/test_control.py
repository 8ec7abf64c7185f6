"""Runs as processes: signals, the lock of a GPU, detached runs, and the commands that look after them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lite import tasks, verbs
from lite.errors import LockError, RecipeError, Stopped
from lite.runs import control, locks, process, read
from lite.runs.journal import Journal
from lite.runs.signals import Switch

ROOT = Path(__file__).parent.parent.parent
SHORT = "{task: helpful, stages: [prompts: {train: 6, dev: 2, test: 3}]}"

CHILD = """
import dataclasses, pathlib, sys, time
sys.path[:0] = [{tests!r}, {root!r}]
from conftest import FakeRuns
from lite.errors import Stopped
from lite.runs.signals import Switch
from lite import engine
fakes, deaf = FakeRuns(pathlib.Path(sys.argv[1])), sys.argv[2] == "deaf"
original = fakes.stages.stage_function
def slow(kind):
    def stage(*words, bench, **named):
        if kind == "reward":
            print("ready", flush=True)
            for _ in range(600):
                time.sleep(0.05)
                if bench.stop_asked() and not deaf:
                    (bench.ckpt / "kept").write_text("state")
                    raise Stopped
        return original(kind)(*words, bench=bench, **named)
    return stage
fakes.stages.stage_function = slow
with Switch(lambda text: print(text, file=sys.stderr, flush=True)) as switch:
    parts = fakes.stages.tools()
    tools = dataclasses.replace(parts, stage_function=slow, stop_asked=switch.asked)
    fakes.stages.tools = lambda: tools
    outcome = fakes.go()
sys.exit(outcome.exit_code)
"""


@pytest.fixture
def child(tmp_path):
    """A run in a process of its own that waits in its reward stage, ``deaf`` or looking at the switch."""
    started = []

    def start(how: str = "listening") -> tuple[subprocess.Popen[str], read.Run]:
        code = CHILD.format(tests=str(ROOT / "tests"), root=str(ROOT))
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), how], stdout=pipe, stderr=pipe, text=True, start_new_session=True
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        run = read.latest(tmp_path)
        assert run is not None
        return process, run

    yield start
    for each in started:
        each.kill()
        each.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_signal_stops_after_the_step_with_75(child, number):
    process, run = child()
    process.send_signal(number)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 75
    after = read.open_run(run.folder.path)
    assert (after.state, after.facts["exit_code"]) == ("stopped", 75)
    assert (after.stages()[2].folder.ckpt / "kept").is_file()
    assert "stopping after this step" in said


@pytest.mark.parametrize("more", [1, 5])
def test_a_second_ctrl_c_ends_at_once_with_130_and_later_ones_change_nothing(child, more):
    process, run = child("deaf")
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline().startswith("stopping")
    began = time.monotonic()
    for _ in range(more):
        process.send_signal(signal.SIGINT)
        time.sleep(0.005)
    process.communicate(timeout=10)
    assert process.returncode == 130
    assert time.monotonic() - began < 2.5  # one second, and the machine may be busy
    assert read.open_run(run.folder.path).state == "stopped"


def test_stop_waits_for_the_step(child):
    started, run = child()
    assert control.stop(read.open_run(run.folder.path), now=False) == "stopped"
    assert started.wait(5) == 75


def test_stop_now_ends_one_that_does_not_listen(child):
    started, run = child("deaf")
    assert control.stop(run, now=False, wait=0.3) == "running"
    assert control.stop(run, now=True) == "stopped"
    assert started.wait(5) == -signal.SIGKILL
    assert "lite run --resume" in read.open_run(run.folder.path).facts["error"]


def test_a_running_run_cannot_be_removed_and_a_stopped_one_can(child):
    started, run = child()
    with pytest.raises(LockError, match="stop it first"):
        control.remove(run)
    started.kill()
    started.wait()
    control.remove(run)
    assert not list(run.folder.path.parent.iterdir())


def test_a_process_is_known_by_more_than_its_number(monkeypatch):
    me = process.identity()
    assert process.lives(me)
    assert not process.lives(me | {"begun": "1"})  # the number was given to another process
    assert not process.lives(me | {"boot": "another"})
    assert not process.lives(me | {"host": "another"})
    assert not process.lives(me | {"pid": 2**22 + 1})
    assert not process.lives({})


def test_a_dead_process_that_nobody_waited_for_does_not_live():
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    told = process.identity(child.pid)
    deadline = time.monotonic() + 5
    while process.lives(told) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not process.lives(told)
    child.wait()


HOLDER = "import sys, time; from lite.runs import locks\nwith locks.held('gpu-0', queue=False, say=print) as tell:\n    tell('runs/first'); print('ready', flush=True); time.sleep(60)"


@pytest.fixture
def holder(tmp_path, monkeypatch):
    """Another process that holds the lock of gpu-0."""
    monkeypatch.setenv("LITE_LOCKS", str(tmp_path / "locks"))
    process = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_run_on_a_gpu_is_refused_with_the_holders_name_and_begins_once_it_was_killed(holder):
    def claim() -> None:
        with locks.held("gpu-0", queue=False, say=print):
            pass

    with pytest.raises(LockError, match="in use by runs/first"):
        claim()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    claim()


def test_a_queued_run_waits_its_turn_and_can_be_stopped(holder, monkeypatch):
    monkeypatch.setattr(locks, "POLL_SECONDS", 0.01)
    said: list[str] = []

    def wait(stop_asked) -> None:
        with locks.held("gpu-0", queue=True, say=said.append, stop_asked=stop_asked):
            said.append("mine")

    with pytest.raises(Stopped):
        wait(lambda: bool(said))
    assert said == ["waiting for runs/first, which uses gpu-0"]
    wait(lambda: holder.kill())  # type: ignore[func-returns-value]
    assert said[-1] == "mine"


def test_a_card_is_refused_before_anything_is_written(cli, holder, tmp_path):
    """A machine with a card, played by a program of nvidia-smi's name."""
    (tmp_path / "bin").mkdir()
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 24576\n")
    smi.chmod(0o755)
    recipe = tmp_path / "short.yaml"
    recipe.write_text(SHORT)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    done = cli("run", recipe, "--runs", tmp_path / "runs", PATH=path)
    assert done.returncode == 5
    assert "in use by runs/first" in done.stderr
    assert not (tmp_path / "runs").exists()
    assert cli("run", recipe, "base.device=cpu", "--runs", tmp_path / "runs", PATH=path).returncode == 0


def test_a_detached_run_outlives_its_starter_and_is_looked_after(cli, tmp_path):
    recipe = tmp_path / "short.yaml"
    recipe.write_text(SHORT)
    runs = tmp_path / "runs"
    done = cli("run", recipe, "prompts.train=7", "--detach", "--runs", runs)
    assert done.returncode == 0, done.stderr
    run = read.open_run(Path(done.stdout.strip()))
    deadline = time.monotonic() + 20
    while read.open_run(run.folder.path).facts.get("state") in ("queued", "running") and time.monotonic() < deadline:
        time.sleep(0.05)
    after = read.open_run(run.folder.path)
    assert after.facts["state"] == "done", after.folder.console.read_text()
    assert after.facts["overrides"] == ["prompts.train=7"]
    assert after.facts["pid"] != os.getpid()
    assert json.loads(cli("ps", "--json", "--runs", runs).stdout) == {"runs": []}
    assert cli("ps", "-a", "--runs", runs).stdout.splitlines()[1].split()[2] == "done"
    assert cli("logs", "-f", "-n", "0", "--runs", runs).stdout == ""
    assert "is not running (done)" in cli("stop", "--runs", runs).stderr
    assert "--yes deletes" in cli("rm", after.name, "--runs", runs).stderr
    assert after.folder.path.is_dir()
    assert cli("rm", after.name, "--yes", "--runs", runs).returncode == 0
    assert not list(runs.iterdir())


def test_logs_follow_until_the_run_ends(child, cli):
    started, run = child()
    run.folder.log.unlink(missing_ok=True)  # as right after --detach
    follow = subprocess.Popen(
        [sys.executable, "-m", "lite.cli", "logs", "-f", run.name, "--runs", str(run.folder.path.parent)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    time.sleep(2)
    journal = Journal(run.folder, run.facts)
    journal.log("a line while it goes")
    time.sleep(0.5)
    started.terminate()
    started.wait()
    out, _ = follow.communicate(timeout=10)
    assert "a line while it goes" in out
    assert "stopped; go on with" in out


def test_gc_frees_what_no_run_needs_and_keeps_what_one_goes_on_from(fakes, cli):
    fakes.stages.fail["ppo"] = KeyboardInterrupt()
    run = fakes.go().run
    stages = {s.id: s.folder for s in run.stages()}
    (stages["ppo"].ckpt / "checkpoint-3").mkdir()
    (stages["ppo"].ckpt / "checkpoint-3" / "weights").write_text("x" * 1000)
    (stages["ppo"].ckpt / "checkpoint-6.tmp").mkdir()
    (stages["reward"].path / "ckpt").mkdir()
    words = ("gc", "--runs", fakes.folder)
    assert "--yes frees it" in cli(*words).stderr
    assert (stages["ppo"].ckpt / "checkpoint-6.tmp").is_dir()
    assert cli(*words, "--yes").returncode == 0
    assert not (stages["ppo"].ckpt / "checkpoint-6.tmp").exists()
    assert not (stages["reward"].path / "ckpt").exists()
    assert (stages["ppo"].ckpt / "checkpoint-3").is_dir()
    found = json.loads(cli(*words, "--checkpoints", "--yes", "--json").stdout)
    assert found["bytes"] == 1000
    assert not stages["ppo"].ckpt.exists()


def test_gc_leaves_4_bit_copies_unless_they_are_named(cli, tmp_path):
    copy = tmp_path / "cache" / "4bit" / "0123"
    copy.mkdir(parents=True)
    (copy / "copy.json").write_text('{"base": "/models/llama"}')
    (copy / "model.safetensors").write_text("x" * 2000)
    words, where = ("gc", "--yes", "--runs", tmp_path / "runs"), {"LITE_CACHE": str(tmp_path / "cache")}
    assert "--copies has them too" in cli(*words, **where).stderr
    assert copy.is_dir()
    assert "4-bit copy of /models/llama" in cli(*words, "--copies", **where).stdout
    assert not copy.exists()


def test_cp_brings_a_recipe_and_overwrites_none(cli, tmp_path):
    done = cli("cp", "tiny_rlcd_helpful", cwd=tmp_path)
    assert (tmp_path / "tiny_rlcd_helpful.yaml").is_file(), done.stderr
    again = cli("cp", "tiny_rlcd_helpful", tmp_path)
    assert again.returncode == 2
    assert "already" in again.stderr


def test_cp_brings_a_task_too(cli, tmp_path, monkeypatch):
    for name in ("helpful", "tasks/helpful"):
        target = tmp_path / f"{name.replace('/', '-')}.yaml"
        done = cli("cp", name, target)
        assert (done.returncode, done.stdout.strip()) == (0, str(target)), done.stderr
        assert tasks.load(str(target)) == tasks.load("helpful")
    unknown = cli("cp", "nonesuch", tmp_path)
    assert unknown.returncode == 2
    assert unknown.stderr.count("tiny_rlcd_helpful") == 1 and "tasks: harmless, helpful, outline" in unknown.stderr
    assert "did you mean 'outline'?" in cli("cp", "outlin", tmp_path).stderr
    monkeypatch.setattr(verbs.recipe, "built_in", lambda: {"helpful": tmp_path / "a recipe"})
    with pytest.raises(RecipeError, match="recipes/helpful or tasks/helpful"):
        verbs._copied("helpful")
    assert verbs._copied("recipes/helpful") == tmp_path / "a recipe"


@pytest.mark.parametrize(
    ("words", "ran", "code"),
    [
        (("--until", "contrast"), None, 0),
        (("--only", "reward"), None, 2),
        (("--from", "ppo", "--until", "reward"), None, 2),
        (("--until", "rewrd"), None, 2),
    ],
)
def test_parts_of_a_plan(cli, tmp_path, words, ran, code):
    done = cli("run", "tiny_rlcd_helpful", *words, "--dry-run", "--runs", tmp_path)
    assert done.returncode == code, done.stderr
    if code == 0:
        assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == ["prompts", "contrast"]
    else:
        assert any(text in done.stderr for text in ("leaves it out", "lies behind", "did you mean 'reward'?"))


def test_a_run_that_ends_early_as_asked_goes_on_later(fakes):
    first = fakes.go(until="reward")
    assert (first.state, first.exit_code, fakes.stages.ran) == ("stopped", 0, ["prompts", "contrast", "reward"])
    assert fakes.go(resume=first.run).state == "done"
    assert fakes.stages.ran[3:] == ["ppo", "evaluate"]


def test_a_switch_gives_the_signals_back():
    before = signal.getsignal(signal.SIGINT)
    with Switch(print) as switch:
        assert not switch.asked()
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before
