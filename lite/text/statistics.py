"""What the pair report says about texts: length gap, variety, repetition. None is the figure of nothing, never 0.

Length is a confounder of every preference: a reward that only counts words reaches a high win rate (Singhal et al. 2023).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lite.text.pairing import is_identical


@dataclass(frozen=True, slots=True)
class LengthGap:
    """In words, over pairs."""

    chosen: float
    rejected: float
    chosen_longer: float
    """share of pairs, a pair of equal length counting half: what a judge that likes long responses would agree with"""

    @property
    def gap(self) -> float:
        return self.chosen - self.rejected


@dataclass(frozen=True, slots=True)
class Report:
    pairs: int
    length: LengthGap | None
    distinct: dict[int, float | None]
    """Distinct-n of all responses, by n"""
    identical: float | None


def report(pairs: Sequence[tuple[str, str]]) -> Report:
    """All figures of the (chosen, rejected) pairs."""
    texts = [text for pair in pairs for text in pair]
    return Report(
        pairs=len(pairs),
        length=length_gap(pairs),
        distinct={n: distinct(texts, n) for n in (1, 2, 3)},
        identical=share_identical(pairs),
    )


def length_gap(pairs: Sequence[tuple[str, str]]) -> LengthGap | None:
    if not pairs:
        return None
    lengths = [(len(words(chosen)), len(words(rejected))) for chosen, rejected in pairs]
    return LengthGap(
        chosen=sum(c for c, _ in lengths) / len(pairs),
        rejected=sum(r for _, r in lengths) / len(pairs),
        chosen_longer=sum((c > r) + (c == r) / 2 for c, r in lengths) / len(pairs),
    )


def distinct(texts: Iterable[str], n: int) -> float | None:
    """Distinct-n (Li et al. 2016): different n-grams of words among all n-grams of all texts; none reaches from text to text.

    It falls with the number of texts, so compare it between sets of one size. Words are as written, case and punctuation included.
    """
    if n < 1:
        raise ValueError(f"an n-gram has at least one word, not {n}")
    grams = [gram for text in texts for gram in _grams(words(text), n)]
    return len(set(grams)) / len(grams) if grams else None


def share_identical(pairs: Sequence[tuple[str, str]]) -> float | None:
    return sum(is_identical(chosen, rejected) for chosen, rejected in pairs) / len(pairs) if pairs else None


def words(text: str) -> list[str]:
    return text.split()


def _grams(tokens: list[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
