"""Trainings that are interrupted and gone on with give the same weights, to the bit."""

from functools import cache
from pathlib import Path

import pytest
from safetensors.torch import load_file

from lite.artifacts import Pairs, Prompts, Reward
from lite.errors import Stopped
from lite.knobs import LoraSpec
from lite.knobs.ppo import PpoSpec
from lite.knobs.training import DpoSpec, RewardSpec, SftSpec
from lite.knobs.writing import ContrastSpec, PromptsSpec
from lite.model.trainers import Dpo
from lite.stages.contrast import contrast
from lite.stages.dpo import dpo
from lite.stages.ppo import ppo
from lite.stages.prompts import prompts
from lite.stages.reward import reward
from lite.stages.sft import sft
from tests.pickles import plant

LORA = LoraSpec(r=4, alpha=8, dropout=0.1)
REWARD = RewardSpec(lora=LORA, epochs=2, lr=1e-3, batch_pairs=4, save_every=2)
TUNED = {"lora": LORA, "epochs": 2, "lr": 1e-3, "warmup": 0.3, "held_out": 0.2, "eval_every": 3, "keep": "best", "save_every": 2}
SFT = SftSpec(**TUNED, batch_examples=4)
DPO = DpoSpec(**TUNED, batch_pairs=4)
PPO = PpoSpec(
    lora=LORA, steps=4, rollouts=6, minibatch=3, epochs=1, lr=1e-3, warmup_steps=0, max_new_tokens=16, kl_coef=0.05, kl_control="adaptive",
    kl_horizon=60, scale_reward=True, save_every=2, dev_prompts=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def asked(make_bench, folder) -> Prompts:
    return prompts(PromptsSpec(train=16, dev=3, test=1), out=folder("prompts"), bench=make_bench("prompts"))


@pytest.fixture(scope="module")
def made(asked, make_bench, folder) -> Pairs:
    return contrast(ContrastSpec(max_new_tokens=48), prompts=asked, out=folder("pairs"), bench=make_bench("contrast"))


@pytest.fixture(scope="module")
def judged(made, make_bench, folder) -> Reward:
    return reward(REWARD, pairs=made, out=folder("reward"), bench=make_bench("reward"))


@pytest.fixture(scope="module")
def stages(asked, made, judged):
    return {
        "reward": lambda out, bench: reward(REWARD, pairs=made, out=out, bench=bench),
        "sft": lambda out, bench: sft(SFT, pairs=made, examples={}, policy=None, out=out, bench=bench),
        "dpo": lambda out, bench: dpo(DPO, pairs=made, policy=None, prompts=None, out=out, bench=bench),
        "ppo": lambda out, bench: ppo(PPO, prompts=asked, reward=judged, policy=None, out=out, bench=bench),
    }


@pytest.fixture(scope="module")
def whole(stages, make_bench, folder):
    """What a stage makes when nothing interrupts it, and the figures that it tells."""

    @cache
    def run(kind: str):
        bench = make_bench(kind)
        return stages[kind](folder("whole"), bench), bench.reporter.metrics

    return run


class Died(Exception):
    """Stands for a kill: no checkpoint, nothing flushed."""


def die_at(bench, step: int) -> None:
    """Let the stage die when it tells the figures of a step."""

    def metric(**values: object) -> None:
        if values["step"] == step:
            raise Died
        bench.reporter.metrics.append(values)

    bench.reporter.metric = metric


def largest_difference(a: Path, b: Path) -> float:
    worst = 0.0
    for file in a.rglob("*.safetensors"):
        mine, theirs = load_file(file), load_file(b / file.relative_to(a))
        assert mine.keys() == theirs.keys()
        worst = max([worst, *(float((mine[k] - theirs[k]).abs().max()) for k in mine)])
    return worst


def without_times(metrics: list[dict]) -> list[dict]:
    machine = ("seconds", "tokens_per_s", "memory")
    return [{k: v for k, v in line.items() if not k.startswith(machine)} for line in metrics]


@pytest.mark.parametrize(("kind", "deaths"), [("reward", (1, 4, 7)), ("sft", (1, 4, 8)), ("dpo", (4, 7)), ("ppo", (2, 4))])
def test_a_training_that_died_goes_on_to_the_same_bits(kind, deaths, stages, whole, make_bench, folder):
    expected, metrics = whole(kind)
    ckpt, begun_at = folder("ckpt"), []
    for step in deaths:
        bench = make_bench(kind, ckpt=ckpt)
        die_at(bench, step)
        with pytest.raises(Died):
            stages[kind](folder("dead"), bench)
        begun_at.append(bench.resumed.step if bench.resumed else 0)
    assert begun_at == [0, *((step - 1) // 2 * 2 for step in deaths[:-1])]  # at most save_every steps are done again
    bench = make_bench(kind, ckpt=ckpt)
    found = stages[kind](folder("resumed"), bench)
    assert largest_difference(expected.path, found.path) == 0.0
    last = bench.resumed.step
    assert last == (deaths[-1] - 1) // 2 * 2
    assert without_times(bench.reporter.metrics) == [m for m in without_times(metrics) if m["step"] > last]
    if kind == "ppo":
        assert found.report()["dev_reward"] == expected.report()["dev_reward"]
        assert found.report()["adapter_change"] == expected.report()["adapter_change"]
    else:
        assert found.report() == expected.report()


@pytest.mark.parametrize("kind", ["reward", "sft", "dpo", "ppo"])
def test_a_stop_keeps_the_step_that_it_comes_in(kind, stages, whole, make_bench, folder):
    """And what lies beside in the checkpoint is not unpickled (S9)."""
    expected, _ = whole(kind)
    ckpt = folder("ckpt")
    for step in (1, 3):
        bench = make_bench(kind, ckpt=ckpt)
        object.__setattr__(bench, "stop_asked", lambda bench=bench, step=step: [m["step"] for m in bench.reporter.metrics][-1:] == [step])
        with pytest.raises(Stopped):
            stages[kind](folder("stopped"), bench)
        assert [m["step"] for m in bench.reporter.metrics if not m.keys() & {"dev_reward", "held_out_loss"}] == (
            [1] if step == 1 else [2, 3]
        )
    canary = folder("canary") / "made"
    for checkpoint in ckpt.glob("checkpoint-*"):
        plant(checkpoint, canary)
    found = stages[kind](folder("resumed"), make_bench(kind, ckpt=ckpt))
    assert largest_difference(expected.path, found.path) == 0.0 and not canary.exists()


def test_a_training_that_was_stopped_after_its_last_step_has_nothing_left_to_do(stages, whole, make_bench, folder, monkeypatch):
    expected, metrics = whole("dpo")
    last, ckpt = metrics[-1]["step"], folder("ckpt")
    stopped = make_bench("dpo", ckpt=ckpt)
    object.__setattr__(stopped, "stop_asked", lambda: [m["step"] for m in stopped.reporter.metrics][-1:] == [last])
    with pytest.raises(Stopped):
        stages["dpo"](folder("stopped"), stopped)
    monkeypatch.setattr(Dpo, "train", None)
    bench = make_bench("dpo", ckpt=ckpt)
    found = stages["dpo"](folder("resumed"), bench)
    assert bench.reporter.metrics == []
    assert largest_difference(expected.path, found.path) == 0.0
    assert found.report() == expected.report()
