"""The page's view of a run: what run.json and the stages say, and what follows from it."""

import fcntl
import json
from datetime import UTC, datetime, timedelta

import pytest

from lite.errors import DivergedError
from lite.runs import publish
from lite.runs.read import open_run
from lite.ui import views, watch

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def at(seconds: float) -> str:
    return (NOW + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def running(run, **facts):
    """The run as if a process were at its ppo stage; the lock must be held meanwhile."""
    ppo = next(r for r in run.stages() if r.id == "ppo")
    publish.write_json(ppo.folder.stage, {**ppo.facts, "started": at(-100), "finished": None})
    (ppo.folder.out / "made.txt").unlink()
    ppo.folder.out.rmdir()
    publish.write_json(run.folder.run, {**run.facts, "state": "running", "stage": "ppo", "number": 4, "finished": None, **facts})
    return open_run(run.folder.path)


def test_a_finished_run_is_done_everywhere(done_run):
    row = watch.row(done_run)
    assert (row.state, row.recipe, row.base, row.live) == ("done", "small", "tiny", False)
    assert [s.state for s in watch.stages(done_run)] == ["done"] * 5
    assert row.seconds is not None and row.seconds >= 0


def test_the_newest_run_comes_first(fakes):
    names = [fakes.go().run.name, fakes.go("seed=2").run.name]
    assert {row.name for row in watch.rows(fakes.folder)} == set(names)
    assert [row.name for row in watch.rows(fakes.folder)] == sorted(names, reverse=True)


def test_time_to_go_follows_from_what_is_done(done_run):
    run = running(done_run, progress={"what": "w", "done": 20, "total": 80, "unit": "steps", "at": at(-10)})
    with run.folder.lock.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stages = watch.stages(run, NOW)
    assert [s.state for s in stages] == ["done", "done", "done", "running", "done"]
    ppo = stages[3]
    assert ppo.share == 0.25 and ppo.what == "20 of 80 steps"
    assert ppo.left == pytest.approx(90 * 60 / 20 - 10)  # 90 s for 20 steps, 60 to go, told 10 s ago


def test_progress_of_the_stage_before_is_not_this_ones(done_run):
    run = running(done_run, progress={"done": 5, "total": 5, "unit": "rows", "at": at(-500)})
    with run.folder.lock.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert watch.stages(run, NOW)[3].share is None


def test_a_dead_process_makes_an_interrupted_run(done_run):
    run = running(done_run)
    row = watch.row(run)
    assert row.state == "interrupted" and not row.live
    assert watch.stages(run)[3].state == "stopped"
    assert "Resume goes on" in views.head(row, run.facts)


def test_an_error_is_shown_without_a_traceback(fakes):
    fakes.stages.fail["ppo"] = DivergedError("KL <b>9</b> at step 3; lower ppo.lr")
    run = fakes.go().run
    shown = views.head(watch.row(run), run.facts)
    assert "lower ppo.lr" in shown and "<b>9" not in shown and "Traceback" not in shown


def test_a_tail_reads_the_end_only(tmp_path):
    log = tmp_path / "log.txt"
    with log.open("wb") as f:
        f.write(b"x" * 5_000_000 + b"\n")
        f.write("".join(f"line {i} \x1b[31mé\n" for i in range(1000)).encode())
    found = watch.tail(log, 3)
    assert found == "line 997 é\nline 998 é\nline 999 é"
    assert watch.tail(tmp_path / "none.txt", 3) == ""


def test_the_newest_samples_come_first_and_torn_lines_are_left_out(done_run):
    folder = watch.stage_folder(done_run, "ppo")
    assert folder
    folder.samples.write_text("".join(json.dumps({"n": i}) + "\n" for i in range(20)) + '{"n": 20, "tor', encoding="utf-8")
    assert [row["n"] for row in watch.samples(done_run, "ppo", 3)] == [19, 18]
    assert watch.samples(done_run, "nothing", 3) == []


def test_three_tabs_read_figures_once_and_all_see_the_new_ones(done_run, monkeypatch):
    """R7: what tabs cost does not grow with what a run has written."""
    reads, lines = [], watch.read.lines
    monkeypatch.setattr(watch.read, "lines", lambda file: reads.append(file) or lines(file))
    tabs = [watch.metrics(done_run, "ppo") for _ in range(3)]
    assert len(reads) == 1 and [len(t) for t in tabs] == [5] * 3
    folder = watch.stage_folder(done_run, "ppo")
    assert folder
    with folder.metrics.open("a") as f:
        f.write('{"step": 6, "reward": 0.6}\n{"step": 7, "rew')
    tabs = [watch.metrics(done_run, "ppo") for _ in range(3)]
    assert len(reads) == 2 and [t[-1]["step"] for t in tabs] == [6] * 3
    assert watch.metrics(done_run, "nothing") == () and watch.metrics(done_run, "prompts") != ()


def test_broken_files_are_not_fatal(done_run):
    done_run.folder.plan.write_text("{", encoding="utf-8")
    done_run.folder.resolved.unlink()
    assert [s.id for s in watch.stages(done_run)] == ["prompts", "contrast", "reward", "ppo", "evaluate"]
    assert watch.row(done_run).base == ""


def test_the_headline_is_the_trained_model_beside_the_base():
    report = {"models": {"base": {"success": 0.2}, "p_plus": {"success": 0.7}, "ppo": {"success": 0.5}}}
    assert watch.headline(report) == "50% succeed (base 20%)"
    assert watch.headline({"models": {"base": {"success": 0.2}}}) == ""


def test_an_empty_list_says_what_to_do():
    assert "Start the first one" in views.list_of_runs([])
