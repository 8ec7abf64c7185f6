"""Win rates of one model against another, what length has to do with them, and how far two judges agree.

A verdict is worth 1, 0 or, for a tie, one half; one that could not be read is worth one half too and is counted (Yang et al.
2023). Prompts are the unit of chance: the draws of one prompt are averaged first, and the bootstrap draws prompts.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, pstdev
from typing import Any

from lite.chance import random_for
from lite.errors import JudgeError
from lite.evaluate.intervals import Estimate, share_interval
from lite.evaluate.pairwise import Judgement, Unreadable, Verdict
from lite.text.statistics import words

POINTS: dict[str, float] = {"first": 1.0, "tie": 0.5, "second": 0.0}
UNREADABLE_POINTS = 0.5
RIDGE = (1.0, 0.001)
"""On intercept and slope. The slope's is the weaker: what length alone can explain, length shall explain."""
NO_RIDGE = (0.0, 0.0)
STEPS, CLOSE = 60, 1e-10


def points(verdict: Verdict) -> float:
    """What a verdict is worth to the first response."""
    return UNREADABLE_POINTS if isinstance(verdict, Unreadable) else POINTS[verdict]


@dataclass(frozen=True, slots=True)
class WinRate:
    rate: Estimate
    win: int
    tie: int
    loss: int
    unreadable: int
    prompts: int

    @property
    def compared(self) -> int:
        return self.win + self.tie + self.loss + self.unreadable


def win_rate(judgements: Sequence[Judgement], *, seed: int, resamples: int = 2000) -> WinRate:
    """The win rate of the first model with its 95% bootstrap interval over prompts."""
    if not judgements:
        raise ValueError("nothing was compared, so nobody won")
    count = Counter("unreadable" if isinstance(v := j.verdict, Unreadable) else v for j in judgements)
    by_prompt: dict[str, list[float]] = defaultdict(list)
    for j in judgements:
        by_prompt[j.comparison.prompt].append(points(j.verdict))
    rate = bootstrap_mean([fmean(values) for values in by_prompt.values()], seed=seed, resamples=resamples)
    return WinRate(rate, count["first"], count["tie"], count["second"], count["unreadable"], len(by_prompt))


def bootstrap_mean(values: Sequence[float], *, seed: int, resamples: int) -> Estimate:
    """Mean of shares with its 95% percentile interval (Efron 1979). Where all values are equal no resample differs from another,
    which says nothing of how sure one can be: there the interval is Wilson's."""
    if len(set(values)) == 1:
        return share_interval(sum(values), len(values))
    rng = random_for(seed, "bootstrap")
    means = sorted(math.fsum(rng.choices(values, k=len(values))) / len(values) for _ in range(resamples))
    return Estimate(fmean(values), *_middle95(means))


def _middle95(ordered: Sequence[float]) -> tuple[float, float]:
    """The values that leave 2.5% on either side."""
    last = len(ordered) - 1
    return ordered[math.floor(0.025 * last)], ordered[math.ceil(0.975 * last)]


def require_readable(judgements: Sequence[Judgement], *, share: float) -> None:
    """A JudgeError where fewer verdicts than this share could be read."""
    unreadable = [v for j in judgements if isinstance(v := j.verdict, Unreadable)]
    readable = len(judgements) - len(unreadable)
    if judgements and readable < share * len(judgements):
        why = ", ".join(f"{n} {reason}" for reason, n in Counter(v.why for v in unreadable).most_common())
        raise JudgeError(
            f"only {readable} of {len(judgements)} verdicts could be read ({why}); the first that could not: {unreadable[0].reply[-300:]!r}"
        )


@dataclass(frozen=True, slots=True)
class LengthControlled:
    """``ridge``: the verdicts alone have no finite answer. ``extrapolated``: one model was longer every time."""

    rate: Estimate
    slope: float
    """log-odds per unit of tanh(difference / scale)"""
    scale: float
    ridge: bool
    extrapolated: bool


