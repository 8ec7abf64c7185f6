"""Gates: what a round must not have done to its model. Pure: figures in, verdicts out.

A policy that learns from its own judge can please the judge instead of getting better (reward hacking): replies grow, stop ending, the
judge forgets how to judge; or answers get worse while judging does not. And one that did not learn at all looks healthy. Each gate is one such sign, against a limit of the recipe.
"""

from dataclasses import dataclass
from typing import Literal

Sign = Literal["parse_rate", "endings", "stalled_adapter", "judge_regression", "length", "replies"]


@dataclass(frozen=True, slots=True)
class Health:
    """What is looked at in one model. None: nothing to measure it on."""

    readable: float | None
    """share of its judgements that could be read"""
    pairwise: float | None
    """its pairwise accuracy as a judge"""
    ended: float
    """share of its replies that end by themselves"""
    tokens: float
    """mean length of its replies"""
    moved: float | None
    """how far its adapter moved in its last training, as a share of the weights' norm"""


@dataclass(frozen=True, slots=True)
class Limits:
    min_readable: float
    min_ended: float
    judge_drop: float
    longer: float
    min_change: float
    min_win_rate: float


@dataclass(frozen=True, slots=True)
class Gate:
    sign: Sign
    found: float | None
    limit: float
    open: bool
    says: str


def gates(now: Health, before: Health | None, limits: Limits, *, win_rate: float | None = None) -> list[Gate]:
    """Every gate of a model, with the model before it for what can only be compared. What could not be measured shuts the gate.

    ``win_rate``: of its replies against those of the model before, a tie counting one half
    """
    found = [
        _at_least("parse_rate", now.readable, limits.min_readable, "share of the model's judgements that can be read"),
        _at_least("endings", now.ended, limits.min_ended, "share of replies that end by themselves"),
        _at_least("stalled_adapter", now.moved, limits.min_change, "change of the adapter's weights", digits=6),
    ]
    if before:
        if before.pairwise is not None:
            floor = before.pairwise - limits.judge_drop
            found.append(_at_least("judge_regression", now.pairwise, floor, f"pairwise accuracy as a judge, {before.pairwise:.3f} before"))
        ceiling = before.tokens * limits.longer
        passed = now.tokens <= ceiling
        says = f"tokens of a reply, {before.tokens:.1f} before: {now.tokens:.1f}, at most {ceiling:.1f}"
        found.append(Gate("length", now.tokens, ceiling, passed, says))
        found.append(_at_least("replies", win_rate, limits.min_win_rate, "win rate of its replies against the model before"))
    return found


def _at_least(sign: Sign, found: float | None, limit: float, what: str, digits: int = 3) -> Gate:
    measured = "not measured" if found is None else f"{found:.{digits}f}"
    return Gate(sign, found, limit, found is not None and found >= limit, f"{what}: {measured}, at least {limit:.{digits}f}")
