"""Rewards, advantages and losses together: nothing outside the mask is read, and TRL 1.12 finds the same numbers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lite.objectives.masks import standardize
from lite.objectives.ppo import KL, explained_variance, gae, policy_loss, shape_rewards, value_loss

NAN = float("nan")
SCALES = [(1.0, 1.0), (1.0, 0.95), (0.9, 0.5), (0.0, 1.0), (1.0, 0.0)]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=9), st.integers(0, 2**31), st.sampled_from(SCALES))
def test_padding_changes_nothing(mask, seed, scales):
    """Any response, with anything between and around its tokens: the same advantages, losses and gradients as without it."""
    keep, n = torch.tensor([mask]), sum(mask)
    dice = torch.Generator().manual_seed(seed)
    tight, padded = [], []
    for _ in range(4):
        entries = torch.randn(1, n, generator=dice)
        tight.append(entries)
        padded.append(torch.full((1, len(mask)), NAN).masked_scatter(keep, entries))
    results = []
    for (logp, old, values, kl), k in ((tight, torch.ones(1, n, dtype=torch.bool)), (padded, keep)):
        logp, v = logp.clone().requires_grad_(), values.clone().requires_grad_()
        rewards = standardize(shape_rewards(torch.ones(1), kl, k, kl_coef=0.1), k, center=False)
        advantages, returns = gae(rewards, values, k, gamma=scales[0], lam=scales[1])
        policy = policy_loss(logp, old, standardize(advantages, k, center=True), k, clip=0.2, total=k.sum())
        value = value_loss(v, old, returns, k, clip=0.2, total=k.sum())
        (policy.loss + value.loss).backward()
        explained = explained_variance(values, returns, k).nan_to_num()
        results.append([advantages[k], returns[k], logp.grad[k], v.grad[k], *policy, *value, explained])
        assert not advantages[~k].any()
        assert not logp.grad[~k].any()
        assert not v.grad[~k].any()
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("estimator", ["k1", "k3"])
@pytest.mark.parametrize(("gamma", "lam"), SCALES)
def test_a_whole_step_agrees_with_trl(trl_ppo, table, estimator, gamma, lam):
    """TRL's step over unpadded responses, its arithmetic restated, its masked functions called.

    Unpadded, because TRL pays KL and puts the score one position after the last token of a short response.
    """
    keep = torch.ones(5, 6, dtype=torch.bool)
    old, ref, values, logp, new_values = (table(5, 6, seed=i) * 0.3 for i in range(5))
    scores = table(5, seed=5)

    logr = ref - old
    non_score = -0.05 * (-logr if estimator == "k1" else (logr.exp() - 1) - logr)
    rewards = non_score.clone()
    rewards[torch.arange(5), 5] += scores
    rewards = trl_ppo.masked_whiten(rewards, keep, shift_mean=False)
    last, columns = 0.0, []
    for t in reversed(range(6)):
        following = values[:, t + 1] if t < 5 else 0.0
        last = rewards[:, t] + gamma * following - values[:, t] + gamma * lam * last
        columns.append(last)
    advantages = torch.stack(columns[::-1], dim=1)
    returns = advantages + values
    advantages = trl_ppo.masked_whiten(advantages, keep)
    ratio = (logp - old).exp()
    policy = torch.max(-advantages * ratio, -advantages * torch.clamp(ratio, 0.8, 1.2))
    near = torch.clamp(new_values, values - 0.2, values + 0.2)
    value = torch.max((new_values - returns) ** 2, (near - returns) ** 2)

    n = 30
    mean = shape_rewards(scores, KL[estimator](old, ref), keep, kl_coef=0.05)
    bessel = ((n - 1) / n) ** 0.5  # TRL's variance divides by n - 1
    ours = (standardize(mean, keep, center=False) - mean.mean()) * bessel + mean.mean()
    raw, our_returns = gae(ours, values, keep, gamma=gamma, lam=lam)
    our_advantages = standardize(raw, keep, center=True) * bessel
    assert torch.allclose(our_returns, returns, atol=1e-5)
    assert torch.allclose(our_advantages, advantages, atol=1e-5)
    ours_policy = policy_loss(logp, old, our_advantages, keep, clip=0.2, total=n)
    ours_value = value_loss(new_values, values, our_returns, keep, clip=0.2, total=n)
    assert ours_policy.loss == pytest.approx(trl_ppo.masked_mean(policy, keep).item(), abs=1e-5)
    assert ours_value.loss == pytest.approx(0.5 * trl_ppo.masked_mean(value, keep).item(), abs=1e-5)
    cut = (-advantages * torch.clamp(ratio, 0.8, 1.2) > -advantages * ratio).float()
    assert ours_policy.clip_fraction == pytest.approx(trl_ppo.masked_mean(cut, keep).item(), abs=1e-6)
    moved = ((near - returns) ** 2 > (new_values - returns) ** 2).float()
    assert ours_value.clip_fraction == pytest.approx(trl_ppo.masked_mean(moved, keep).item(), abs=1e-6)
