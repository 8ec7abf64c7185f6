"""Sizes, times, the parts of a moment and the card that stands for a size, in words."""

from lite.fit import cards, sizes
from lite.fit.demand import Moment

COLUMNS = {
    "base": ("base", "embeddings"),
    "adapters": ("adapters",),
    "optimiser": ("optimiser",),
    "gradients": ("gradients",),
    "activations": ("activations",),
    "kv": ("kv",),
    "logits": ("logits",),
    "other": ("context", "slack"),
}


def gib(n: int) -> str:
    return f"{n / sizes.GIB:.2f}"


def span(seconds: tuple[float, float]) -> str:
    return "-" if not seconds[1] else f"{_hours(seconds[0])} to {_hours(seconds[1])}"


def _hours(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.{1 if seconds < 36000 else 0}f} h"


def columns(moment: Moment) -> dict[str, int]:
    """The parts of a moment as they are shown: few, each byte in one."""
    return {name: sum(moment.parts.get(part, 0) for part in parts) for name, parts in COLUMNS.items()}


def stands_in(card_gib: float) -> bool:
    """Whether a size has no card of its own in the table of cards."""
    return abs(card_gib / cards.class_of(card_gib).memory_gib - 1) > 0.05


def whose(card_gib: float) -> str:
    """The card whose figures a time rests on, and its size where that is another."""
    card = cards.class_of(card_gib)
    return f"{card.name} ({card.memory_gib:g} GB)" if stands_in(card_gib) else card.name
