"""Learning rates by hand, and a gradient that is not finite stops before the weights move."""

import math

import pytest
import torch
from torch import nn

from lite.errors import DivergedError
from lite.model.optim import adamw, clip_and_check, set_rate, warmup_cosine, warmup_linear


def parameter(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values))


def test_warmup_and_cosine_by_hand():
    rates = [warmup_cosine(step, 10, 2) for step in range(11)]
    assert rates[:3] == pytest.approx([1 / 3, 2 / 3, 1])
    assert rates[6] == pytest.approx(0.5)  # halfway through the decay
    assert rates[10] == pytest.approx(0)
    assert rates[4] == pytest.approx(0.5 * (1 + math.sqrt(0.5)))  # a quarter of the way: cos(pi/4)


def test_warmup_and_linear_decay_by_hand():
    assert [warmup_linear(step, 6, 2) for step in range(7)] == pytest.approx([1 / 3, 2 / 3, 1, 3 / 4, 2 / 4, 1 / 4, 0])
    assert [warmup_linear(step, 4, 0) for step in range(4)] == pytest.approx([1, 3 / 4, 2 / 4, 1 / 4])


@pytest.mark.parametrize("rate", [warmup_cosine, warmup_linear])
@pytest.mark.parametrize(("total", "warmup"), [(1, 0), (1, 5), (2, 2), (80, 5), (100, 3)])
def test_no_step_has_no_rate(rate, total, warmup):
    found = [rate(step, total, warmup) for step in range(total)]
    assert all(0 < r <= 1 for r in found)
    top = found.index(max(found))
    assert found[: top + 1] == sorted(found[: top + 1])
    assert found[top:] == sorted(found[top:], reverse=True)


def test_rates_are_a_share_of_each_groups_own():
    a, b = parameter(1.0), parameter(1.0)
    optimizer = adamw([([a], 1e-2), ([b], 1e-3)])
    for factor in (1.0, 0.5, 0.25):  # not compounded
        set_rate(optimizer, factor)
        assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([1e-2 * factor, 1e-3 * factor])


def test_the_first_step_of_adam_by_hand():
    """m / sqrt(v) of a first step is the gradient's sign (Kingma & Ba 2015): each weight moves by its rate, after the decay."""
    a, b = parameter(1.0, 1.0), parameter(1.0)
    optimizer = adamw([([a], 1e-2), ([b], 1e-3)], eps=1e-12, weight_decay=0.1)
    a.grad, b.grad = torch.tensor([3.0, -0.5]), torch.tensor([7.0])
    optimizer.step()
    assert a.tolist() == pytest.approx([1 * (1 - 1e-3) - 1e-2, 1 * (1 - 1e-3) + 1e-2], rel=1e-6)
    assert b.tolist() == pytest.approx([1 * (1 - 1e-4) - 1e-3], rel=1e-6)


def test_eps_reaches_the_optimiser():
    a = parameter(0.0)
    optimizer = adamw([([a], 1.0)], eps=1.0)
    a.grad = torch.tensor([1.0])
    optimizer.step()
    assert a.item() == pytest.approx(-0.5)  # 1 / (1 + eps)


def test_clipping_by_hand():
    a, b = parameter(0.0), parameter(0.0)
    a.grad, b.grad = torch.tensor([3.0]), torch.tensor([4.0])
    assert clip_and_check([a, b], 1.0, "here") == pytest.approx(5)
    assert (a.grad.item(), b.grad.item()) == pytest.approx((0.6, 0.8), rel=1e-5)
    assert clip_and_check(iter([a, b]), 2.0, "here") == pytest.approx(1, rel=1e-5)
    assert (a.grad.item(), b.grad.item()) == pytest.approx((0.6, 0.8), rel=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_stops_before_the_weights_move(bad):
    a, b = parameter(1.0), parameter(2.0)
    optimizer = adamw([([a, b], 1e-2)])
    a.grad, b.grad = torch.tensor([1.0]), torch.tensor([bad])
    with pytest.raises(DivergedError, match=r"ppo step 3: the gradient is (nan|inf); lower the learning rate"):
        clip_and_check([a, b], 1.0, "ppo step 3")
    assert (a.item(), b.item()) == (1.0, 2.0)
    assert not optimizer.state


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_it_is_8_bit_adam_and_moves_weights():
    a, head = nn.Parameter(torch.ones(128, 64, device="cuda")), nn.Parameter(torch.ones(1, 64, device="cuda"))
    optimizer = adamw([([a], 1e-2), ([head], 1e-2)])
    assert type(optimizer).__name__ == "PagedAdamW8bit"
    a.grad, head.grad = torch.ones_like(a), torch.ones_like(head)
    optimizer.step()
    assert a.detach().mean().item() == pytest.approx(0.99, rel=1e-2)
    assert head.detach().mean().item() == pytest.approx(0.99, rel=1e-2)
    assert optimizer.state[a]["state1"].dtype == torch.uint8
    assert optimizer.state[head]["state1"].dtype == torch.float32
