"""ROUGE-L: how much of two texts is in common, word by word in order (Lin 2004, section 3.1, sentence level).

    F1 = 2 * lcs / (words of a + words of b)        lcs: length of the longest common subsequence

Words are runs of ASCII letters and digits in lower case, as in the package `rouge-score` without its stemmer, so that figures
agree with Self-Instruct's. Ours because that package brings four others for one recurrence; the longest common subsequence is
counted in bits of one integer (Hyyrö 2004), which makes a comparison as long as one text.
"""

import re
from collections.abc import Sequence

_WORD = re.compile(r"[a-z0-9]+")


def words(text: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(text.lower()))


def rouge_l(a: Sequence[str], b: Sequence[str]) -> float:
    """F1 of two texts as words; 0 where one has none."""
    return 2 * common_subsequence(a, b) / (len(a) + len(b)) if a and b else 0.0


def common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """The length of the longest common subsequence."""
    places: dict[str, int] = {}
    for i, word in enumerate(a):
        places[word] = places.get(word, 0) | 1 << i
    whole = (1 << len(a)) - 1
    row = whole  # bit i is 0 where the subsequence grows at a's word i
    for word in b:
        met = row & places.get(word, 0)
        row = ((row + met) | (row - met)) & whole
    return len(a) - row.bit_count()


def more_alike_than(a: Sequence[str], b: Sequence[str], threshold: float) -> bool:
    """Whether the F1 is above a threshold; lengths alone often tell that it is not."""
    if 2 * min(len(a), len(b)) <= threshold * (len(a) + len(b)):
        return False
    return rouge_l(a, b) > threshold
