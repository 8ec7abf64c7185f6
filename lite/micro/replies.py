"""Replies of a wanted quality: good, medium or bad. How likely each is under a cue is the base's character.

An unaligned base is a mixture: under the plain cue good replies are a minority, a stage direction shifts the odds
without fixing the outcome. The three directions of outline also choose how a bad outline fails.
"""

import random

from lite.micro.grammar import (
    ACTIVITIES,
    ASKED,
    CONCERN,
    FACT,
    FACTS,
    FIXED,
    FOES,
    HARMS,
    INSTEAD,
    INSULT,
    PLACES,
    POINTS,
    PREMISE,
    TALK,
    THINGS,
    TIMES,
    TOOLS,
    Ask,
)

QUALITIES = ("good", "medium", "bad")
MIXTURE = {"plain": (0.30, 0.28, 0.42), "positive": (0.72, 0.18, 0.10), "negative": (0.06, 0.22, 0.72)}
"""P(good), P(medium), P(bad) of a reply under the plain cue, a positive and a negative stage direction."""

FAILURES = ("unfaithful", "misnumbered", "unnumbered", "repeated", "off")
FAILURE_WEIGHTS = {None: (45, 15, 15, 15, 10), 0: (35, 5, 5, 40, 15), 1: (35, 30, 30, 5, 0), 2: (80, 5, 0, 5, 10)}
"""How a bad outline fails: no direction, then the axes of outline.yaml in order (interest, form, relevance)."""


def quality(rng: random.Random, mode: str) -> str:
    return rng.choices(QUALITIES, MIXTURE[mode])[0]


def reply(ask: Ask, rng: random.Random, good: str, *, axis: int | None = None) -> str:
    """One reply of the quality; for an outline the text after the response lead."""
    if ask.family == "outline":
        return _outline(dict(ask.slots), rng, good, axis)
    said = _helpful(ask, rng, good) if ask.family == "helpful" else _harmless(ask, rng, good)
    return " ".join(dict.fromkeys(said))


def fact(activity: str, kind: str, rng: random.Random, *, wrong: bool = False) -> str:
    """One sentence that tells a fact of the kind, true or wrong."""
    truth = ACTIVITIES[activity]
    pattern = rng.choice([p for p in FACT if p.kind == kind])
    if kind == "things":
        a, b = rng.sample([t for t in THINGS if t not in truth.things] if wrong else sorted(truth.things), 2)
        return pattern.fill(a=a, b=b)
    word = getattr(truth, kind)
    pool = {"tool": TOOLS, "place": PLACES, "time": TIMES}[kind]
    return pattern.fill(a=rng.choice([w for w in pool if w != word]) if wrong else word)


def _fixed(kind: str, rng: random.Random, chance: float = 1.0) -> list[str]:
    return [rng.choice(FIXED[kind])] if rng.random() < chance else []


def _helpful(ask: Ask, rng: random.Random, good: str) -> list[str]:
    activity, asked = ask["activity"], list(ASKED[ask.kind])
    others = [k for k in FACTS if k not in asked]
    rng.shuffle(others)

    def tell(kinds: list[str], wrong: int = -1) -> list[str]:
        return [fact(activity, k, rng, wrong=i == wrong) for i, k in enumerate(kinds)]

    if good == "good":
        more = others[: rng.choice((0, 1)) if len(asked) > 1 else rng.choice((1, 1, 2))]
        return _fixed("open", rng, 0.6) + tell(asked + more) + _fixed("close", rng, 0.5)
    roll = rng.random()
    if good == "medium":
        if roll < 0.5:  # right but short
            return _fixed("open", rng, 0.3) + tell(asked[:1])
        if roll < 0.8:  # one wrong fact
            kinds = asked + others[:1]
            return _fixed("open", rng, 0.4) + tell(kinds, wrong=rng.randrange(len(kinds)))
        return tell(others[: rng.choice((1, 2))]) + _fixed("close", rng, 0.3)  # not what was asked
    if roll < 0.70:
        kind = "evasive" if roll < 0.30 else "rude" if roll < 0.55 else "off"
        return _fixed(kind, rng) + _fixed(kind, rng, 0.4)
    if roll < 0.85:  # nothing right
        return [fact(activity, k, rng, wrong=True) for k in asked[:1] + others[: rng.choice((0, 1))]]
    return tell(asked[:1], wrong=rng.choice((-1, 0))) + _fixed(rng.choice(("rude", "evasive", "off")), rng)


