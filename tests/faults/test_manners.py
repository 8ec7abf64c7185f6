"""How failures are told: exit code, one message that says what to do, nothing half-written, nothing that should not be in a file."""

import errno
import os
import resource
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lite.errors import PreconditionError, RecipeError
from lite.fit import cards, preflight
from lite.plan import plan
from lite.recipe import built_in, load
from lite.runs import layout, publish, read
from lite.runs.journal import Journal
from lite.runs.progress import fitting

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/runs/x/weights"),
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "/runs/x/weights"),
        RuntimeError(f"Error while serializing: I/O error: {os.strerror(errno.ENOSPC)} (os error 28)"),  # as safetensors has it
    ],
)
def test_a_full_disk_is_a_precondition_and_the_run_goes_on_once_there_is_space(fakes, error):
    fakes.stages.fail["reward"] = error
    outcome = fakes.go()
    assert (outcome.state, outcome.exit_code) == ("failed", 3)
    assert "no space left" in outcome.error
    assert f"lite run --resume {outcome.run.folder.path}" in outcome.error
    assert "Traceback" not in outcome.run.folder.log.read_text()
    assert fakes.go(resume=outcome.run).state == "done"
    assert fakes.stages.ran == ["prompts", "contrast", "reward", "reward", "ppo", "evaluate"]


def test_a_file_that_may_grow_no_further_leaves_nothing_behind(tmp_path):
    """A real limit of the system, in the middle of a real stage."""
    recipe = tmp_path / "r.yaml"
    recipe.write_text("{task: helpful, stages: [prompts: {train: 300, dev: 1, test: 1}]}")
    words = [sys.executable, "-m", "lite.cli", "run", str(recipe), "--runs", str(tmp_path / "runs"), "-q"]

    def run(*more: str, limit: int = 0) -> subprocess.CompletedProcess[str]:
        def small() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        return subprocess.run([*words, *more], capture_output=True, text=True, check=False, cwd=ROOT, preexec_fn=small if limit else None)

    done = run(limit=20_000)
    assert done.returncode == 3, done.stderr
    assert "no space left" in done.stderr
    found = read.latest(tmp_path / "runs")
    assert found is not None
    assert found.state == "failed"
    assert not list(found.folder.path.rglob("*.tmp"))
    assert run("--resume", found.name).returncode == 0


def test_an_error_of_lite_is_its_message_and_no_traceback(fakes):
    fakes.stages.fail["reward"] = PreconditionError("the key hf_abcdefghijklmnop opens nothing")
    run = fakes.go().run
    assert "Traceback" not in run.folder.log.read_text()
    for file in (run.folder.log, run.folder.run, run.folder.events):
        assert "hf_abcdefgh" not in file.read_text()
    assert run.facts["error"] == "the key <secret> opens nothing"


def test_the_log_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(Journal, "LOG_BYTES", 2000)
    journal = Journal.create(tmp_path, "r")
    for k in range(300):
        journal.log(f"line {k}")
    assert journal.run.log.stat().st_size + journal.run.older_log.stat().st_size < 5000
    assert "line 299" in journal.run.log.read_text()


def test_runs_of_one_second_sort_by_time_whatever_their_labels():
    at = datetime(2026, 11, 21, 13, 0, 0, 100, UTC)
    names = [layout.new_run_name(label, at + timedelta(milliseconds=10 * k)) for k, label in enumerate("zyxwvut")]
    assert sorted(names, key=layout.begun) == names
    assert len({layout.new_run_name("a", at) for _ in range(50)}) > 40


def test_published_files_are_as_readable_as_the_users_mask_says(tmp_path):
    with publish.folder(tmp_path / "out") as scratch:
        (scratch / "inner").mkdir()
        for file in (scratch / "a", scratch / "inner" / "weights.safetensors"):
            file.write_text("x")
            file.chmod(0o600)
    umask = os.umask(0)
    os.umask(umask)
    for file in (tmp_path / "out" / "a", tmp_path / "out" / "inner" / "weights.safetensors"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~umask


def test_a_progress_line_drops_whole_figures_and_cuts_none():
    parts = ["steps 3.2/s", "4m left", "reward 0.5", "kl 1.25"]
    assert fitting(parts, 80) == "steps 3.2/s  4m left  reward 0.5  kl 1.25"
    assert fitting(parts, 35) == "steps 3.2/s  4m left  reward 0.5"
    assert fitting(parts, 34) == "steps 3.2/s  4m left  reward 0.5"
    assert fitting(parts, 20) == "steps 3.2/s  4m left"
    assert fitting(parts, 5) == ""


def test_a_large_base_is_not_begun_on_a_processor_unless_asked(monkeypatch, tmp_path):
    monkeypatch.setattr(cards, "this_card", lambda: None)
    monkeypatch.setattr(cards, "any_gpu", lambda: False)
    for owner, refusal in ((preflight, "refuse_disk"), (preflight.online, "refuse_offline"), (preflight.online, "refuse_unreachable")):
        monkeypatch.setattr(owner, refusal, lambda *_, **__: None)

    def check(name: str, *overrides: str) -> None:
        recipe = load(built_in()[name], overrides)
        nodes = plan(recipe)
        preflight.preflight(recipe, nodes, runs=tmp_path, only=[node.id for node in nodes])

    with pytest.raises(PreconditionError, match=r"no GPU here, and huggyllama/llama-7b has 6\.\d billion weights.*base\.device=cpu"):
        check("rlcd_helpful")
    check("rlcd_helpful", "base.device=cpu")
    check("tiny_rlcd_helpful")


def test_a_file_is_no_folder_of_runs(tmp_path):
    file = tmp_path / "runs"
    file.write_text("")
    with pytest.raises(RecipeError, match="is a file; name the folder of the runs"):
        read.all_runs(file)
