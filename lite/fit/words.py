"""Sizes, times, the parts of a moment and the card that stands for a size, in words."""

import re
from collections import Counter
from collections.abc import Iterable

from lite.fit import cards, sizes
from lite.fit.demand import Moment
from lite.recipe import Recipe

ROUND = re.compile(r"r\d+\.")

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


def gib_number(n: int) -> float:
    """The same for JSON."""
    return round(n / sizes.GIB, 2)


def whole(seconds: tuple[float, float]) -> list[int]:
    """A span for JSON."""
    return [round(s) for s in seconds]


def span(seconds: tuple[float, float]) -> str:
    return "-" if not seconds[1] else f"{_hours(seconds[0])} to {_hours(seconds[1])}"


def _hours(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.{1 if seconds < 36000 else 0}f} h"


def said_once(recipe: Recipe, overrides: Iterable[str]) -> str:
    """Overrides to be copied; what is the same in all rounds is said as the recipe's author would: ``each_round.dpo.micro_tokens=1024``."""
    found = list(overrides)
    tails = Counter(ROUND.sub("", text) for text in found if ROUND.match(text))
    alike = {tail for tail, times in tails.items() if times == recipe.rounds}
    turned = [f"each_round.{tail}" if ROUND.match(text) and (tail := ROUND.sub("", text)) in alike else text for text in found]
    return " ".join(dict.fromkeys(turned))


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
