"""A run as `lite export` finds it: fake stages, with a real policy, a real reward model and real pairs put where they belong."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lite.engine import load_bank
from lite.knobs import BaseSpec, LoraSpec
from lite.model.bank import AdapterBank
from lite.runs.publish import write_json
from lite.runs.read import Run, open_run

PROMPT = "\n\nHuman: How can I bake bread?\n\nAssistant:"
REPORT = {
    "models": {
        "base": {"prompts": 3, "success": 0.25, "score": 2.0, "reward": -1.0, "tokens": 10.0, "stop_rate": 0.9},
        "ppo": {"prompts": 3, "success": 0.75, "score": 4.0, "reward": 1.5, "tokens": 12.0, "stop_rate": 1.0, "kl_to_base": 2.125},
    },
    "comparisons": [{"first": "ppo", "second": "base", "win_rate": 0.875, "compared": 9}],
    "reward": {"accuracy": 0.9, "held_out": 6},
    "diagnostics": {},
    "judge": "oracle",
}


@pytest.fixture(scope="session")
def bank() -> Iterator[AdapterBank]:
    """The embedded base in 4 bits."""
    bank = load_bank(BaseSpec(device="cpu"))
    yield bank
    bank.clear()


@pytest.fixture(scope="session")
def trained(bank: AdapterBank, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy's and a reward model's files, far from the base."""
    folder = tmp_path_factory.mktemp("trained")
    for seed, role in enumerate(("policy", "reward")):
        bank.add(role, LoraSpec(r=4, alpha=8), seed=seed)
        with torch.no_grad():
            for p in bank.parameters(role):
                p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(seed)) * 0.1)
        bank.save(role, folder / role)
    head = bank.head("reward").randomize(3)
    with torch.no_grad():
        head.bias.fill_(0.375)
    head.save(folder / "head.safetensors")
    bank.clear()
    return folder


@pytest.fixture
def run(fakes, trained: Path) -> Run:
    import shutil

    done = fakes.go("evaluate.temperature=1.0", "evaluate.max_new_tokens=48").run
    out = {record.id: record.folder.out for record in done.stages()}
    shutil.copytree(trained / "policy", out["ppo"] / "adapter")
    write_json(out["ppo"] / "report.json", {"steps": 2, "adapter_change": 0.25, "last": {"kl": 2.5, "seconds_rollout": 9.0}})
    shutil.copytree(trained / "reward", out["reward"] / "adapter")
    shutil.copyfile(trained / "head.safetensors", out["reward"] / "head.safetensors")
    write_json(out["reward"] / "report.json", {"accuracy": 0.9, "held_out": 6})
    with (out["contrast"] / "pairs.jsonl").open("w", encoding="utf-8") as f:
        for i in range(4):
            f.write(json.dumps(pair(i)) + "\n")
    write_json(done.folder.report_json, REPORT)
    return open_run(done.folder.path)


def pair(i: int) -> dict:
    return {
        "id": f"p{i}", "prompt": PROMPT, "chosen": f" You need flour and yeast, {i}.", "rejected": f" No idea, {i}.", "label": 1.0,
        "p_plus": PROMPT, "p_minus": PROMPT, "index": 0, "attempts": 1, "stop_chosen": "turn", "stop_rejected": "turn", "turned": False,
    }  # fmt: skip
