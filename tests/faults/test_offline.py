"""The shipped command without a network: a warm cache is enough, and nobody is asked; a cold one is told at once (R18). And what a run
leaves in its files (R19)."""

import gzip
import json
import os
import random
import resource
import shutil
from pathlib import Path

import pytest

from lite.micro.world import draw_dialogue
from lite.plan import tiny_folder
from lite.runs import read
from lite.runs.journal import Journal
from lite.text.dialogue import prompt

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SECRETS = {
    "HF_TOKEN": "hf_aVerySecretTokenIndeed",
    "WANDB_API_KEY": "9f8e7d6c5b4a39281706f5e4d3c2b1a098765432",
    "JUDGE_KEY": "sk-judgeJudgeJudge",
}
NO_NETWORK = """
import os, socket
def refuse(self, address, *_):
    with open(os.environ["TRIED"], "a") as f:
        f.write(f"{address}\\n")
    raise OSError("no network in this test")
socket.socket.connect = socket.socket.connect_ex = refuse
socket.getaddrinfo = lambda *words, **_: refuse(None, words[:2])
"""
RECIPE = """
base: {model: org/small}
seed: 17
task: helpful
stages:
  - prompts: {source: hh-rlhf, train: 12, dev: 1, test: 2}
  - contrast: {max_new_tokens: 24}
  - reward: {lora: {r: 4, alpha: 8}, lr: 1e-3}
  - ppo: {lora: {r: 4, alpha: 8}, steps: 1, rollouts: 4, minibatch: 4, epochs: 1, max_new_tokens: 8}
  - evaluate: {against: [base], draws: 1, max_new_tokens: 8, judges: [{kind: base, versus: [base]}]}
"""


@pytest.fixture
def shut_off(cli, tmp_path):
    """The command line in a process in which no socket connects; ``tried`` gets a line for every attempt."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(NO_NETWORK)
    tried, recipe = tmp_path / "tried", tmp_path / "small.yaml"
    recipe.write_text(RECIPE)
    here = f"{tmp_path / 'site'}{os.pathsep}{Path(__file__).parents[2]}"

    def run(*words: object, **env: str):
        environment = {
            "PYTHONPATH": here,
            "TRIED": str(tried),
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_OFFLINE": "0",
            "LITE_CACHE": str(tmp_path / "lite"),
        }
        return cli("run", recipe, "--runs", tmp_path / "runs", *words, **environment | env)

    run.tried = tried  # type: ignore[attr-defined]
    return run


def fill(hub: Path) -> None:
    """The tiny base and a part of hh-rlhf as if they had been fetched."""
    for repo in ("models--org--small", "datasets--Anthropic--hh-rlhf"):
        (hub / repo / "refs").mkdir(parents=True)
        (hub / repo / "refs" / "main").write_text(COMMIT)
    shutil.copytree(tiny_folder(), hub / "models--org--small" / "snapshots" / COMMIT)
    part = hub / "datasets--Anthropic--hh-rlhf" / "snapshots" / COMMIT / "helpful-base"
    part.mkdir(parents=True)
    for split, n in (("train", 40), ("test", 20)):
        asked = [prompt(draw_dialogue("helpful", random.Random(f"{split} {i}"), split="train")) for i in range(n)]
        rows = [json.dumps({"chosen": f"\n\n{text} Yes.", "rejected": f"\n\n{text} No."}) for text in asked]
        with gzip.open(part / f"{split}.jsonl.gz", "wt") as f:
            f.write("\n".join(rows) + "\n")


def test_a_whole_run_with_a_warm_cache_asks_nobody_and_leaves_no_secret_and_no_carriage_return(shut_off, tmp_path):
    fill(tmp_path / "hf" / "hub")
    done = shut_off(**SECRETS)
    assert done.returncode == 0, done.stderr
    assert not shut_off.tried.exists(), shut_off.tried.read_text()
    run = read.latest(tmp_path / "runs")
    assert run.state == "done"
    assert len(run.stages()) == 5
    told = {"stdout": done.stdout.encode(), "stderr": done.stderr.encode()}
    told |= {
        str(file): file.read_bytes()
        for file in run.folder.path.rglob("*")
        if file.is_file() and file.suffix not in (".safetensors", ".png")
    }
    for name, content in told.items():
        assert b"\r" not in content, name
        for secret in SECRETS.values():
            assert secret.encode() not in content, name


def test_a_cold_cache_is_told_within_seconds_before_a_run_is_made(shut_off, tmp_path):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = shut_off()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 3
    assert "'org/small'" in done.stderr
    assert "the Hub is out of reach" in done.stderr
    assert "Traceback" not in done.stderr
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 5  # seconds of this process, however busy the machine is
    assert len(shut_off.tried.read_text().splitlines()) <= 2  # nothing is tried again for a minute
    assert not (tmp_path / "runs").exists()


def test_offline_names_all_that_is_missing_and_asks_nobody(shut_off, tmp_path):
    done = shut_off("--offline")
    assert done.returncode == 3
    assert "base.model=org/small, for contrast, reward, ppo, evaluate" in done.stderr
    assert "prompts.source=hh-rlhf, the dataset Anthropic/hh-rlhf (helpful-base)" in done.stderr
    assert "tiny" not in done.stderr
    assert "free" not in done.stderr  # nor of the disk
    assert not shut_off.tried.exists()
    assert not (tmp_path / "runs").exists()


def test_a_log_of_many_hours_stays_under_5_megabytes(tmp_path):
    journal = Journal.create(tmp_path, "r")
    line = "a library warns at every step of every stage, and has much to say of it " * 10
    for _ in range(10_000):
        journal.log(line)
    assert 2_000_000 < sum(file.stat().st_size for file in journal.run.path.iterdir()) <= 5_000_000
