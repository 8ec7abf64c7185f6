"""The whole self-rewarding loop on the embedded base, one round in miniature, through the shipped command line; killed while it judges."""

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
RECIPE = "recipes/tiny_self_rewarding.yaml"
SMALL = (
    "prompts.dev=4", "prompts.test=4", "seed.ift=16", "seed.ranked=10", "seed.judged=4", "baseline.epochs=1", "eft.draws=6", "m1.epochs=1",
    "m1-gate.prompts=4", "m1-gate.refuse=false", "rounds=1", "each_round.instruct.prompts=12", "each_round.instruct.per_pass=16",
    "each_round.judge.batch_rows=4", "each_round.judge.min_readable=0", "each_round.pair.min_pairs=1", "each_round.best.at_least=0",
    "each_round.dpo.epochs=1", "each_round.gate.prompts=4", "each_round.gate.refuse=false", "evaluate.draws=1", "evaluate.max_new_tokens=40",
)  # fmt: skip


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "lite.cli", "run", RECIPE, *SMALL, *map(str, words), "--offline"]


def environment() -> dict[str, str]:
    """With a word that makes transformers print a line when it is imported: standard output is for the result alone."""
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, dict]:
    """An uninterrupted run: its runs folder, and what it printed."""
    runs = tmp_path_factory.mktemp("runs")
    done = subprocess.run(command("--runs", runs, "--json"), capture_output=True, text=True, cwd=ROOT, env=environment(), check=False)
    assert done.returncode == 0, done.stderr
    return runs, json.loads(done.stdout)


def out_of(run: read.Run, stage: str) -> Path:
    return next(record.folder.out for record in run.stages() if record.id == stage)


def latest(runs: Path) -> read.Run:
    run = read.latest(runs)
    assert run is not None
    return run


def test_the_report_has_every_figure_of_every_round(whole):
    report = whole[1]["report"]
    assert {"base", "baseline", "m1", "r1.dpo"} <= set(report["models"])
    rounds = report["diagnostics"]["rounds"]
    assert set(rounds) == {"m1-gate", "r1.gate"}
    for name, found in rounds.items():
        for model in found["models"].values():
            judge = model["judge"]
            assert {"pairwise", "best_of_five", "exact", "spearman", "kendall", "ties", "readable", "histogram", "greedy"} <= set(judge)
            assert {"success", "tokens", "stop_rate"} <= set(model)
        assert found["adapter_change"] > 0, name
    assert [c["second"] for c in rounds["r1.gate"]["comparisons"]] == ["m1", "baseline"]
    assert rounds["r1.gate"]["pairs"]["tie_rate"] is not None
    page = latest(whole[0]).folder.report_md.read_text(encoding="utf-8")
    assert "## Rounds" in page
    assert "Tie rule: a tie of the judge counts one half" in page


def test_the_first_step_shows_that_the_reference_is_the_model_before(whole):
    report = json.loads((out_of(latest(whole[0]), "r1.dpo") / "report.json").read_text())
    assert report["first"]["margin"] == pytest.approx(0, abs=1e-4)


def test_killed_while_judging_nothing_is_lost_or_repeated(whole, cli, tmp_path):
    process = subprocess.Popen(command("--runs", tmp_path, "-q"), cwd=ROOT, env=environment())
    deadline = time.monotonic() + 500
    kept = 0
    while time.monotonic() < deadline and process.poll() is None and kept < 2:
        kept = sum(file.read_bytes().count(b"\n") for file in tmp_path.glob("*/stages/*-r1.judge/ckpt/*.jsonl"))
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=60) == -signal.SIGKILL
    assert kept >= 2

    done = cli("run", "--resume", "--runs", tmp_path, timeout=900)
    assert done.returncode == 0, done.stderr
    assert "goes on after" in latest(tmp_path).folder.log.read_text(encoding="utf-8")
    for stage in ("r1.judge", "r1.pair"):
        for file in out_of(latest(whole[0]), stage).glob("*.jsonl"):
            assert (out_of(latest(tmp_path), stage) / file.name).read_bytes() == file.read_bytes(), file.name
    judgements = [json.loads(line) for line in (out_of(latest(tmp_path), "r1.judge") / "judgements.jsonl").read_text().splitlines()]
    places = [(j["id"], j["k"], j["draw"]) for j in judgements]
    assert len(set(places)) == len(places)
