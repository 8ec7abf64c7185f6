"""A loss, a gradient or a reward that is no number stops a training before the weights are touched (R13)."""

import json
from collections.abc import Callable
from itertools import count

import pytest
from safetensors.torch import load_file

from lite.model.optim import LossScale
from lite.model.trainers import Dpo
from lite.runs.checkpoints import Checkpoints
from lite.stages import ppo, reward, rollouts

STEP = 4
"""The step that goes wrong; there is a checkpoint of step 2."""


def spoilt(owner: object, name: str, spoil: Callable[..., object]) -> Callable[[], None]:
    """In a fork: from its call number ``STEP`` on, what a function gives is spoilt; ``spoil`` gets it and the arguments."""

    def disturb() -> None:
        function, calls = getattr(owner, name), count(1)

        def called(*words: object, **named: object) -> object:
            found = function(*words, **named)
            return spoil(found, *words) if next(calls) >= STEP else found

        setattr(owner, name, called)

    return disturb


def nan_of(found, *_):
    return found * float("nan")


def infinite_gradient(found, scale, parameters):
    next(p for p in parameters if p.grad is not None).grad.fill_(float("inf"))


CASES = {
    "reward, loss": ("reward", spoilt(reward, "bradley_terry", nan_of)),
    "reward, gradient": ("reward", spoilt(LossScale, "unscale", infinite_gradient)),
    "dpo, loss": ("dpo", spoilt(Dpo, "mean_loss", nan_of)),
    "dpo, gradient": ("dpo", spoilt(LossScale, "unscale", infinite_gradient)),
    "ppo, loss": ("ppo", spoilt(ppo, "policy_loss", lambda found, *_: found._replace(loss=found.loss * float("nan")))),
    "ppo, gradient": ("ppo", spoilt(LossScale, "unscale", infinite_gradient)),
    # the dev prompts of step 2 are scored too, so the fourth call is step 3
    "ppo, reward": ("ppo", spoilt(rollouts, "score_rows", lambda found, *_: found._replace(rewards=nan_of(found.rewards)))),
}


@pytest.mark.parametrize("case", CASES)
def test_a_figure_that_is_no_number_stops_the_run_at_its_step(lab, tmp_path, case):
    stage, disturb = CASES[case]
    step = STEP - 1 if case == "ppo, reward" else STEP
    runs = lab.before(stage, tmp_path / "runs")
    assert lab.live(runs, disturb=disturb) == 4
    run = lab.run(runs)
    assert run.state == "diverged"
    assert any(word in run.facts["error"] for word in ("nan", "inf", "not finite"))
    assert f"step {step}" in run.facts["error"]
    folder = lab.stage(runs, stage)
    told = [json.loads(line, parse_constant=pytest.fail) for line in folder.metrics.read_text().splitlines()]
    assert sorted({line["step"] for line in told}) == list(range(1, step))
    assert all(line.get("loss") != 0 and line.get("grad_norm") != 0 for line in told)
    kept, problems = Checkpoints(folder.ckpt).newest()
    assert (kept.step, problems) == (2, [])
    if stage != "reward":
        assert all(bool(t.isfinite().all()) for t in load_file(folder.ckpt / "last-good" / "adapter_model.safetensors").values())
    assert not folder.out.exists()
