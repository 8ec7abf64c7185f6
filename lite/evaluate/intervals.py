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


def share_interval(hits: float, n: int) -> Estimate:
    """Wilson's 95% interval of a share: right near 0 and 1, where the normal one is not (Wilson 1927)."""
    p, z2 = hits / n, Z95**2
    center = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return Estimate(p, center - half, center + half)
