import math

import pytest
import torch

from lite.objectives.masks import kept, masked_mean
from lite.objectives.ppo import explained_variance, gae, policy_loss, value_loss

NAN = float("nan")


def test_policy_loss_by_hand():
    ratio = torch.tensor([[1.5, 1.5, 0.5, 0.5, NAN]])
    advantages = torch.tensor([[2.0, -2.0, 2.0, -2.0, NAN]])
    keep = torch.tensor([[True, True, True, True, False]])
    terms = policy_loss(ratio.log(), torch.zeros(1, 5), advantages, keep, clip=0.2, total=4)
    # max(-3, -2.4) = -2.4 (clipped)   max(3, 2.4) = 3   max(-1, -1.6) = -1   max(1, 1.6) = 1.6 (clipped)
    assert terms.loss == pytest.approx((-2.4 + 3 - 1 + 1.6) / 4)
    assert terms.clip_fraction == 0.5
    assert terms.ratio_mean == pytest.approx(1.0)
    assert terms.ratio_max == pytest.approx(1.5)
    assert terms.approx_kl == pytest.approx((0.5 - math.log(1.5) - 0.5 - math.log(0.5)) / 2)  # mean of ratio - 1 - log ratio


def test_at_ratio_one_the_loss_is_minus_the_mean_advantage(table, keep):
    logp, advantages = table(4, 7).requires_grad_(), table(4, 7, seed=1)
    terms = policy_loss(logp, logp.detach(), advantages, keep, clip=0.2, total=keep.sum())
    terms.loss.backward()
    assert terms.loss.item() == pytest.approx(-masked_mean(advantages, keep).item(), abs=1e-6)
    assert (terms.clip_fraction, terms.approx_kl, terms.ratio_mean, terms.ratio_max) == (0, 0, 1, 1)
    assert torch.allclose(logp.grad, -kept(advantages, keep) / keep.sum(), atol=1e-7)  # the plain policy gradient


def test_the_clip_cuts_the_gradient_where_it_says():
    logp = torch.tensor([[1.5, 1.5, 0.5, 0.5]]).log().requires_grad_()
    policy_loss(logp, torch.zeros(1, 4), torch.tensor([[2.0, -2.0, 2.0, -2.0]]), torch.ones(1, 4).bool(), clip=0.2, total=4).loss.backward()
    assert logp.grad is not None
    assert logp.grad.tolist()[0] == pytest.approx([0, 0.75, -0.25, 0])  # -A * ratio / 4, or nothing


def test_value_loss_by_hand():
    values, old, returns = torch.tensor([[1.0, 0.1, 2.0, NAN]]), torch.zeros(1, 4), torch.tensor([[1.0, 1.0, -1.0, NAN]])
    keep = torch.tensor([[True, True, True, False]])
    # clipped V: .2 .1 .2    free: 0 .81 9    clipped: .64 .81 1.44    max: .64 .81 9
    terms = value_loss(values, old, returns, keep, clip=0.2, total=3)
    assert terms.loss == pytest.approx((0.64 + 0.81 + 9) / 3 / 2)
    assert terms.clip_fraction == pytest.approx(1 / 3)


def test_an_unclipped_value_loss_is_half_the_squared_error(table, keep):
    values, returns = table(4, 7).requires_grad_(), table(4, 7, seed=1)
    terms = value_loss(values, table(4, 7, seed=2), returns, keep, clip=float("inf"), total=keep.sum())
    assert torch.allclose(terms.loss, torch.nn.functional.mse_loss(values[keep], returns[keep]) / 2)
    assert terms.clip_fraction == 0


def test_only_the_losses_carry_a_gradient(table, keep):
    x = table(4, 7).requires_grad_()
    for terms in (
        policy_loss(x, table(4, 7, seed=1), table(4, 7, seed=2), keep, clip=0.2, total=1.0),
        value_loss(x, table(4, 7, seed=1), table(4, 7, seed=2), keep, clip=0.2, total=1.0),
    ):
        assert [t.requires_grad for t in terms] == [True] + [False] * (len(terms) - 1)


