"""Which of the instructions that a model wrote are kept: the filters of Self-Instruct, and none that is held out.

Wang et al. 2023, appendix A, as Yuan et al. 2024 use them: too short or too long; about something that text cannot hold; a first
character that begins no instruction; too much like a seed or like one that was kept before. Every text that is looked at is
counted, under the first filter that stops it.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from lite.text.dialogue import has_tag
from lite.text.rouge import more_alike_than, words

Reason = Literal["unfinished", "empty", "short", "long", "not_text", "opening", "speaker_tag", "duplicate", "held_out", "similar"]
REASONS: tuple[Reason, ...] = get_args(Reason)

NOT_TEXT = re.compile(
    r"\b(images?|pictures?|graphs?|charts?|diagrams?|photos?|videos?|audio|files?|maps?|draw|drawing|plot|flowcharts?)\b", re.I
)
"""Words of instructions whose answer is no text, or which come with something that is none."""


@dataclass(frozen=True, slots=True)
class Limits:
    """``min_words`` and ``max_words`` are kept; ``alike`` is the ROUGE-L F1 above which two instructions count as the same."""

    min_words: int = 4
    max_words: int = 150
    alike: float = 0.7
    not_text: bool = True


class Sieve:
    """Lets one instruction after another through, or says why not, and remembers what it let through."""

    def __init__(self, limits: Limits, *, seeds: Iterable[str], held_out: Iterable[str], is_held_out: Callable[[str], bool] | None = None):
        self.limits = limits
        self.counts: Counter[Reason] = Counter()
        self.kept: list[str] = []
        self._is_held_out = is_held_out
        self._held_out = [words(text) for text in held_out]
        self._known = [words(text) for text in seeds]
        self._same = set(self._known)

    def take(self, text: str, *, finished: bool = True) -> Reason | None:
        """None where the instruction is kept."""
        reason = self._reason(text.strip(), finished)
        if reason:
            self.counts[reason] += 1
            return reason
        self.kept.append(text.strip())
        self._known.append(words(text))
        self._same.add(words(text))
        return None

    def report(self) -> dict[str, int]:
        """How many were looked at and kept, and how many each filter stopped; the numbers add up."""
        stopped: dict[str, int] = {reason: self.counts[reason] for reason in REASONS}
        return {"looked_at": len(self.kept) + sum(stopped.values()), "kept": len(self.kept), **stopped}

    def _reason(self, text: str, finished: bool) -> Reason | None:
        said, limits = words(text), self.limits
        n = len(text.split())
        checks: tuple[tuple[Reason, Callable[[], bool]], ...] = (
            ("unfinished", lambda: not finished),
            ("empty", lambda: not said),
            ("short", lambda: n < limits.min_words),
            ("long", lambda: n > limits.max_words),
            ("not_text", lambda: limits.not_text and NOT_TEXT.search(text) is not None),
            ("opening", lambda: text[0] in string.punctuation or not text[0].isascii()),
            ("speaker_tag", lambda: has_tag(text)),
            ("duplicate", lambda: said in self._same),
            ("held_out", lambda: self._held(text, said)),
            ("similar", lambda: any(more_alike_than(said, other, limits.alike) for other in self._known)),
        )
        return next((reason for reason, stops in checks if stops()), None)

    def _held(self, text: str, said: tuple[str, ...]) -> bool:
        """Held out exactly where someone knows, else whatever is as good as a held-out instruction."""
        if self._is_held_out:
            return self._is_held_out(text)
        return any(said == other or more_alike_than(said, other, self.limits.alike) for other in self._held_out)
