"""The whole of RLCD on the embedded base, in miniature, through the shipped command line: run, stop, go on, and compare."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lite.runs import read

ROOT = Path(__file__).parent.parent
SMALL = (
    "prompts.train=16", "prompts.dev=4", "prompts.test=6", "contrast.max_new_tokens=40", "reward.epochs=1", "reward.batch_pairs=4",
    "ppo.steps=2", "ppo.rollouts=8", "ppo.minibatch=4", "ppo.max_new_tokens=24", "evaluate.draws=1", "evaluate.max_new_tokens=24",
)  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, dict]:
    """An uninterrupted run: its runs folder, and what it printed."""
    runs = tmp_path_factory.mktemp("runs")
    command = [
        sys.executable,
        "-m",
        "lite.cli",
        "run",
        "recipes/tiny_rlcd_helpful.yaml",
        *SMALL,
        "--runs",
        str(runs),
        "--json",
        "--offline",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return runs, json.loads(done.stdout)


def test_the_report_keeps_its_contract(whole):
    report = whole[1]["report"]
    assert {"models", "comparisons", "reward", "diagnostics"} <= set(report)
    assert {"base", "ppo"} <= set(report["models"])
    for model in report["models"].values():
        assert 0 <= model["success"] <= 1
        assert "score" in model
    assert read.latest(whole[0]).report() == report


def test_the_policy_loads_with_nothing_but_peft(whole):
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    from lite.micro import BASE_DIR

    adapter = Path(whole[1]["run"]) / "stages/04-ppo/out/adapter"
    model = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(BASE_DIR), adapter)
    assert any("lora_B" in name and parameter.abs().sum() > 0 for name, parameter in model.named_parameters())


def test_resuming_repeats_nothing(whole, cli):
    runs, printed = whole
    before = {file: file.stat().st_mtime_ns for file in Path(printed["run"]).glob("stages/*/out/*")}
    done = cli("run", "--resume", "--runs", runs)
    assert done.returncode == 0
    assert "| ppo |" in done.stdout
    assert {file: file.stat().st_mtime_ns for file in Path(printed["run"]).glob("stages/*/out/*")} == before


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_was_stopped_ends_up_the_same(whole, cli, tmp_path, how):
    command = [sys.executable, "-m", "lite.cli", "run", "recipes/tiny_rlcd_helpful.yaml", *SMALL, "--runs", str(tmp_path), "-q"]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        run = read.latest(tmp_path)
        if run and run.facts.get("stage") == "reward":
            break
        time.sleep(0.02)
    process.send_signal(how)
    code = process.wait(timeout=60)
    run = read.latest(tmp_path)
    assert run is not None
    assert (code, run.state) == ((75, "stopped") if how == signal.SIGTERM else (-signal.SIGKILL, "interrupted"))

    done = cli("run", "--resume", "--runs", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "[2/5] contrast: done in" in done.stderr
    unbroken = read.latest(whole[0])
    assert unbroken is not None
    for resumed, other in zip(run.stages(), unbroken.stages(), strict=True):
        rows = {name: digest for name, digest in resumed.files.items() if name.endswith((".jsonl", ".safetensors"))}
        assert rows
        assert rows == {name: digest for name, digest in other.files.items() if name in rows}
