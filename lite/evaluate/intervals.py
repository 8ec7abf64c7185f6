"""Means with their uncertainty. Prompts are the unit of chance: draws of one prompt are averaged first."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

Z95 = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, slots=True)
class Estimate:
    mean: float
    low: float
    high: float


def mean_interval(values: Sequence[float]) -> Estimate:
    """Mean and 95% interval over prompts (normal approximation); a single value has no width that could be known."""
    mean = fmean(values)
    if len(values) < 2:
        return Estimate(mean, -math.inf, math.inf)
    half = Z95 * stdev(values) / math.sqrt(len(values))
    return Estimate(mean, mean - half, mean + half)


T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093)
"""97.5% quantiles of Student's t with 1, 2 ... degrees of freedom."""


def seed_interval(values: Sequence[float]) -> Estimate:
    """Mean and 95% interval over a few repetitions: Student's t, since their spread is itself a guess."""
    mean = fmean(values)
    if len(values) < 2:
        return Estimate(mean, -math.inf, math.inf)
    half = (T95[len(values) - 2] if len(values) - 2 < len(T95) else Z95) * stdev(values) / math.sqrt(len(values))
    return Estimate(mean, mean - half, mean + half)


def share_interval(hits: float, n: int) -> Estimate:
    """Wilson's 95% interval of a share: right near 0 and 1, where the normal one is not (Wilson 1927)."""
    p, z2 = hits / n, Z95**2
    center = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return Estimate(p, center - half, center + half)
