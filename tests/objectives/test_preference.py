import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lite.objectives.preference import bradley_terry, center_penalty, other_order, preference_probability


def test_by_hand():
    chosen, rejected = torch.tensor([2.0, 0.0, 1.0]), torch.tensor([1.0, 0.0, 3.0])
    label = torch.tensor([1.0, 1.0, 0.75])
    by_hand = [
        math.log1p(math.exp(-1)),  # -log sigmoid(1)
        math.log(2),  # -log sigmoid(0)
        0.75 * math.log1p(math.exp(2)) + 0.25 * math.log1p(math.exp(-2)),  # d = -2
    ]
    assert bradley_terry(chosen, rejected, label).tolist() == pytest.approx(by_hand, rel=1e-6)
    assert preference_probability(chosen, rejected).tolist() == pytest.approx([0.7310586, 0.5, 0.1192029])


def test_the_gradient_is_the_probability_minus_the_label():
    chosen, rejected = torch.tensor([2.0, -1.0], requires_grad=True), torch.tensor([1.5, 1.0], requires_grad=True)
    label = torch.tensor([1.0, 0.3])
    to_chosen, to_rejected = torch.autograd.grad(bradley_terry(chosen, rejected, label).sum(), (chosen, rejected))
    expected = torch.sigmoid(torch.tensor([0.5, -2.0])) - label
    assert torch.allclose(to_chosen, expected)
    assert torch.allclose(to_rejected, -expected)


def test_a_hard_label_is_trl_and_torch(table):
    chosen, rejected = table(9), table(9, seed=1)
    expected = -torch.nn.functional.logsigmoid(chosen - rejected)  # TRL's RewardTrainer, which knows hard labels only
    assert torch.allclose(bradley_terry(chosen, rejected, torch.ones(9)), expected)


@given(st.floats(-30, 30), st.floats(-30, 30), st.floats(0, 1))
def test_swapping_a_pair_and_its_label_changes_nothing(a, b, label):
    one = bradley_terry(torch.tensor([a]), torch.tensor([b]), torch.tensor([label]))
    other = bradley_terry(torch.tensor([b]), torch.tensor([a]), torch.tensor([1 - label]))
    assert torch.allclose(one, other, atol=1e-5)


def test_an_undecided_label_is_symmetric_and_best_at_equality():
    d = torch.linspace(-4, 4, 9)
    losses = bradley_terry(d, torch.zeros(9), torch.full((9,), 0.5))
    assert torch.allclose(losses, losses.flip(0))
    assert losses.argmin() == 4


def test_a_soft_label_is_lowest_where_the_model_says_the_same():
    d = torch.logit(torch.tensor(0.8)) + torch.tensor([-0.1, 0.0, 0.1])
    assert bradley_terry(d, torch.zeros(3), torch.full((3,), 0.8)).argmin() == 1


def test_extreme_rewards_stay_finite():
    losses = bradley_terry(torch.tensor([1e4, -1e4]), torch.tensor([-1e4, 1e4]), torch.ones(2))
    assert losses.tolist() == [0, 2e4]


def test_bf16_rewards_are_compared_in_fp32():
    losses = bradley_terry(torch.tensor([3.0], dtype=torch.bfloat16), torch.tensor([0.01], dtype=torch.bfloat16), torch.ones(1))
    rejected = torch.tensor(0.01, dtype=torch.bfloat16).item()
    assert losses.dtype == torch.float32
    assert losses.item() == pytest.approx(math.log1p(math.exp(rejected - 3)), rel=1e-6)  # bf16 would say exp(-3)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="Target size"):
        bradley_terry(torch.ones(3, 1), torch.ones(3), torch.ones(3))


def test_center_penalty_by_hand():
    assert center_penalty(torch.tensor([2.0, -1.0]), torch.tensor([1.0, 1.0])).tolist() == [9, 0]  # (2 + 1)^2, (-1 + 1)^2


@pytest.mark.parametrize(("margin", "label"), [(0.0, 0.6), (2.0, 0.75), (-1.5, 0.5), (3.0, 1.0)])
def test_a_soft_label_mixes_both_orders_of_dpo(margin, label):
    """-log sigmoid(m) = log(1 + exp(-m)), by hand for the pair and for the pair turned round."""
    as_it_stands, turned = math.log1p(math.exp(-margin)), math.log1p(math.exp(margin))
    found = as_it_stands + float(other_order(torch.tensor([margin]), torch.tensor([label])))
    assert found == pytest.approx(label * as_it_stands + (1 - label) * turned, rel=1e-6)
