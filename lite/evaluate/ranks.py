"""Rank correlations of two lists of scores, ties included. Few values each: the responses to one prompt."""

from collections.abc import Sequence
from itertools import combinations
from math import sqrt
from statistics import fmean


def spearman(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Pearson's correlation of the ranks, equal values sharing the mean of their places; None where one list is constant."""
    ranks_a, ranks_b = _ranks(a), _ranks(b)
    mean = (len(a) + 1) / 2
    both = sum((x - mean) * (y - mean) for x, y in zip(ranks_a, ranks_b, strict=True))
    size = sqrt(sum((x - mean) ** 2 for x in ranks_a) * sum((y - mean) ** 2 for y in ranks_b))
    return both / size if size else None


def kendall(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Kendall's tau-b (1945): (concordant - discordant) / sqrt(pairs that a does not tie * pairs that b does not tie)."""
    signs = [(_sign(x1 - x2), _sign(y1 - y2)) for (x1, y1), (x2, y2) in combinations(zip(a, b, strict=True), 2)]
    size = sqrt(sum(x != 0 for x, _ in signs) * sum(y != 0 for _, y in signs))
    return sum(x * y for x, y in signs) / size if size else None


def consistency(rankings: Sequence[tuple[Sequence[float], Sequence[float]]]) -> float | None:
    """How far two judges rank the same candidates alike: the mean over prompts of (tau + 1) / 2, so 1 is all and 0.5 is chance.

    Wang et al. 2024 (CREAM), equation 8: the weight of a pair's label, the rest of which goes to the opposite order. A prompt on
    which one judge ties everything tells nothing and is left out.
    """
    found = [tau for a, b in rankings if len(a) > 1 and (tau := kendall(a, b)) is not None]
    return fmean((tau + 1) / 2 for tau in found) if found else None


def _ranks(values: Sequence[float]) -> list[float]:
    """1 for the lowest; equal values share the mean of their places."""
    return [1 + sum(v < value for v in values) + (sum(v == value for v in values) - 1) / 2 for value in values]


def _sign(x: float) -> int:
    return (x > 0) - (x < 0)
