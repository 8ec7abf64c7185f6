import math

import pytest
import torch

from lite.objectives.masks import kept, row_sums
from lite.objectives.ppo import KL, gae, kl_clamped, kl_k1, kl_k3, shape_rewards

NAN = float("nan")


def test_kl_estimators_by_hand():
    logp, ref = torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -1.0])
    assert kl_k1(logp, ref).tolist() == [0.5, -1.0]
    assert kl_clamped(logp, ref).tolist() == [0.5, 0.0]
    assert kl_k3(logp, ref).tolist() == pytest.approx([math.exp(-0.5) - 1 + 0.5, math.exp(1) - 1 - 1])
    assert set(KL) == {"clamped", "k1", "k3"}


def test_which_estimators_are_unbiased(table):
    """Expectations under the policy, computed exactly by summing over the vocabulary."""
    policy, ref = table(11).log_softmax(-1), table(11, seed=1).log_softmax(-1)
    exact = torch.nn.functional.kl_div(ref, policy, log_target=True, reduction="sum")  # KL(policy || reference)
    expectation = {name: (policy.exp() * estimator(policy, ref)).sum().item() for name, estimator in KL.items()}
    assert expectation["k1"] == pytest.approx(exact.item(), rel=1e-5)
    assert expectation["k3"] == pytest.approx(exact.item(), rel=1e-5)
    bias = (policy.exp() * (ref - policy).clamp(min=0)).sum().item()
    assert bias > 0.1
    assert expectation["clamped"] == pytest.approx(exact.item() + bias, rel=1e-5)
    assert (kl_k3(policy, ref) >= 0).all()
    assert (kl_clamped(policy, ref) >= 0).all()
    assert (kl_k1(policy, ref) < 0).any()


def test_near_the_reference_k3_is_the_quieter_of_the_unbiased(table):
    policy = table(11).log_softmax(-1)
    ref = (policy + 0.1 * table(11, seed=1)).log_softmax(-1)
    noise = [(policy.exp() * estimator(policy, ref) ** 2).sum() for estimator in (kl_k3, kl_k1)]  # same mean: compare second moments
    assert noise[0] < 0.1 * noise[1]


def test_no_distance_no_kl(table):
    logp = table(3, 4)
    assert not any(estimator(logp, logp.clone()).any() for estimator in KL.values())


def test_rewards_by_hand():
    keep = torch.tensor([[True, True, False], [True, False, False]])
    rewards = shape_rewards(torch.tensor([5.0, -1.0]), torch.tensor([[1.0, 2.0, NAN], [3.0, NAN, NAN]]), keep, kl_coef=0.1)
    assert torch.allclose(rewards, torch.tensor([[-0.1, 5 - 0.2, 0.0], [-1 - 0.3, 0.0, 0.0]]))


def test_a_row_earns_its_score_and_pays_its_kl(table, keep):
    scores, kl = table(4), table(4, 7, seed=1)
    rewards = shape_rewards(scores, kl, keep, kl_coef=0.05)
    assert torch.allclose(rewards.sum(1), scores - 0.05 * row_sums(kl, keep), atol=1e-6)
    assert not rewards[~keep].any()


def test_an_empty_row_earns_nothing():
    assert not shape_rewards(torch.tensor([9.0]), torch.ones(1, 3), torch.zeros(1, 3, dtype=torch.bool), kl_coef=1.0).any()


def test_two_tokens_by_hand():
    # V = 3, 1; r = 1, 2; gamma = lam = .5
    # d1 = 2 + 0 - 1 = 1;  d0 = 1 + .5 * 1 - 3 = -1.5;  A1 = 1;  A0 = -1.5 + .25 * 1 = -1.25
    advantages, returns = gae(
        torch.tensor([[1.0, 2.0, NAN]]), torch.tensor([[3.0, 1.0, NAN]]), torch.tensor([[True, True, False]]), gamma=0.5, lam=0.5
    )
    assert advantages.tolist() == [[-1.25, 1.0, 0.0]]
    assert returns.tolist() == [[1.75, 2.0, 0.0]]


def test_with_lam_one_returns_are_the_sum_of_rewards_to_come(table, keep):
    rewards, values = table(4, 7), table(4, 7, seed=1)
    _, returns = gae(rewards, values, keep, gamma=1.0, lam=1.0)
    to_come = kept(rewards, keep).flip(-1).cumsum(-1).flip(-1)
    assert torch.allclose(returns, kept(to_come, keep), atol=1e-5)


def test_with_lam_zero_the_advantage_is_the_error_of_one_step(table):
    rewards, values, keep = table(2, 5), table(2, 5, seed=1), torch.ones(2, 5, dtype=torch.bool)
    advantages, _ = gae(rewards, values, keep, gamma=0.9, lam=0.0)
    following = torch.cat([values[:, 1:], torch.zeros(2, 1)], dim=1)
    assert torch.allclose(advantages, rewards + 0.9 * following - values)


def test_with_gamma_zero_only_the_present_counts(table, keep):
    rewards, values = table(4, 7), table(4, 7, seed=1)
    advantages, returns = gae(rewards, values, keep, gamma=0.0, lam=0.95)
    assert torch.allclose(advantages, kept(rewards - values, keep))
    assert torch.allclose(returns, kept(rewards, keep), atol=1e-6)


def test_true_values_leave_no_advantage(table, keep):
    rewards = table(4, 7)
    to_come = kept(rewards, keep).flip(-1).cumsum(-1).flip(-1)
    advantages, _ = gae(rewards, to_come, keep, gamma=1.0, lam=0.95)
    assert torch.allclose(advantages, torch.zeros(4, 7), atol=1e-5)


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 1.0), (1.0, 0.95), (0.9, 0.5), (0.0, 1.0), (1.0, 0.0)])
def test_advantages_are_the_double_sum_of_the_paper(table, keep, gamma, lam):
    """A_t = sum_k (gamma lam)^k delta_{t+k}, row by row over Python lists of the kept tokens."""
    rewards, values = table(4, 7), table(4, 7, seed=1)
    advantages, _ = gae(rewards, values, keep, gamma=gamma, lam=lam)
    for row in range(4):
        r, v = rewards[row][keep[row]].tolist(), [*values[row][keep[row]].tolist(), 0.0]
        deltas = [r[t] + gamma * v[t + 1] - v[t] for t in range(len(r))]
        expected = [sum((gamma * lam) ** (k - t) * deltas[k] for k in range(t, len(r))) for t in range(len(r))]
        assert advantages[row][keep[row]].tolist() == pytest.approx(expected, abs=1e-5)
