"""A preference model against whoever knows better: agreement, mean probability, calibration."""

from collections.abc import Sequence
from typing import Any

import torch

from lite.evaluate.intervals import share_interval
from lite.objectives.metrics import expected_calibration_error
from lite.objectives.preference import preference_probability


def agreement(rewards: Sequence[tuple[float, float]], scores: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """A preference model against the oracle or people, over pairs that these do not tie: how often both prefer the same response, the
    mean probability of the better one, and how far what the model says is from what is so."""
    decided = [(r, s) for r, s in zip(rewards, scores, strict=True) if s[0] != s[1]]
    if not decided:
        return {"oracle_accuracy": None, "oracle_decided": 0}
    hits = sum(0.5 if r[0] == r[1] else float((r[0] > r[1]) == (s[0] > s[1])) for r, s in decided)
    estimate = share_interval(hits, len(decided))
    one, other = torch.tensor([r for r, _ in decided]).unbind(1)
    first_is_better = torch.tensor([float(s[0] > s[1]) for _, s in decided])
    prob = preference_probability(one, other)
    return {
        "oracle_accuracy": estimate.mean,
        "oracle_interval": [estimate.low, estimate.high],
        "oracle_decided": len(decided),
        "oracle_probability": float((prob * first_is_better + (1 - prob) * (1 - first_is_better)).mean()),
        "oracle_calibration_error": float(expected_calibration_error(prob, first_is_better)),
    }
