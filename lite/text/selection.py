"""From the scored responses to one prompt to a preference pair: the best against the worst, or the reason why there is none.

Yuan et al. 2024, section 2.2: the highest mean score wins over the lowest, and a prompt whose scores are all equal gives no pair. Each of
the remedies for what goes wrong after a round or two is a knob of its own, and all of them go together:

- ``rho`` (length control; Wu et al. 2024, Meta-Rewarding, section 2.3): among those close to the best score the shortest is
  chosen, among those close to the worst the longest is rejected;
- ``min_gap``: the two must be so many points apart;
- anchored rejection: the rejected one comes from an earlier model's responses to the same prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from lite.text.pairing import is_identical

Reason = Literal["too_few", "tie", "small_gap", "identical"]
REASONS: tuple[Reason, ...] = get_args(Reason)


@dataclass(frozen=True, slots=True)
class Scored:
    """One response that could be read and judged; ``tokens`` is its length."""

    k: int
    text: str
    score: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Choice:
    chosen: Scored
    rejected: Scored

    @property
    def gap(self) -> float:
        return self.chosen.score - self.rejected.score


def choose(scored: Sequence[Scored], *, rho: float = 0.0, min_gap: float = 0.0, anchors: Sequence[Scored] | None = None) -> Choice | Reason:
    """The pair of one prompt. Equal scores are told apart by length where ``rho`` is above 0, else by their order.

    rho: 0 to 0.5, the share of the distance between best and worst that counts as close to either
    anchors: the scored responses that the rejected one is taken from; None: the same as the chosen one's
    """
    others = scored if anchors is None else anchors
    if not scored or not others or len(scored) + (len(anchors) if anchors is not None else 0) < 2:
        return "too_few"
    chosen = _best(scored, rho)
    rejected = _worst(others, rho)
    if chosen.score <= rejected.score:
        return "tie"
    if chosen.score - rejected.score < min_gap:
        return "small_gap"
    if is_identical(chosen.text, rejected.text):
        return "identical"
    return Choice(chosen, rejected)


def _best(scored: Sequence[Scored], rho: float) -> Scored:
    """With rho: the shortest of those with a score in [(1 - rho) max + rho min, max]."""
    low, high = _edges(scored)
    if not rho:
        return next(s for s in scored if s.score == high)
    return min((s for s in scored if s.score >= high - rho * (high - low)), key=lambda s: (s.tokens, -s.score))


def _worst(scored: Sequence[Scored], rho: float) -> Scored:
    """With rho: the longest of those with a score in [min, (1 - rho) min + rho max]."""
    low, high = _edges(scored)
    if not rho:
        return next(s for s in scored if s.score == low)
    return max((s for s in scored if s.score <= low + rho * (high - low)), key=lambda s: (s.tokens, -s.score))


def _edges(scored: Sequence[Scored]) -> tuple[float, float]:
    scores = [s.score for s in scored]
    return min(scores), max(scores)
