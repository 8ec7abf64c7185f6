"""The engine with fake stages: order, resuming, taking from other runs, and how every kind of end is told."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from lite import engine
from lite.errors import ArtifactError, DivergedError, JudgeError, LockError, PreconditionError, Stopped
from lite.runs import manners, read, report
from lite.runs.checkpoints import Checkpoints
from lite.runs.journal import StageJournal

ALL = ["prompts", "contrast", "reward", "ppo", "evaluate"]


def test_a_run_leaves_everything_that_the_layout_promises(fakes):
    outcome = fakes.go()
    assert (outcome.state, outcome.exit_code, fakes.stages.ran) == ("done", 0, ALL)
    folder = outcome.run.folder.path
    top = {path.name for path in folder.iterdir()}
    assert {"recipe.yaml", "resolved.yaml", "plan.json", "env.json", "run.json", "events.jsonl", "report.json", "report.md"} <= top
    assert [path.name for path in sorted((folder / "stages").iterdir())] == [f"{i:02d}-{id}" for i, id in enumerate(ALL, 1)]
    for record in outcome.run.stages():
        assert record.done
        assert record.folder.metrics.is_file()
        assert not record.folder.ckpt.exists()
    assert outcome.run.facts["state"] == "done"
    assert outcome.run.facts["pid"] == os.getpid()
    assert [e["event"] for e in read.lines(outcome.run.folder.events)][-1] == "run done"


def test_stages_get_their_inputs_by_name_and_one_base_for_the_whole_run(fakes):
    fakes.go()
    inputs = {call.stage: call.inputs for call in fakes.stages.calls}
    assert inputs["ppo"]["reward"].path.parent.name == "03-reward"
    assert list(inputs["evaluate"]["policies"]) == ["ppo"]
    assert fakes.stages.bases == ["tiny"]


def test_a_stage_may_have_a_base_of_its_own_and_one_lies_in_memory_at_a_time(fakes):
    run = fakes.go("contrast.base.model=big/base").run
    assert {call.stage: call.base for call in fakes.stages.calls} == dict.fromkeys(ALL, "tiny") | {"prompts": None, "contrast": "big/base"}
    assert fakes.stages.bases == ["big/base", "freed", "tiny"]
    assert run.report()["run"]["other_bases"] == {"contrast": "big/base"}
    assert "base tiny, big/base for contrast," in run.folder.report_md.read_text()


def test_a_base_is_kept_while_the_next_stage_wants_the_same(fakes):
    own = "{contrast: {as: %s, base: {model: big/base}}}"
    text = f"{{task: helpful, stages: [prompts, contrast, {own % 'a'}, {own % 'b'}, reward]}}"
    fakes.go(text=text)
    assert fakes.stages.bases == ["tiny", "freed", "big/base", "freed", "tiny"]


def test_a_base_whose_stages_are_done_is_not_loaded(fakes):
    run = fakes.go("contrast.base.model=big/base").run
    fakes.stages.bases.clear()
    fakes.go("contrast.base.model=big/base", "reward.epochs=3", resume=run)
    assert fakes.stages.bases == ["tiny"]


def test_what_depends_on_the_card_is_decided_before_a_stage_runs(fakes, monkeypatch):
    from lite.fit import cards

    monkeypatch.setattr(cards, "this_card", lambda: 0.51)  # the context alone takes half a GiB
    run = fakes.go("ppo.checkpointing=auto").run
    monkeypatch.setattr(cards, "this_card", lambda: None)
    fakes.go("ppo.checkpointing=auto", "ppo.lr=0.5", resume=run)
    assert [call.spec.checkpointing for call in fakes.stages.calls if call.stage == "ppo"] == [True, False]
    assert "reward" not in fakes.stages.ran[len(ALL) :]


def test_an_optional_input_that_nobody_gives_is_none(fakes):
    text = "{task: helpful, stages: [prompts, respond]}"
    fakes.go(text=text)
    assert fakes.stages.calls[1].inputs["policy"] is None
    fakes.go(text="{task: helpful, stages: [prompts, evaluate]}")
    assert fakes.stages.calls[3].inputs["policies"] == fakes.stages.calls[3].inputs["pairs"] == {}


def test_json_is_valid_where_figures_are_not_numbers(fakes):
    run = fakes.go().run
    strict = {"parse_constant": pytest.fail}
    for file in run.folder.path.rglob("*.json"):
        if file.parent.name != "out":  # the fake's own report is not ours
            json.loads(file.read_text(), **strict)
    metrics = next(run.folder.path.glob("stages/04-ppo/metrics.jsonl")).read_text()
    assert json.loads(metrics, **strict)["loss"] is None
    assert run.report()["diagnostics"] == {"kl": None}


def test_the_report_is_the_evaluations_and_tells_the_times(fakes):
    run = fakes.go("ppo.kl_coef=0.5").run
    found = run.report()
    assert found["models"] == {"base": {"success": 0.25}}
    assert list(found["run"]["seconds"]) == ALL
    page = run.folder.report_md.read_text()
    assert "ppo.kl_coef=0.5" in page
    assert report.headline(run) == "# Results\n\n## Models\n\n| base | 25 % |"


def test_without_an_evaluation_the_report_keeps_its_shape(fakes):
    run = fakes.go(text="{task: helpful, stages: [prompts]}").run
    assert run.report()["models"] == {}
    assert run.report()["comparisons"] == []


def test_resuming_a_finished_run_repeats_nothing(fakes):
    run = fakes.go().run
    before = {path: path.stat().st_mtime_ns for path in run.folder.path.glob("stages/*/out/*")}
    again = fakes.go(resume=run)
    assert again.state == "done"
    assert fakes.stages.ran == ALL
    assert {path: path.stat().st_mtime_ns for path in run.folder.path.glob("stages/*/out/*")} == before


def test_a_finished_run_that_is_looked_at_again_keeps_its_times(fakes):
    run = fakes.go().run
    times = {"resumed": None, "finished": "2026-01-01T00:00:00Z"}
    for again, expected in (((), times), (("ppo.lr=0.5",), None)):
        old = read.open_run(run.folder.path)
        facts = fakes.go(*again, resume=replace(old, facts=old.facts | times)).run.facts
        assert facts["state"] == "done"
        assert ({name: facts[name] for name in times} == times) == bool(expected)


def test_resuming_after_a_failure_runs_what_is_left(fakes):
    fakes.stages.fail["ppo"] = ZeroDivisionError("by zero")
    failed = fakes.go()
    assert (failed.state, failed.exit_code) == ("failed", 1)
    done = fakes.go(resume=failed.run)
    assert done.state == "done"
    assert fakes.stages.ran == [*ALL[:4], "ppo", "evaluate"]
    assert done.run.folder == failed.run.folder
    assert done.run.facts["error"] is None


def test_a_changed_knob_repeats_its_stage_and_what_follows(fakes):
    run = fakes.go().run
    fakes.stages.calls.clear()
    again = fakes.go("ppo.kl_coef=0.5", resume=run)
    assert fakes.stages.ran == ["ppo", "evaluate"]
    assert "kl_coef=0.5" in (again.run.folder.path / "stages/04-ppo/out/made.txt").read_text()
    started = {e["stage"]: e["why"] for e in read.lines(run.folder.events) if e["event"] == "stage started"}
    assert started["ppo"] == "ppo.kl_coef changed 0.004 -> 0.5"
    assert started["evaluate"] == "input ppo changed"


def test_a_knob_without_effect_repeats_nothing(fakes):
    run = fakes.go().run
    fakes.go("ppo.micro_tokens=128", "contrast.batch_rows=3", resume=run)
    assert fakes.stages.ran == ALL


def test_a_stage_put_in_between_moves_the_later_ones(fakes, small_recipe):
    run = fakes.go().run
    fakes.stages.calls.clear()
    text = small_recipe.replace("  - reward\n", "  - reward\n  - reward: {as: other, epochs: 3}\n").replace(
        "ppo: {", "ppo: {from: {reward: reward}, "
    )
    text = text.replace("evaluate: {", "evaluate: {from: {reward: reward}, ")
    again = fakes.go(text=text, resume=run)
    assert fakes.stages.ran == ["other"]
    assert (again.run.folder.path / "stages/05-ppo/out/made.txt").is_file()


def test_finished_stages_of_another_run_are_taken(fakes):
    first = fakes.go().run
    fakes.stages.calls.clear()
    second = fakes.go("reward.epochs=3", from_run=first)
    assert second.run.folder != first.folder
    assert fakes.stages.ran == ["reward", "ppo", "evaluate"]
    copy = second.run.folder.path / "stages/02-contrast/out/made.txt"
    assert copy.read_text() == (first.folder.path / "stages/02-contrast/out/made.txt").read_text()
    assert read.read_json(copy.parent.parent / "stage.json")["taken_from"].endswith("02-contrast")


def test_a_flipped_byte_is_noticed_before_it_is_used(fakes):
    run = fakes.go().run
    file = run.folder.path / "stages/02-contrast/out/made.txt"
    file.write_text(file.read_text().replace("contrast", "kontrast"))
    again = fakes.go(resume=run)
    assert (again.state, again.exit_code) == ("failed", 1)
    assert "made.txt" in str(again.error)
    assert "delete" in str(again.error)


def test_a_half_written_result_does_not_count(fakes):
    run = fakes.go().run
    folder = run.folder.path / "stages/05-evaluate"
    (folder / "out").rename(folder / "out.tmp")
    fakes.stages.calls.clear()
    fakes.go(resume=run)
    assert fakes.stages.ran == ["evaluate"]
    assert not (folder / "out.tmp").exists()


def test_checkpoints_survive_an_interruption_but_not_a_change(fakes):
    fakes.stages.fail["ppo"] = KeyboardInterrupt()
    run = fakes.go().run
    kept = run.folder.path / "stages/04-ppo/ckpt/step-1"
    kept.write_text("state")
    fakes.stages.fail["ppo"] = KeyboardInterrupt()
    fakes.go(resume=run)
    assert kept.is_file()
    fakes.stages.fail["ppo"] = KeyboardInterrupt()
    fakes.go("ppo.lr=0.5", resume=run)
    assert not kept.exists()


def test_figures_are_not_doubled_and_an_old_report_does_not_stay(fakes):
    run = fakes.go().run
    metrics = run.folder.path / "stages/04-ppo/metrics.jsonl"
    metrics.write_text("old\n")
    fakes.stages.fail["ppo"] = KeyboardInterrupt()
    fakes.go("ppo.lr=0.5", resume=run)
    assert not run.folder.report_md.exists()
    assert not run.folder.report_json.exists()
    assert not metrics.exists() or "old" not in metrics.read_text()


def test_results_that_a_changed_recipe_replaces_are_kept(fakes, cli):
    run = fakes.go("ppo.lr=0.1").run
    before = (run.folder.path / "stages/04-ppo/out/made.txt").read_text()
    again = fakes.go("ppo.lr=0.5", resume=run).run
    (kept,) = run.folder.replaced.iterdir()
    assert sorted(path.name for path in kept.iterdir()) == ["04-ppo", "05-evaluate", "report.json", "report.md"]
    assert (kept / "04-ppo/out/made.txt").read_text() == before != (run.folder.path / "stages/04-ppo/out/made.txt").read_text()
    fakes.go("ppo.lr=0.5", resume=again)
    assert len(list(run.folder.replaced.iterdir())) == 1
    for words, freed in ((("gc", "--yes"), False), (("gc", "--replaced", "--yes"), True)):
        assert cli(*words, "--runs", fakes.folder).returncode == 0
        assert kept.exists() != freed


def interrupted_at_step_4(fakes):
    """A run that was stopped in its PPO stage, with a checkpoint of step 2 and one of step 4, and a line of figures after them."""
    fakes.stages.fail["ppo"] = KeyboardInterrupt()
    run = fakes.go().run
    folder = run.stages()[3].folder
    figures = StageJournal(folder)
    for step in (1, 2, 3, 4, 5):
        figures.metric(step=step)
        if step in (2, 4):
            with Checkpoints(folder.ckpt).write(step, 80, figures.sizes()) as scratch:
                (scratch / "state.json").write_text("{}")
    return run, folder


@pytest.mark.parametrize(("damage", "expected"), [(False, 4), (True, 2)])
def test_a_training_goes_on_from_its_newest_whole_checkpoint(fakes, damage, expected):
    run, folder = interrupted_at_step_4(fakes)
    if damage:
        (folder.ckpt / "checkpoint-4" / "state.json").unlink()
    fakes.go(resume=run)
    assert fakes.stages.calls[-2].bench.resumed.step == expected
    steps = [line.get("step") for line in read.lines(folder.metrics)]
    assert steps == [1, *range(1, expected + 1), 1]  # the fake tells a step 1 each time it runs
    started = [e["why"] for e in read.lines(run.folder.events) if e["event"] == "stage started"]
    assert "was not finished; goes on from step 4 of 80" in started
    log = run.folder.log.read_text()
    assert ("checkpoint-4: state.json is missing; going on from step 2" in log) == damage


@pytest.mark.parametrize(
    ("raised", "state", "code"),
    [
        (KeyboardInterrupt(), "stopped", 130),
        (Stopped(), "stopped", 75),
        (DivergedError("kl 400"), "diverged", 4),
        (JudgeError("3 % readable"), "failed", 4),
        (PreconditionError("no GPU"), "failed", 3),
        (ArtifactError("gone"), "failed", 1),
        (IndexError("a bug"), "failed", 1),
    ],
)
def test_every_end_has_its_state_and_exit_code(fakes, raised, state, code):
    fakes.stages.fail["reward"] = raised
    outcome = fakes.go()
    assert (outcome.state, outcome.exit_code) == (state, code)
    assert outcome.run.facts["state"] == state
    assert outcome.run.facts["exit_code"] == code
    assert outcome.run.facts["stage"] == "reward"
    assert not (outcome.run.folder.path / "stages/03-reward/out").exists()


def test_a_bug_is_one_line_for_the_user_and_a_traceback_in_the_log(fakes):
    fakes.stages.fail["reward"] = IndexError("a bug\nwith a second line")
    outcome = fakes.go()
    assert str(outcome.error).startswith("stage reward failed: IndexError: a bug (")
    assert "log.txt" in str(outcome.error)
    assert "Traceback" in outcome.run.folder.log.read_text()


def test_the_wrong_artifact_is_refused(fakes, monkeypatch):
    from lite.artifacts import Pairs

    monkeypatch.setattr(fakes.stages, "stage_function", lambda kind: lambda spec, *, out, bench, **inputs: Pairs(out))
    outcome = fakes.go()
    assert "its contract says Prompts" in str(outcome.error)


def test_a_run_is_held_by_one_process(fakes):
    run = fakes.go().run
    with read_lock(run), pytest.raises(LockError, match="another process"):
        fakes.go(resume=run)
    assert fakes.go(resume=run).state == "done"


def read_lock(run):
    from lite.runs.journal import Journal

    return Journal(run.folder, run.facts).held()


def test_the_environment_is_set_but_never_overrules_the_user(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.delenv("HF_HUB_DISABLE_TELEMETRY", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    for name in manners.ENVIRONMENT | manners.QUIET_ENVIRONMENT:
        if name not in os.environ:
            monkeypatch.setenv(name, "")
            monkeypatch.delenv(name)
    for module in [one for one in manners.KEPT_IN["HF_HUB_OFFLINE"] if one in sys.modules]:
        monkeypatch.setattr(sys.modules[module], "HF_HUB_OFFLINE", False)
    engine.prepare_environment(offline=True)
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_the_engine_imports_no_torch():
    code = "import sys, lite.engine; sys.exit('torch' in sys.modules or 'rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent, check=False).returncode == 0


KILLED = """
import sys, time, pathlib
sys.path[:0] = [{tests!r}, {root!r}]
from conftest import FakeRuns, RECIPE
fakes = FakeRuns(pathlib.Path(sys.argv[1]))
original = fakes.stages.stage_function
def slow(kind):
    def stage(*words, **named):
        made = original(kind)(*words, **named)
        if kind == "ppo":
            print("ready", flush=True)
            time.sleep(60)
        return made
    return stage
