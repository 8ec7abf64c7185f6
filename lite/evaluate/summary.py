"""From replies to figures: every model by itself, and two models side by side."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from lite.evaluate.intervals import mean_interval
from lite.records import Reply
from lite.text.statistics import distinct


def by_model(replies: Sequence[Reply]) -> dict[str, list[Reply]]:
    groups: dict[str, list[Reply]] = defaultdict(list)
    for reply in replies:
        groups[reply.model].append(reply)
    return dict(groups)


def describe(replies: Sequence[Reply]) -> dict[str, Any]:
    """Figures of one model. ``success`` and ``score`` are there where an oracle has judged, each with the figure of every draw."""
    figures: dict[str, Any] = {
        "prompts": len({r.id for r in replies}),
        "draws": len({r.draw for r in replies}),
        "tokens": fmean(r.tokens for r in replies),
        "words": fmean(len(r.text.split()) for r in replies),
        "stop_rate": fmean(r.stop == "turn" for r in replies),
        "empty": sum(not r.text.strip() for r in replies),
        "distinct": {n: distinct([r.text for r in replies], n) for n in (1, 2, 3)},
    }
    judged = [r for r in replies if r.success is not None]
    if judged:
        success, score = ({r: float(getattr(r, name)) for r in judged} for name in ("success", "score"))
        estimate = mean_interval(_per_prompt(success))
        figures |= {
            "success": estimate.mean,
            "success_interval": [max(0.0, estimate.low), min(1.0, estimate.high)],
            "success_draws": [fmean(success[r] for r in judged if r.draw == d) for d in sorted({r.draw for r in judged})],
            "score": fmean(score.values()),
            "score_interval": list(asdict(mean_interval(_per_prompt(score))).values())[1:],
        }
    return figures


def compare(first: Sequence[Reply], second: Sequence[Reply]) -> dict[str, Any]:
    """Head to head on the same prompt and draw by the judge's score; a tie counts one half in the win rate."""
    other = {(r.id, r.draw): r for r in second}
    met = [(r, other[r.id, r.draw]) for r in first if (r.id, r.draw) in other and r.score is not None]
    points: dict[str, list[float]] = defaultdict(list)
    wins = ties = 0
    for a, b in met:
        assert a.score is not None
        assert b.score is not None
        wins, ties = wins + (a.score > b.score), ties + (a.score == b.score)
        points[a.id].append(0.5 if a.score == b.score else float(a.score > b.score))
    estimate = mean_interval([fmean(p) for p in points.values()])
    return {
        "first": first[0].model,
        "second": second[0].model,
        "win": wins / len(met),
        "tie": ties / len(met),
        "loss": 1 - (wins + ties) / len(met),
        "win_rate": estimate.mean,
        "interval": [estimate.low, estimate.high],
        "compared": len(met),
    }


def _per_prompt(values: dict[Reply, float]) -> list[float]:
    prompts: dict[str, list[float]] = defaultdict(list)
    for reply, value in values.items():
        prompts[reply.id].append(value)
    return [fmean(v) for v in prompts.values()]
