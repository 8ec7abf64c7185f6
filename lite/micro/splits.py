"""Three splits of everything a human can ask: train, validation (for choices) and test (touched once).

The key of an ask decides its split, by a hash: the wording with its words for helpful and harmless asks (openings and
endings are not part of it), the premise for outlines. The base's corpus and all training prompts use train keys only.
"""

import random
from typing import Literal

from lite import tasks
from lite.chance import seed_for
from lite.micro.grammar import (
    ACTIVITIES,
    ENDINGS,
    FAMILIES,
    FAULTS,
    HARMS,
    OPENINGS,
    OUTLINE_ASKS,
    PERSONS,
    PREMISE,
    QUESTIONS,
    RANTS,
    REQUESTS,
    Ask,
    make_ask,
    read_ask,
)
from lite.micro.replies import quality, reply
from lite.text.dialogue import Turn

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def split_of_key(family: str, key: tuple[str, ...]) -> Split:
    """Three fifths train, one fifth validation, one fifth test."""
    return ("train", "train", "train", "validation", "test")[seed_for("split", family, *key) % 5]


def split_of(text: str) -> Split | None:
    """The split of a human turn, or None where it is not of the grammar."""
    ask = read_ask(text)
    return split_of_key(ask.family, ask.key) if ask else None


def draw_ask(family: str, rng: random.Random, *, split: Split) -> Ask:
    """One ask of the family whose key lies in the split."""
    if family not in FAMILIES:
        raise ValueError(f"the embedded world has the families {', '.join(FAMILIES)}, not {family!r}")
    while True:
        ask = _ANY[family](rng)
        if split_of_key(family, ask.key) == split:
            return ask


def draw_dialogue(task: str, rng: random.Random, *, split: Split, multi_turn: float = 0.25) -> list[Turn]:
    """A dialogue that ends with a human turn of the split; with chance ``multi_turn`` it has an earlier exchange.

    The earlier human turn is always of the train split, its reply is drawn as under the plain cue.
    """
    turns = []
    if rng.random() < multi_turn:
        earlier = draw_ask(task, rng, split="train")
        turns = [Turn("human", earlier.text), Turn("assistant", answer(earlier, rng, quality(rng, "plain")))]
    return [*turns, Turn("human", draw_ask(task, rng, split=split).text)]


def answer(ask: Ask, rng: random.Random, good: str, axis: int | None = None) -> str:
    """A whole assistant turn of the quality, with the response lead where the task has one."""
    return tasks.load(ask.family).lead + reply(ask, rng, good, axis=axis)


def _helpful(rng: random.Random) -> Ask:
    kind = rng.choice(("how", "how", "things", "place", "time"))
    pattern = rng.choice([q for q in QUESTIONS if q.kind == kind])
    opening = rng.choice(OPENINGS[1:]) if rng.random() < 0.4 else ""
    ending = rng.choice(ENDINGS[1:]) if rng.random() < 0.3 else ""
    return make_ask("helpful", pattern, {"activity": rng.choice(tuple(ACTIVITIES))}, opening=opening, ending=ending)


def _harmless(rng: random.Random) -> Ask:
    opening = rng.choice(OPENINGS[1:]) if rng.random() < 0.3 else ""
    if rng.random() < 0.65:
        return make_ask("harmless", rng.choice(REQUESTS), {"deed": rng.choice(tuple(HARMS))}, opening=opening)
    return make_ask("harmless", rng.choice(RANTS), {"person": rng.choice(PERSONS), "fault": rng.choice(FAULTS)}, opening=opening)


def _outline(rng: random.Random) -> Ask:
    words = {slot: rng.choice(tuple(choices)) for slot, choices in PREMISE.slots.items()}
    return make_ask("outline", rng.choice(OUTLINE_ASKS), words)


_ANY = {"helpful": _helpful, "harmless": _harmless, "outline": _outline}