@dataclass(frozen=True, slots=True)
class Point:
    """One comparison in the regression: what it was worth, its length difference after tanh, and its weight."""

    y: float
    z: float
    weight: float


def length_controlled(
    judgements: Sequence[Judgement], *, seed: int, resamples: int = 500, length: Callable[[str], float] = lambda text: len(words(text))
) -> LengthControlled | None:
    """The win rate that would be left if both responses were equally long. None where every difference is the same and not 0, so
    that nothing tells length from quality.

        P(first is preferred) = sigmoid(a + b * tanh(d / s))        rate = sigmoid(a)

    d is the length of the first response minus that of the second, s the standard deviation of d. This is the regression of
    Dubois et al. 2024 (AlpacaEval 2) without its term for the difficulty of an instruction, which needs many models. A tie or an
    unreadable verdict is half a win and half a loss; every prompt weighs 1. Where wins and losses can be
    separated by length, as those of a judge that only counts words, the likelihood has no maximum: there, and only there, a ridge
    is subtracted from it. The interval is the bootstrap's over prompts.
    """
    if not judgements:
        raise ValueError("nothing was compared, so nobody won")
    gaps = [length(j.comparison.first) - length(j.comparison.second) for j in judgements]
    scale = pstdev(gaps)
    if not scale and any(gaps):
        return None
    draws = Counter(j.comparison.prompt for j in judgements)
    by_prompt: dict[str, list[Point]] = defaultdict(list)
    for j, gap in zip(judgements, gaps, strict=True):
        prompt = j.comparison.prompt
        by_prompt[prompt].append(Point(points(j.verdict), math.tanh(gap / scale) if scale else 0.0, 1 / draws[prompt]))
    groups = list(by_prompt.values())
    if not scale:  # no difference anywhere: there is nothing to control
        rate = bootstrap_mean([sum(p.y * p.weight for p in group) for group in groups], seed=seed, resamples=resamples)
        return LengthControlled(rate, slope=0.0, scale=0.0, ridge=False, extrapolated=False)
    everything = _distinct(p for group in groups for p in group)
    ridge = is_separable(everything)
    a, b = fit_logistic(everything, ridge=RIDGE if ridge else NO_RIDGE)
    rng = random_for(seed, "bootstrap", "length")
    rates = []
    for _ in range(resamples):
        drawn = _distinct(p for group in rng.choices(groups, k=len(groups)) for p in group)
        rates.append(_sigmoid(fit_logistic(drawn, ridge=RIDGE if ridge or is_separable(drawn) else NO_RIDGE)[0]))
    rate = Estimate(_sigmoid(a), *_middle95(sorted(rates)))
    return LengthControlled(rate, slope=b, scale=scale, ridge=ridge, extrapolated=not min(gaps) <= 0 <= max(gaps))


def _distinct(rows: Iterable[Point]) -> list[Point]:
    """One point for all of the same worth and length difference: lengths are few, resamples many."""
    weights: dict[tuple[float, float], float] = defaultdict(float)
    for p in rows:
        weights[p.y, p.z] += p.weight
    return [Point(y, z, weight) for (y, z), weight in weights.items()]


def is_separable(rows: Sequence[Point]) -> bool:
    """Whether the likelihood has no finite maximum: the ranges of z of wins and of losses do not overlap (Silvapulle 1981)."""
    wins, losses = [p.z for p in rows if p.y > 0], [p.z for p in rows if p.y < 1]
    return not (wins and losses and min(wins) < max(losses) and min(losses) < max(wins))


