"""How well a judge's scores order responses that were ranked before: the five figures of Yuan et al. 2024, table 4.

The paper does not say what a tie of the judge counts. Here (``TIE_RULE``): among two responses with different ranks a tie counts one
half; an ordering with such a tie is not exact; the correlation of a judge that ties all responses to a prompt is 0. Two
responses of one rank are not compared. A response without a readable score is left out, and counted.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import sqrt
from statistics import fmean
from typing import Any

from lite.evaluate.ranks import kendall, spearman
from lite.text.judging import HIGHEST

TIE_RULE = (
    "a tie of the judge counts one half in the pairwise accuracy and spoils an exact ranking; correlations are tau-b and Spearman's "
    "with mean ranks, 0 where the judge ties all; responses of one human rank are not compared"
)


@dataclass(frozen=True, slots=True)
class Ranking:
    """The responses to one prompt: rank 0 is the best, equal ranks are ties; a score is the judge's mean, None if none was read."""

    ranks: tuple[int, ...]
    scores: tuple[float | None, ...]

    def readable(self) -> list[tuple[int, float]]:
        return [(rank, score) for rank, score in zip(self.ranks, self.scores, strict=True) if score is not None]


@dataclass(frozen=True, slots=True)
class JudgeQuality:
    """None is the figure of nothing, never 0."""

    prompts: int
    responses: int
    unreadable: int
    pairwise: float | None
    """share of the pairs with different ranks that the judge orders as they are"""
    pairwise_error: float | None
    """its standard error, the prompts being the unit of chance; of a single prompt there is none"""
    best_of_five: float | None
    """share of the responses with the highest score, 5 of 5, that nobody ranked lower than another"""
    exact: float | None
    """share of the prompts whose whole ordering is the judge's"""
    spearman: float | None
    kendall: float | None
    ties: float | None
    """share of the pairs with different ranks that the judge ties"""
    fives: int
    histogram: dict[int, int]
    """scores, rounded to whole points"""


def judge_quality(rankings: Sequence[Ranking]) -> JudgeQuality:
    points: list[list[float]] = []  # by prompt
    exact: list[bool] = []
    rho: list[float] = []
    tau: list[float] = []
    fives: list[bool] = []
    histogram: Counter[int] = Counter()
    for ranking in rankings:
        read = ranking.readable()
        best = min(ranking.ranks)
        fives += [rank == best for rank, score in read if score == HIGHEST]
        histogram.update(int(score + 0.5) for _, score in read)
        compared = [_points(a, b) for a, b in combinations(read, 2) if a[0] != b[0]]
        if not compared:
            continue
        points.append(compared)
        if len(read) == len(ranking.ranks):
            exact.append(min(compared) == 1)
        merits, scores = [-rank for rank, _ in read], [score for _, score in read]
        rho.append(spearman(merits, scores) or 0.0)
        tau.append(kendall(merits, scores) or 0.0)
    every = [point for compared in points for point in compared]
    responses = sum(len(r.ranks) for r in rankings)
    return JudgeQuality(
        prompts=len(rankings),
        responses=responses,
        unreadable=responses - sum(histogram.values()),
        pairwise=_mean(every),
        pairwise_error=_error(points),
        best_of_five=_mean(fives),
        exact=_mean(exact),
        spearman=_mean(rho),
        kendall=_mean(tau),
        ties=_mean([p == 0.5 for p in every]),
        fives=len(fives),
        histogram={score: histogram[score] for score in range(HIGHEST + 1)},
    )


def _points(a: tuple[int, float], b: tuple[int, float]) -> float:
    """1 where the better rank has the higher score, one half for a tie of the scores."""
    if a[1] == b[1]:
        return 0.5
    return float((a[0] < b[0]) == (a[1] > b[1]))


def _error(points: Sequence[Sequence[float]]) -> float | None:
    """Standard error of a ratio of sums over prompts (Cochran 1977, section 6.4): pairs of one prompt share its luck."""
    n, pairs = len(points), sum(map(len, points))
    if n < 2:
        return None
    mean = sum(map(sum, points)) / pairs
    return sqrt(n / (n - 1) * sum((sum(own) - mean * len(own)) ** 2 for own in points)) / pairs


def _mean(values: Sequence[Any]) -> float | None:
    return fmean(values) if values else None