fakes.stages.stage_function = slow
fakes.go()
"""


def test_a_killed_run_is_seen_as_interrupted_and_goes_on(fakes):
    code = KILLED.format(tests=str(Path(__file__).parent), root=str(Path(__file__).parent.parent))
    process = subprocess.Popen([sys.executable, "-c", code, str(fakes.folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    run = read.latest(fakes.folder)
    assert run is not None
    assert run.state == "running"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=10)
    deadline = time.monotonic() + 5
    while run.state == "running" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert run.state == "interrupted"
    again = fakes.go(resume=run)
    assert (again.state, fakes.stages.ran) == ("done", ["ppo", "evaluate"])


def test_the_log_has_what_lites_own_rooms_say_and_the_warnings_of_libraries(fakes):
    def load_bank(spec: object) -> None:
        for name in ("lite.model.copies", "urllib3"):
            logging.getLogger(name).info("%s informs", name)
            logging.getLogger(name).warning("%s warns", name)

    fakes.stages.load_bank = load_bank  # type: ignore[method-assign]
    text = fakes.go().run.folder.log.read_text(encoding="utf-8")
    assert "lite.model.copies informs" in text
    assert "lite.model.copies warns" in text
    assert "urllib3 warns" in text
    assert "urllib3 informs" not in text
    assert logging.getLogger("lite").level == logging.NOTSET


def test_the_backend_is_prepared_before_the_first_stage_that_uses_the_base(fakes):
    turns: list[str] = []
    tools = fakes.stages.tools()
    function = tools.stage_function
    spied = replace(
        tools,
        prepare_base=lambda spec: turns.append("prepare"),
        stage_function=lambda kind: (turns.append(kind), function(kind))[1],
    )
    fakes.stages.tools = lambda: spied  # type: ignore[method-assign]
    fakes.go()
    assert turns[:3] == ["prompts", "prepare", "contrast"]
