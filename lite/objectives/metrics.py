"""How good a preference model is: agreement, calibration, correlation.

Every function gives a scalar tensor in fp32, and NaN where the question has no answer (no pairs, no spread): never a number that
looks like one.
"""

import torch
from torch import Tensor

from lite.objectives.masks import wide

UNDEFINED = float("nan")


def paired(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Two series of the same shape, in the same dtype, fp32 or wider."""
    if x.shape != y.shape:
        raise ValueError(f"the series have shapes {tuple(x.shape)} and {tuple(y.shape)}")
    dtype = torch.promote_types(wide(x).dtype, wide(y).dtype)
    return x.to(dtype), y.to(dtype)


def accuracy(difference: Tensor, label: Tensor) -> Tensor:
    """Share of pairs whose reward difference points the way of the label; a difference of 0 counts one half.

    Pairs labelled exactly 0.5 prefer nothing and are left out. A NaN among the rest makes the share NaN.

    difference: (N,) chosen - rejected     label: (N,) in [0, 1], the probability that ``chosen`` is preferred     returns: ()
    """
    difference, label = paired(difference, label)
    wanted = torch.sign(label - 0.5)
    agreement = torch.where(difference.isnan(), UNDEFINED, (torch.sign(difference) * wanted + 1) / 2)
    return agreement[wanted != 0].mean()


def brier(prob: Tensor, outcome: Tensor) -> Tensor:
    """Mean squared distance of the probability from what happened, (): 0 is best, 0.25 is a coin. prob, outcome: (N,) in [0, 1]"""
    prob, outcome = paired(prob, outcome)
    return ((prob - outcome) ** 2).mean()


def expected_calibration_error(prob: Tensor, outcome: Tensor, *, bins: int = 10) -> Tensor:
    """Gap between what is said and what happens, averaged over bins of equal width (Guo et al. 2017, eq. 3).

        ECE = sum_b |B_b| / N * | mean of prob in B_b - mean of outcome in B_b |

    A probability on an edge belongs to the upper bin, and 1 to the last.

    prob, outcome: (N,) in [0, 1]     returns: ()
    """
    prob, outcome = paired(prob, outcome)
    bin_of = (prob * bins).long().clamp(0, bins - 1)
    gap_of_bin = torch.zeros(bins, dtype=prob.dtype, device=prob.device).index_add(0, bin_of, prob - outcome)
    return gap_of_bin.abs().sum() / prob.numel() if prob.numel() else prob.new_tensor(UNDEFINED)


def pearson(x: Tensor, y: Tensor) -> Tensor:
    """Linear correlation of two (N,) series, () in [-1, 1]; NaN if either has no spread."""
    x, y = paired(x, y)
    if (x == x[:1]).all() or (y == y[:1]).all():  # true of nothing, too
        return x.new_tensor(UNDEFINED)
    x, y = x - x.mean(), y - y.mean()
    return ((x / x.norm()) @ (y / y.norm())).clamp(-1, 1)
