"""How alike the two phrases of a pair are: Yang et al. 2023 ask for surface forms as alike as possible, and say that this is what to watch."""

from collections.abc import Sequence
from dataclasses import dataclass

MOST_CHANGED = 0.5
"""Share of characters that may change before a pair counts as unlike; no built-in pair changes more."""


@dataclass(frozen=True, slots=True)
class Likeness:
    """Words of the positive and of the negative phrase, and the characters to put in, leave out or replace to make one the other."""

    positive: int
    negative: int
    edits: int
    longest: int
    """characters of the longer phrase"""

    @property
    def changed(self) -> float:
        """Edits as a share of the longer phrase: 0 is the same phrase, near 1 two that have nothing in common."""
        return self.edits / self.longest

    @property
    def concern(self) -> str | None:
        """What stands against the pair, if anything."""
        if abs(self.positive - self.negative) > 1:
            return f"{self.positive} words against {self.negative}: the two prompts differ in length"
        if self.changed > MOST_CHANGED:
            return f"{100 * self.changed:.0f}% of the characters differ: the responses may differ in more than the attribute"
        return None


def likeness(positive: str, negative: str) -> Likeness:
    longest = max(len(positive), len(negative), 1)
    return Likeness(len(positive.split()), len(negative.split()), edit_distance(positive, negative), longest)


def edit_distance(one: Sequence[str], other: Sequence[str]) -> int:
    """Insertions, deletions and replacements that make one sequence the other (Levenshtein 1966)."""
    row = list(range(len(other) + 1))
    for i, x in enumerate(one, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(other, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]
