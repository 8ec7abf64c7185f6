"""Sweeps: the runs of one recipe side by side give what they give in turn; failures and signals end them in good order."""

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from lite import launch, sweeps
from lite import recipe as recipes
from lite.errors import PreconditionError
from lite.fit import cards, preflight, together
from lite.runs import read
from lite.runs.layout import RunFolder
from tests.conftest import ROOT

TWO = """
base: {model: tiny}
sweep: {task: [helpful, harmless]}
stages:
  - prompts: {train: 8, dev: 2, test: 3}
  - evaluate: {against: [base], draws: 1, max_new_tokens: 8}
"""
LONG = TWO.replace("train: 8", "train: 600").replace("  - evaluate", "  - contrast\n  - evaluate")


def recipe(folder, text):
    path = folder / "two.yaml"
    path.write_text(text)
    return path


def test_runs_side_by_side_give_the_table_and_the_replies_of_runs_in_turn(cli, tmp_path):
    both = [cli("run", recipe(tmp_path, TWO), "--runs", tmp_path / f"jobs{n}", "--jobs", n) for n in (1, 2)]
    assert [done.returncode for done in both] == [0, 0], both[1].stderr
    tables = [done.stdout.partition("## Runs")[0] for done in both]
    assert tables[0] == tables[1]
    assert [done.stdout.count("-two-") for done in both] == [2, 2]  # the runs it is over
    assert "## helpful" in both[0].stdout and "## harmless" in both[0].stdout
    replies = [{p.read_bytes() for p in (tmp_path / f"jobs{n}").glob("*/stages/*-evaluate/out/replies.jsonl")} for n in (1, 2)]
    assert replies[0] == replies[1] and len(replies[0]) == 2
    pids = [{run.facts["pid"] for run in read.all_runs(tmp_path / f"jobs{n}")} for n in (1, 2)]
    assert [len(found) for found in pids] == [1, 2]


def test_a_combination_that_cannot_be_run_is_told_before_any_begins(cli, tmp_path):
    text = TWO.replace("[helpful, harmless]", "[helpful, nonesuch]")
    done = cli("run", recipe(tmp_path, text), "--runs", tmp_path / "runs", "--jobs", 2)
    assert done.returncode == 2 and "nonesuch" in done.stderr
    assert not (tmp_path / "runs").exists()


def ready(tmp_path, *overrides):
    path = recipes.find("rlcd_helpful")
    return [launch.ready(path, words, launch.Wish(tmp_path / "runs")) for words in recipes.combinations(path, overrides)]


@pytest.fixture
def every_base_can_be_had(monkeypatch):
    for refusal in ("refuse_offline", "refuse_unreachable"):
        monkeypatch.setattr(preflight.online, refusal, lambda *_, **__: None)


@pytest.mark.usefixtures("every_base_can_be_had")
def test_a_run_that_does_not_fit_is_named_before_any_begins(tmp_path, monkeypatch):
    monkeypatch.setattr(cards, "this_card", lambda: 8.0)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**15))
    with pytest.raises(PreconditionError, match=r"^contrast\.batch_rows=16: rlcd_helpful does not fit a card with 8 GiB"):
        sweeps.refuse_what_cannot_fit(ready(tmp_path, "sweep.contrast.batch_rows=[8,16]"))
    sweeps.refuse_what_cannot_fit(ready(tmp_path, "sweep.contrast.batch_rows=[8,4]"))
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("every_base_can_be_had")
def test_what_all_runs_of_a_sweep_write_is_added_up_and_a_base_is_fetched_once(tmp_path, monkeypatch):
    monkeypatch.setattr(cards, "this_card", lambda: 24.0)
    wanted = ready(tmp_path, "sweep.seed=[1,2]")
    asked = [together.Asked(str(i), it.loaded, [s.node for s in it.statuses], launch.to_run(it.statuses)) for i, it in enumerate(wanted)]
    runs, fetched = [fit.disk for fit in together.judge(asked, 24)], together.download(asked)
    assert runs[0] == runs[1] and fetched == together.download(asked[:1])
    free = {"free": int(1.2 * (sum(runs) + fetched)) - 1}  # more than enough for either
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: SimpleNamespace(**free))
    with pytest.raises(PreconditionError, match="rlcd_helpful with its 2 runs writes about"):
        sweeps.refuse_what_cannot_fit(wanted)
    free["free"] += 2
    sweeps.refuse_what_cannot_fit(wanted)


def test_a_stop_reaches_every_run_and_a_resume_goes_on_with_each(tmp_path):
    runs = tmp_path / "runs"
    words = [sys.executable, "-m", "lite.cli", "run", str(recipe(tmp_path, LONG)), "--runs", str(runs), "--jobs", "2"]
    child = subprocess.Popen(
        words, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until = time.monotonic() + 120
        while sum(bool(run.facts.get("stage") == "contrast" and run.facts.get("progress")) for run in read.all_runs(runs)) < 2:
            assert child.poll() is None and time.monotonic() < until
            time.sleep(0.1)
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) == 75
    finally:
        child.kill()
    found = read.all_runs(runs)
    assert [run.state for run in found] == ["stopped", "stopped"]
    resumed = {sweeps.earlier(runs, "two", run.facts["overrides"]) for run in found}
    assert resumed == {str(run.folder.path) for run in found}
    assert sweeps.earlier(runs, "two", ["task=outline"]) is None


@pytest.fixture
def children(monkeypatch, tmp_path):
    """`detached` replaced: a wanted run is the exit code of its process; the codes begun so far."""
    begun: list[int] = []

    def begin(it, environment):
        begun.append(it.code)
        child = subprocess.Popen([sys.executable, "-c", f"import sys; sys.exit({it.code})"])
        return read.Run(RunFolder(tmp_path / str(len(begun))), {}), child

    monkeypatch.setattr(sweeps, "detached", begin)
    monkeypatch.setattr(sweeps, "LOOK_SECONDS", 0.01)
    return begun


def wanted(*codes):
    return [SimpleNamespace(code=code, overrides=(f"seed={i}",)) for i, code in enumerate(codes)]


def test_after_a_run_that_failed_no_other_begins_and_its_code_is_the_sweeps(children):
    assert sweeps.side_by_side(wanted(4, 4, 0, 0), jobs=2) == 4
    assert children == [4, 4]


def test_all_runs_are_begun_where_all_end_well(children):
    assert sweeps.side_by_side(wanted(0, 0, 0), jobs=2) == 0
    assert children == [0, 0, 0]


def test_each_run_has_its_share_of_the_cores_unless_the_user_said_otherwise(monkeypatch, children):
    told = []
    begin = sweeps.detached
    monkeypatch.setattr(sweeps, "detached", lambda it, environment: told.append(environment) or begin(it, environment))
    monkeypatch.setattr(sweeps, "cores", lambda: 8)
    monkeypatch.delenv(sweeps.THREADS, raising=False)
    sweeps.side_by_side(wanted(0), jobs=2)
    monkeypatch.setenv(sweeps.THREADS, "3")
    sweeps.side_by_side(wanted(0), jobs=2)
    assert told == [{sweeps.THREADS: "4"}, {}]


def test_a_gpu_serves_one_run_at_a_time(monkeypatch):
    monkeypatch.setattr(sweeps, "cores", lambda: 8)
    assert [sweeps.jobs_here(SimpleNamespace(wants_gpu=gpu)) for gpu in (True, False)] == [1, 8]
