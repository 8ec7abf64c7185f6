"""Training on a card that is too small for its micro-batches: the same adapters, though memory runs out in the middle of an update."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from lite.artifacts import Pairs, Reward
from lite.knobs.ppo import PpoSpec
from lite.knobs.training import DpoSpec, RewardSpec, SftSpec
from lite.model.bank import AdapterBank
from lite.model.memory import Budget
from lite.records import Pair, write_rows
from lite.stages.dpo import dpo
from lite.stages.ppo import ppo
from lite.stages.prompts import PromptsSpec, prompts
from lite.stages.reward import reward
from lite.stages.sft import sft

PPO = {"steps": 1, "rollouts": 8, "minibatch": 4, "epochs": 1, "lr": 5e-4, "max_new_tokens": 24, "warmup_steps": 0, "kl_coef": 0.05}


@contextmanager
def failing(bank: AdapterBank, *, at: int, backward: bool = False) -> Iterator[list[int]]:
    """Memory runs out once, at the n-th pass with a graph, on its way forward or back; gives the tokens of all such passes."""
    passes: list[int] = []

    def run_out(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    def forward(trunk: object, positional: object, named: dict[str, torch.Tensor], output: Any) -> None:
        if torch.is_grad_enabled():
            passes.append(named["input_ids"].numel())
            if len(passes) == at:
                output.last_hidden_state.register_hook(run_out) if backward else run_out()

    hook = bank.trunk.register_forward_hook(forward, with_kwargs=True)
    try:
        yield passes
    finally:
        hook.remove()


@pytest.fixture
def fresh(tiny_bank: AdapterBank) -> AdapterBank:
    """The bank without what other tests taught it of the card."""
    tiny_bank.budget = Budget()
    return tiny_bank


@pytest.fixture(scope="module")
def pairs(folder) -> Pairs:
    """Pairs of different lengths, so that a step takes several passes."""
    where = folder("pairs")
    text = " Sure! First get soil and seeds. Use the shovel for it. Good luck!"
    rows = [
        Pair(f"p{i}", f"\n\nHuman: How do I plant {'beans ' * i}?\n\nAssistant:", text[: 20 + 5 * i], " Go away.", 1.0, "", "", 0, 1, "turn", "turn")
        for i in range(12)
    ]  # fmt: skip
    write_rows(where / "pairs.jsonl", rows)
    return Pairs(where)


@pytest.fixture(scope="module")
def judged(pairs, make_bench, folder) -> Reward:
    return reward(RewardSpec(lr=1e-3, batch_pairs=8), pairs=pairs, out=folder("judge"), bench=make_bench("reward"))


def moved(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return max(float((a[k] - b[k]).abs().max()) for k in a)


@pytest.mark.parametrize("backward", [False, True])
def test_a_reward_model_learns_the_same(backward, pairs, make_bench, folder, fresh):
    spec = RewardSpec(lr=1e-3, batch_pairs=8, micro_tokens=256)

    def train(at: int) -> tuple[dict[str, torch.Tensor], list[dict[str, float]], list[int]]:
        bench = make_bench("reward")
        with failing(fresh, at=at, backward=backward) as passes:
            reward(spec, pairs=pairs, out=folder("out"), bench=bench)
        return fresh.snapshot("reward"), bench.reporter.metrics, passes

    plain, figures, passes = train(at=-1)
    assert len(passes) >= 4  # the second pass of the first step has gradients of the first before it
    small, again, halved = train(at=2)
    assert len(halved) > len(passes) + 2
    assert max(halved[2:]) < max(passes)  # halved for the rest of the stage
    assert moved(plain, small) < 1e-5  # two steps of Adam at 1e-3 move single weights by 2e-3
    for before, after in zip(figures, again, strict=True):
        assert after == pytest.approx(before, rel=1e-4)


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_what_trl_trains_learns_the_same(kind, backward, pairs, make_bench, folder, fresh):
    shared = {"lr": 1e-3, "epochs": 1, "micro_tokens": 256, "held_out": 0.2}

    def train(at: int) -> tuple[dict[str, torch.Tensor], list[dict[str, float]], list[int]]:
        bench, out = make_bench(kind), folder("out")
        with failing(fresh, at=at, backward=backward) as passes:
            if kind == "sft":
                sft(SftSpec(**shared, batch_examples=8), pairs=pairs, examples={}, policy=None, out=out, bench=bench)
            else:
                dpo(DpoSpec(**shared, batch_pairs=8), pairs=pairs, policy=None, prompts=None, out=out, bench=bench)
        return fresh.snapshot("policy"), bench.reporter.metrics, passes

    plain, figures, passes = train(at=-1)
    small, again, halved = train(at=2)
    assert len(halved) > len(passes) + 2
    assert max(halved[2:]) < max(passes)
    assert moved(plain, small) < 1e-4
    for before, after in zip(figures, again, strict=True):
        told = [name for name in ("loss", "grad_norm", "held_out_loss") if name in before]
        assert [after[name] for name in told] == pytest.approx([before[name] for name in told], rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(
    ("value", "at", "backward"), [("separate", 2, False), ("separate", 8, True), ("separate", 10, False), ("joint", 7, True)]
)
def test_a_policy_learns_the_same(value, at, backward, judged, make_bench, folder, fresh):
    asked = prompts(PromptsSpec(train=8, dev=1, test=1), out=folder("prompts"), bench=make_bench("prompts"))
    spec = PpoSpec(**PPO, value=value, micro_tokens=150)

    def train(at: int) -> tuple[dict[str, torch.Tensor], dict[str, float], list[int]]:
        bench = make_bench("ppo")
        with failing(fresh, at=at, backward=backward) as passes:
            ppo(spec, prompts=asked, reward=judged, policy=None, out=folder("out"), bench=bench)
        return fresh.snapshot("policy") | {"head": fresh.head("value").weight.detach().clone()}, bench.reporter.metrics[0], passes

    plain, figures, passes = train(at=-1)
    small, again, halved = train(at=at)
    assert len(halved) > len(passes)
    assert moved(plain, small) < 1e-5
    for name in ("policy_loss", "value_loss", "grad_norm", "value_grad_norm", "clip_fraction"):
        assert again[name] == pytest.approx(figures[name], rel=1e-3, abs=1e-5)
    assert figures["ratio_first"] == 1.0
    assert again["ratio_first"] == pytest.approx(1.0, abs=1e-4)  # the old log-probs are from wider passes than the new ones
