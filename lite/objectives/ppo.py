"""Proximal policy optimisation over responses: rewards per token, advantages, two losses.

Follows Ziegler et al. 2019, AlpacaFarm's PPO as RLCD used it, and Huang et al. 2024 ("N+ implementation details"), with one mask
everywhere: losses, whitening and figures count response tokens only.

Losses are sums over kept tokens divided by ``total``, the number of kept tokens of the whole minibatch. The losses, and every figure
named a mean or a fraction, therefore add up over micro-batches to those of the minibatch, and so do the gradients.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lite.objectives.masks import at_last, kept, masked_var, share

KlEstimator = Literal["clamped", "k1", "k3"]


def kl_k1(logp: Tensor, logp_ref: Tensor) -> Tensor:
    """logp - logp_ref, for tokens drawn from the policy: unbiased for KL(policy || reference), noisy, negative for some tokens."""
    return logp - logp_ref


def kl_clamped(logp: Tensor, logp_ref: Tensor) -> Tensor:
    """max(logp - logp_ref, 0), AlpacaFarm's and RLCD's: never negative, biased upwards by E[max(logp_ref - logp, 0)]."""
    return (logp - logp_ref).clamp(min=0)


def kl_k3(logp: Tensor, logp_ref: Tensor) -> Tensor:
    """exp(logp_ref - logp) - 1 - (logp_ref - logp): unbiased for KL(policy || reference), never negative, quiet near 0 (Schulman 2020)."""
    return torch.expm1(logp_ref - logp) - (logp_ref - logp)


KL: dict[KlEstimator, Callable[[Tensor, Tensor], Tensor]] = {"clamped": kl_clamped, "k1": kl_k1, "k3": kl_k3}
"""Estimators of the KL per token, by name: log-probs of policy and reference (B, T) -> (B, T)."""


def shape_rewards(scores: Tensor, kl: Tensor, keep: Tensor, *, kl_coef: float) -> Tensor:
    """The price of leaving the reference on every token, and the score on the last.

        r_t = -kl_coef * kl_t  +  score * [t is the last kept token]          (Ouyang et al. 2022, eq. 2)

    A row without kept tokens earns nothing. Whitening is the caller's choice: ``standardize(rewards, keep, center=False)``.

    scores: (B,)     kl: (B, T) per token     keep: (B, T) bool, True = response token     returns: (B, T), 0 off-mask
    """
    return kept(scores[:, None].expand(keep.shape), at_last(keep)) - kl_coef * kept(kl, keep)


def gae(rewards: Tensor, values: Tensor, keep: Tensor, *, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation over one response per row.

        delta_t = r_t + gamma * V_{t+1} - V_t
        A_t     = delta_t + gamma * lam * A_{t+1}          (Schulman et al. 2015, eq. 16)

    t + 1 is the next kept token; the value after the last one is 0: an episode ends at its last token.
    Advantages are raw; standardising them is the caller's choice.

    rewards, values: (B, T) float     keep: (B, T) bool, True = response token
    returns: advantages (B, T), returns (B, T) = advantages + values; both 0 off-mask
    """
    r, v = kept(rewards, keep), kept(values, keep)
    advantages = torch.zeros_like(v)
    next_value = next_advantage = v.new_zeros(len(v))
    for t in reversed(range(v.shape[1])):
        delta = r[:, t] + gamma * next_value - v[:, t]
        next_advantage = torch.where(keep[:, t], delta + gamma * lam * next_advantage, next_advantage)
        next_value = torch.where(keep[:, t], v[:, t], next_value)
        advantages[:, t] = next_advantage
    return kept(advantages, keep), kept(advantages + v, keep)


class PolicyTerms(NamedTuple):
    """Scalars; all but ``ratio_max`` add up over micro-batches. Only ``loss`` carries a gradient."""

    loss: Tensor
    clip_fraction: Tensor  # share of tokens whose gradient the clip cut off
    approx_kl: Tensor  # KL(old || new), k3: how far this update has gone
    ratio_mean: Tensor
    ratio_max: Tensor  # 0 if no token is kept


def policy_loss(logp: Tensor, old_logp: Tensor, advantages: Tensor, keep: Tensor, *, clip: float, total: Tensor | float) -> PolicyTerms:
    """The clipped surrogate, to be minimised.

        ratio = exp(logp - old_logp)
        loss  = 1/total * sum over kept of max(-A * ratio, -A * clamp(ratio, 1 - clip, 1 + clip))          (Schulman et al. 2017, eq. 7)

    logp, old_logp, advantages: (B, T)     keep: (B, T) bool     total: kept tokens of the whole minibatch (``keep.sum()`` if undivided)
    """
    log_ratio = kept(logp, keep) - kept(old_logp, keep)
    ratio = log_ratio.exp()
    advantages = kept(advantages, keep)
    free, clipped = -advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip)
    loss = share(torch.maximum(free, clipped), keep, total)
    with torch.no_grad():
        return PolicyTerms(
            loss=loss,
            clip_fraction=share(clipped > free, keep, total),
            approx_kl=share(torch.expm1(log_ratio) - log_ratio, keep, total),
            ratio_mean=share(ratio, keep, total),
            ratio_max=kept(ratio, keep).max() if ratio.numel() else ratio.new_zeros(()),
        )


class ValueTerms(NamedTuple):
    """Scalars that add up over micro-batches. Only ``loss`` carries a gradient."""

    loss: Tensor
    clip_fraction: Tensor  # share of tokens whose gradient the clip cut off


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, keep: Tensor, *, clip: float, total: Tensor | float) -> ValueTerms:
    """Half the squared error, kept from moving further than ``clip`` from the old value.

        clipped = clamp(V, V_old - clip, V_old + clip)
        loss    = 1/total * sum over kept of max((V - R)^2, (clipped - R)^2) / 2

    The value coefficient is the caller's.

    values, old_values, returns: (B, T)     keep: (B, T) bool     total: kept tokens of the whole minibatch (``keep.sum()`` if undivided)
    """
    v, old, target = kept(values, keep), kept(old_values, keep), kept(returns, keep)
    free, clipped = (v - target) ** 2, (v.clamp(old - clip, old + clip) - target) ** 2
    loss = share(torch.maximum(free, clipped), keep, total) / 2
    with torch.no_grad():
        return ValueTerms(loss=loss, clip_fraction=share(clipped > free, keep, total))


def explained_variance(values: Tensor, returns: Tensor, keep: Tensor) -> Tensor:
    """1 - Var(R - V) / Var(R) over kept entries, (): 1 is perfect, 0 is a constant's worth; NaN if the returns have no spread."""
    spread = masked_var(returns, keep)
    left = masked_var(kept(returns, keep) - kept(values, keep), keep)
    return torch.where(spread > 0, 1 - left / spread, torch.nan)
