"""Learning rates by hand, and a gradient that is not finite stops before the weights move."""

import math

import pytest
import torch
from torch import nn

from lite.errors import DivergedError
from lite.knobs import BaseSpec, LoraSpec
from lite.model.bank import AdapterBank
from lite.model.base import load_base
from lite.model.forward import collate, hidden_states, response_logprobs
from lite.model.optim import LossScale, adamw, clip_and_check, set_rate, warmup_cosine, warmup_linear


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


# -- fp16 ------------------------------------------------------------------------------------------------------------------------


def test_small_gradients_survive_a_base_in_fp16_only_with_the_scale(pico_base, rows):
    """A term that counts for one in 10^8, as small advantages in a large minibatch do, against the same term that counts for 1."""
    bank = AdapterBank(load_base(BaseSpec(model=str(pico_base), device="cpu", dtype="float16")))
    bank.add("policy", LoraSpec(r=4, alpha=8), seed=1)
    batch = collate(rows, pad_id=bank.base.pad_id, device=bank.base.device)

    def gradient(share: float, *, scaled: bool) -> torch.Tensor:
        scale = LossScale(bank.vocabulary.dtype)
        with bank.using("policy", training=True) as trunk:
            loss = response_logprobs(hidden_states(trunk, batch), bank.vocabulary, batch).logp.sum() * share
            scale.backward(loss) if scaled else loss.backward()
        if scaled:
            scale.unscale(bank.parameters("policy"))
        found = torch.cat([p.grad.flatten() for p in bank.parameters("policy") if p.grad is not None])
        for p in bank.parameters("policy"):
            p.grad = None
        return found

    exact = gradient(1.0, scaled=False) * 1e-8
    with_scale, without = gradient(1e-8, scaled=True), gradient(1e-8, scaled=False)
    assert float((with_scale - exact).norm() / exact.norm()) < 0.05
    assert float((without - exact).norm() / exact.norm()) > 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_types_are_not_scaled(dtype):
    a, scale = parameter(2.0), LossScale(dtype)
    scale.backward(a.sum() * 3e-9)
    exact = a.grad.clone()
    scale.unscale([a])
    assert torch.equal(a.grad, exact)
    assert a.grad.item() == torch.tensor(3e-9).item()
    a.grad.fill_(math.inf)
    scale.unscale([a])
    assert (scale.value, a.grad.item()) == (1, math.inf)  # what is not finite is refused by the clipping, as ever


def test_an_overflow_leaves_the_weights_alone_and_halves_the_scale():
    a, b, scale = parameter(1.0), parameter(2.0), LossScale(torch.float16)
    optimizer = adamw([([a, b], 1e-2)])
    a.grad, b.grad = torch.tensor([1.0]), torch.tensor([math.inf])
    scale.unscale([a, b])
    assert clip_and_check([a, b], 1.0, "here") == 0
    optimizer.step()
    assert (a.item(), b.item()) == (1, 2)
    assert (scale.value, not optimizer.state) == (LossScale.FIRST / 2, True)
    scale.backward((a * 3 + b * 4).sum())
    scale.unscale([a, b])
    assert clip_and_check([a, b], 1.0, "here") == pytest.approx(5)
    optimizer.step()
    assert a.item() == pytest.approx(0.99)


def test_a_gradient_that_is_never_finite_is_refused_in_the_end():
    a, scale = parameter(1.0), LossScale(torch.float16)
    for _ in range(16):
        a.grad = torch.tensor([math.nan])
        scale.unscale([a])
        assert a.grad is None
    a.grad = torch.tensor([math.nan])
    scale.unscale([a])
    with pytest.raises(DivergedError, match="the gradient is nan"):
        clip_and_check([a], 1.0, "here")


def test_the_scale_grows_again():
    a, scale = parameter(1.0), LossScale(torch.float16)
    for _ in range(LossScale.GROW_AFTER):
        a.grad = torch.tensor([1.0])
        scale.unscale([a])
    assert scale.value == 2 * LossScale.FIRST


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
