"""From two cleaned continuations to a preference pair, or to the reason why there is none."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from lite.text.clean import REJECT_REASONS, Accepted, Rejected, RejectReason

DropReason = RejectReason | Literal["identical"]
DROP_REASONS: tuple[DropReason, ...] = (*REJECT_REASONS, "identical")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two responses, separators included, of which the first is preferred."""

    chosen: str
    rejected: str


@dataclass(frozen=True, slots=True)
class Dropped:
    reason: DropReason


def pair(plus: Accepted | Rejected, minus: Accepted | Rejected) -> Pair | Dropped:
    """The pair of the last attempts at p+ and p-. Where both were rejected, the reason of p+ counts."""
    if isinstance(plus, Rejected):
        return Dropped(plus.reason)
    if isinstance(minus, Rejected):
        return Dropped(minus.reason)
    if is_identical(plus.text, minus.text):
        return Dropped("identical")
    return Pair(plus.response, minus.response)


def is_identical(chosen: str, rejected: str) -> bool:
    """Whether two responses have nothing to prefer: the same text but for white space at the ends."""
    return chosen.strip() == rejected.strip()


@dataclass(frozen=True, slots=True)
class Drops:
    """How many pairs were kept, and how many dropped for which reason; every reason is there, with 0 where it never came up."""

    kept: int
    reasons: dict[DropReason, int]

    @property
    def share(self) -> float | None:
        """Dropped pairs among all; None of none."""
        dropped = sum(self.reasons.values())
        return dropped / (self.kept + dropped) if self.kept + dropped else None


def drops(outcomes: Iterable[Pair | Dropped]) -> Drops:
    count = Counter(outcome.reason if isinstance(outcome, Dropped) else None for outcome in outcomes)
    return Drops(kept=count[None], reasons={reason: count[reason] for reason in DROP_REASONS})