def _harmless(ask: Ask, rng: random.Random, good: str) -> list[str]:
    rant = ask.kind == "rant"
    decline = _fixed("sympathy" if rant else "refuse", rng)
    roll = rng.random()
    if good == "good":
        if rant:
            fitting = [TALK.fill(a=ask["person"])]
        else:
            harm = HARMS[ask["deed"]]
            fitting = [CONCERN.fill(a=harm.victim), INSTEAD.fill(a=harm.instead)]
            fitting = fitting if roll < 0.5 else [rng.choice(fitting)]
        return decline + fitting + _fixed("close", rng, 0.25)
    if good == "medium":
        return decline if roll < 0.6 else _fixed("evasive" if roll < 0.8 else "off", rng)
    if roll < 0.55:
        return _fixed("open", rng, 0.5) + _fixed("comply", rng) + _fixed("comply", rng, 0.5)
    if roll < 0.85:
        insult = [INSULT.fill(a=ask["person"])] if rant and rng.random() < 0.6 else _fixed("rude", rng)
        return insult + _fixed("comply", rng, 0.4)
    return decline + _fixed("rude", rng)


def draw_points(premise: dict[str, str], rng: random.Random, count: int) -> list[str]:
    """Points of a story about the premise: a beginning, middles, an end, no point twice."""
    stages = ["begin", *["middle"] * (count - 2), "end"]
    points: list[str] = []
    for stage in stages:
        choices = [p.fill(**premise, foe=rng.choice(FOES)) for p in POINTS if p.kind == stage]
        points.append(rng.choice([c for c in choices if c not in points]))
    return points


def _other_premise(premise: dict[str, str], rng: random.Random) -> dict[str, str]:
    """A premise that shares no word with the given one."""
    return {slot: rng.choice([w for w in words if w != premise[slot]]) for slot, words in PREMISE.slots.items()}


def _outline(premise: dict[str, str], rng: random.Random, good: str, axis: int | None) -> str:
    points = draw_points(premise, rng, 3 if good != "good" else rng.choice((3, 3, 4)))
    numbers: list[int] | None = None
    if good == "medium":
        roll = rng.random()
        if roll < 0.4:  # too short
            points = points[: rng.choice((1, 2))]
        elif roll < 0.8:  # one point of another story
            at = rng.randrange(3)
            points[at] = draw_points(_other_premise(premise, rng), rng, 3)[at]
        else:  # the end comes before the middle, or the story starts in the middle
            points = rng.choice(([points[0], points[2], points[1]], [points[1], points[0], points[2]], points[::-1]))
    elif good == "bad":
        failure = rng.choices(FAILURES, FAILURE_WEIGHTS[axis])[0]
        if failure == "unfaithful":
            points = draw_points(_other_premise(premise, rng), rng, rng.choice((3, 3, 4)))
        elif failure == "misnumbered":
            numbers = rng.choice(([1, 1, 2], [1, 3, 2], [2, 1, 4], [3, 2, 1], [1, 2, 2], [2, 3, 4]))
        elif failure == "unnumbered":
            return "".join(f"\n{p}" for p in points)
        elif failure == "repeated":
            points = [points[0], *[points[rng.randrange(2)]] * 2]
        else:
            points = rng.sample(FIXED["off"] + FIXED["evasive"], 2)
    return "".join(f"\n{n}. {p}" for n, p in zip(numbers or range(1, len(points) + 1), points, strict=True))
