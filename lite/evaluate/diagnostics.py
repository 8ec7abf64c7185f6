"""What can be told of preference pairs before anything is trained on them: length, variety, certainty, and whether the labels are right.

Every stage that makes pairs puts these figures into its report, so that RLCD, RLAIF, Rescore and human pairs stand side by side.
"""

from collections.abc import Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from lite.evaluate import oracle
from lite.evaluate.intervals import share_interval
from lite.records import Pair
from lite.text import statistics

BINS = 10
BELOW_CHANCE = "below chance"


def describe(pairs: Sequence[Pair], task: str) -> dict[str, Any]:
    """The figures of pairs of a task, whatever made them. ``labels`` is None where nobody knows which response is better."""
    texts = statistics.report([(p.chosen, p.rejected) for p in pairs])
    scores = oracle.pair_scores(pairs, task)
    return {
        "words": asdict(texts.length) | {"gap": texts.length.gap} if texts.length else None,
        "distinct": texts.distinct,
        "identical": texts.identical,
        "polarity": polarity([p.label for p in pairs]),
        "labels": label_accuracy([p.label for p in pairs], scores) if scores else None,
    }


def polarity(labels: Sequence[float]) -> dict[str, Any] | None:
    """How sure the labels are: their distance from one half, as a mean and as shares of ten bins from 0 to 0.5."""
    if not labels:
        return None
    distances = [abs(label - 0.5) for label in labels]
    bins = [min(BINS - 1, int(distance * 2 * BINS)) for distance in distances]
    return {"mean": fmean(distances), "histogram": [bins.count(i) / len(bins) for i in range(BINS)]}


def label_accuracy(labels: Sequence[float], scores: Sequence[tuple[float, float] | None]) -> dict[str, Any]:
    """How often a label prefers the response with the higher score, over pairs whose scores differ; 0.5 is right half the time.

    ``probability`` is the mean label of the better response. ``tied_polarity`` against ``decided_polarity`` shows a scorer that is
    sure where there is nothing to prefer. The alarm rings where the whole interval lies below one half: such labels teach the
    opposite of the attribute.
    """
    known = [(label, score) for label, score in zip(labels, scores, strict=True) if score is not None]
    decided = [(label if chosen > rejected else 1 - label) for label, (chosen, rejected) in known if chosen != rejected]
    tied = [label for label, (chosen, rejected) in known if chosen == rejected]
    estimate = share_interval(sum(1.0 if p > 0.5 else 0.5 if p == 0.5 else 0.0 for p in decided), len(decided)) if decided else None
    return {
        "accuracy": estimate.mean if estimate else None,
        "interval": [estimate.low, estimate.high] if estimate else None,
        "probability": fmean(decided) if decided else None,
        "decided": len(decided),
        "tied": len(tied),
        "decided_polarity": _distance(decided),
        "tied_polarity": _distance(tied),
        "alarm": BELOW_CHANCE if estimate and estimate.high < 0.5 else None,
    }


def _distance(labels: Sequence[float]) -> float | None:
    return fmean(abs(label - 0.5) for label in labels) if labels else None
