"""Ours and the old loop shape compute the same step: an independent reference for scores, losses and gradients."""

import pytest

from benchmarks import ppo_step
from benchmarks.ppo_sides import Size, old, orders, ours
from benchmarks.random_base import TINY, write_base

SIZE = Size(shape=TINY, rollouts=6, minibatch=4, prompt_tokens=9, response_tokens=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base"), TINY)


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("value", ["separate", "joint"])
def test_scores_losses_and_gradients_agree(folder, value, ragged):
    found = ppo_step.differences(folder, SIZE, value, ragged=ragged)
    assert max(found.values()) <= ppo_step.TOLERANCE, found


def test_both_sides_take_a_whole_step(folder):
    trainer = ours(folder, SIZE)
    figures = trainer.step(0)
    assert figures["response_tokens"] == SIZE.response_tokens and figures["ratio_first"] == 1
    loop = old(folder, trainer)
    before = [p.detach().clone() for p in loop.policy_parameters]
    loop.step(SIZE.prompts(), orders(trainer, 1), seed=0)
    assert any((p != q).any() for p, q in zip(before, loop.policy_parameters, strict=True))