@pytest.mark.parametrize("total", ["tensor", "int"])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_micro_batches_add_up_to_the_minibatch(table, keep, size, total):
    logp, old, advantages, returns = (table(4, 7, seed=i) for i in range(4))
    count = keep.sum() if total == "tensor" else int(keep.sum())

    def run(step):
        x, sums, largest = logp.clone().requires_grad_(), torch.zeros(6), 0.0
        for i in range(0, 4, step):
            rows = slice(i, i + step)
            policy = policy_loss(x[rows], old[rows], advantages[rows], keep[rows], clip=0.2, total=count)
            value = value_loss(x[rows], old[rows], returns[rows], keep[rows], clip=0.2, total=count)
            policy.loss.backward()
            value.loss.backward()
            sums += torch.stack([*policy[:4], *value]).detach()
            largest = max(largest, policy.ratio_max.item())
        return x.grad, sums, largest

    whole, parts = run(4), run(size)
    assert torch.equal(parts[0], whole[0])  # identical, not close: every row's gradient is divided by the same number
    assert torch.allclose(parts[1], whole[1], atol=1e-6)
    assert parts[2] == whole[2]
    assert whole[2] > 1.2  # the clip is at work
    assert whole[1][1] > 0


def test_the_order_of_rows_changes_nothing(table, keep):
    order = torch.tensor([2, 0, 3, 1])
    a, b, c = (table(4, 7, seed=i) for i in range(3))
    for function, option in ((policy_loss, {"clip": 0.2, "total": 14}), (value_loss, {"clip": 0.2, "total": 14})):
        one, other = function(a, b, c, keep, **option), function(a[order], b[order], c[order], keep[order], **option)
        assert torch.allclose(torch.stack(one), torch.stack(other), atol=1e-6)
    one, other = gae(a, b, keep, gamma=1.0, lam=0.9), gae(a[order], b[order], keep[order], gamma=1.0, lam=0.9)
    assert torch.equal(one[0][order], other[0])
    assert torch.equal(one[1][order], other[1])


def test_a_micro_batch_of_nothing_adds_nothing(table):
    none, x = torch.zeros(2, 3, dtype=torch.bool), torch.full((2, 3), NAN, requires_grad=True)
    policy = policy_loss(x, x, x, none, clip=0.2, total=0)
    value = value_loss(x, x, x, none, clip=0.2, total=0)
    (policy.loss + value.loss).backward()
    assert not any(t.item() for t in (*policy, *value))
    assert x.grad is not None
    assert not x.grad.any()


def test_tables_never_broadcast(table):
    square, keep = table(3, 3), torch.ones(3, 3, dtype=torch.bool)
    for broken in ((square[0], square, square), (square, square[0], square), (square, square, square[0])):
        with pytest.raises(ValueError, match="keep has shape"):
            policy_loss(*broken, keep, clip=0.2, total=9)
        with pytest.raises(ValueError, match="keep has shape"):
            value_loss(*broken, keep, clip=0.2, total=9)
    with pytest.raises(ValueError, match="keep has shape"):
        gae(square, square[0], keep, gamma=1.0, lam=1.0)


def test_explained_variance(table, keep):
    returns = table(4, 7)
    assert explained_variance(returns, returns, keep) == 1
    assert explained_variance(returns + 3, returns, keep) == pytest.approx(1, abs=1e-5)  # a bias is no variance
    assert explained_variance(torch.full((4, 7), 3.0), returns, keep) == pytest.approx(0, abs=1e-5)
    assert explained_variance(-returns, returns, keep) == pytest.approx(-3, abs=1e-5)  # Var(2R) = 4 Var(R)
    assert math.isnan(explained_variance(returns, torch.full((4, 7), 0.1), keep))
