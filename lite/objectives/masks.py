"""Reductions over the entries that count.

One mask, one polarity: ``keep`` is bool and True means that the entry counts. What lies outside the mask is never read, so it may
be anything, NaN included. Sums run in fp32 whatever the dtype of the input (float64 stays float64).
"""

import torch
from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """``x`` in fp32, or in float64 where it has that already."""
    return x if x.dtype == torch.float64 else x.float()


def kept(x: Tensor, keep: Tensor) -> Tensor:
    """``x`` where kept and 0 elsewhere, in fp32; its gradient is 0 elsewhere too, even where ``x`` is NaN.

    x: any shape     keep: the same shape, bool (a mask that would have to broadcast is a mistake)
    """
    if x.shape != keep.shape:
        raise ValueError(f"keep has shape {tuple(keep.shape)}, its tensor has {tuple(x.shape)}")
    return torch.where(keep, wide(x), 0.0)


def masked_sum(x: Tensor, keep: Tensor) -> Tensor:
    """Sum of the kept entries, (); 0 if none is kept."""
    return kept(x, keep).sum()


def row_sums(x: Tensor, keep: Tensor) -> Tensor:
    """Sum of the kept entries of each row: (B, T) -> (B,)."""
    return kept(x, keep).sum(dim=-1)


def share(x: Tensor, keep: Tensor, total: Tensor | float) -> Tensor:
    """This part's share of a mean over ``total`` kept entries, (): the shares of all parts add up to the mean; 0 if ``total`` is 0."""
    return masked_sum(x, keep) / torch.as_tensor(total).clamp(min=1)


def masked_mean(x: Tensor, keep: Tensor) -> Tensor:
    """Mean of the kept entries, (); 0 if none is kept."""
    return share(x, keep, keep.sum())


def masked_var(x: Tensor, keep: Tensor) -> Tensor:
    """Population variance of the kept entries (divided by n, not n - 1), (); 0 if fewer than two are kept."""
    return masked_mean(centered(x, keep) ** 2, keep)


def centered(x: Tensor, keep: Tensor) -> Tensor:
    """The kept entries minus their mean, zero elsewhere.

    The mean is taken out twice: the rounding error of the first would else look like spread when a constant is far from 0.
    """
    once = kept(kept(x, keep) - masked_mean(x, keep), keep)
    return kept(once - masked_mean(once, keep), keep)


def standardize(x: Tensor, keep: Tensor, *, center: bool) -> Tensor:
    """Unit variance over kept entries, zero elsewhere; zero mean too if ``center``, else the mean stays as it was.

        z = (x - mean) / sqrt(var + 1e-8)  [+ mean]

    Entries without spread (one, or all equal) have z = 0 [+ mean]: no division by zero, no NaN.
    """
    z = centered(x, keep) * (masked_var(x, keep) + 1e-8).rsqrt()
    return z if center else kept(z + masked_mean(x, keep), keep)


def at_last(keep: Tensor) -> Tensor:
    """True at the last kept position of each row and nowhere else; a row without kept positions has none. (B, T) -> (B, T) bool"""
    still_to_come = keep.flip(-1).cumsum(-1).flip(-1)
    return keep & (still_to_come == 1)


def scatter_kept(flat: Tensor, keep: Tensor) -> Tensor:
    """The inverse of ``x[keep]``: (N,) -> the shape of ``keep``, zero outside it; differentiable."""
    if flat.shape != (n := int(keep.sum()),):
        raise ValueError(f"{n} positions are kept, the values have shape {tuple(flat.shape)}")
    return torch.zeros(keep.shape, dtype=flat.dtype, device=flat.device).masked_scatter(keep, flat)