def fit_logistic(rows: Sequence[Point], *, ridge: tuple[float, float]) -> tuple[float, float]:
    """The intercept and slope that maximise the weighted log-likelihood less (ridge[0] * a^2 + ridge[1] * b^2) / 2, by Newton's
    method from 0, where its steps have never been seen to go astray for |z| <= 1."""
    a = b = 0.0
    for _ in range(STEPS):
        grad_a, grad_b = -ridge[0] * a, -ridge[1] * b
        aa, ab, bb = ridge[0] + 1e-9, 0.0, ridge[1] + 1e-9
        for p in rows:
            q = _sigmoid(a + b * p.z)
            g, h = p.weight * (p.y - q), p.weight * q * (1 - q)
            grad_a, grad_b = grad_a + g, grad_b + g * p.z
            aa, ab, bb = aa + h, ab + h * p.z, bb + h * p.z * p.z
        det = aa * bb - ab * ab
        step_a, step_b = (bb * grad_a - ab * grad_b) / det, (aa * grad_b - ab * grad_a) / det
        a, b = a + step_a, b + step_b
        if abs(step_a) + abs(step_b) < CLOSE:
            break
    return a, b


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


@dataclass(frozen=True, slots=True)
class Agreement:
    """``accuracy`` and ``kappa`` are over first, second and tie; ``decided`` counts comparisons in which neither says tie."""

    compared: int
    unreadable: int
    accuracy: Estimate | None
    kappa: float | None
    decided: int
    decided_accuracy: Estimate | None


def agreement(one: Mapping[str, Verdict], other: Mapping[str, Verdict]) -> Agreement:
    """How far two judges agree on the comparisons that both were given; those that either could not be read on are left out.

    Cohen's kappa (1960) is the agreement beyond what the two judges' habits alone would give: 1 is all, 0 is chance. It is None
    where both always say the same one word.
    """
    shared = [(one[id], other[id]) for id in one if id in other]
    read = [(x, y) for x, y in shared if not isinstance(x, Unreadable) and not isinstance(y, Unreadable)]
    decided = [(x, y) for x, y in read if "tie" not in (x, y)]
    return Agreement(
        compared=len(read),
        unreadable=len(shared) - len(read),
        accuracy=_share_equal(read),
        kappa=_kappa(read),
        decided=len(decided),
        decided_accuracy=_share_equal(decided),
    )


def _share_equal(rows: Sequence[tuple[str, str]]) -> Estimate | None:
    return share_interval(sum(x == y for x, y in rows), len(rows)) if rows else None


def _kappa(rows: Sequence[tuple[str, str]]) -> float | None:
    n = len(rows)
    ones, others = Counter(x for x, _ in rows), Counter(y for _, y in rows)
    by_chance = sum(ones[word] * others[word] for word in ones)
    return (n * sum(x == y for x, y in rows) - by_chance) / (n * n - by_chance) if n * n > by_chance else None


def describe(first: str, second: str, judgements: Sequence[Judgement], *, seed: int) -> dict[str, Any]:
    """One head to head as the report has it: the fields of ``summary.compare``, and what only a judge can be asked."""
    won, controlled = win_rate(judgements, seed=seed), length_controlled(judgements, seed=seed)
    n = won.compared
    return {
        "first": first,
        "second": second,
        "win": won.win / n,
        "tie": won.tie / n,
        "loss": won.loss / n,
        "unreadable": won.unreadable / n,
        "unreadable_why": dict(Counter(v.why for j in judgements if isinstance(v := j.verdict, Unreadable))),
        "win_rate": won.rate.mean,
        "interval": [won.rate.low, won.rate.high],
        "compared": n,
        "prompts": won.prompts,
        "length_controlled": asdict(controlled) if controlled else None,
        "says_a": _share([s.reading == "A" for j in judgements for s in j.showings if s.reading in ("A", "B")]),
        "contradicts_itself": _share([v[0] != v[1] for j in judgements if (v := _both_read(j))]),
    }


def _both_read(judgement: Judgement) -> list[Verdict]:
    """The verdicts of both orders, where there were two and both could be read."""
    found: list[Verdict] = [showing.verdict for showing in judgement.showings]
    return found if len(found) == 2 and not any(isinstance(v, Unreadable) for v in found) else []


def _share(flags: Sequence[bool]) -> float | None:
    return fmean(flags) if flags else None
