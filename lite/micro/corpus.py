"""The corpus of the embedded base: fresh documents, each addressed by its number, never repeated.

Every prompt that the pipeline writes has its likeness here, made by the same modules: dialogues with and without stage
directions (``lite.text.dialogue``, ``lite.tasks``), two-way choices, reviews and question lists (``lite.templates``).
All asks are of the train split: the base has never seen a validation or test prompt.
"""

import math
import random
from dataclasses import dataclass

from lite import tasks, templates
from lite.chance import random_for
from lite.micro.grammar import (
    ACTIVITIES,
    CONCERN,
    FACTS,
    FAMILIES,
    HARMS,
    HEROES,
    INSTEAD,
    PREMISE,
    SITES,
    THINGS,
    TOOLS,
    TREASURES,
    read_ask,
)
from lite.micro.oracle import CRITERIA, Grade, grade, grade_ask
from lite.micro.replies import MIXTURE, QUALITIES, draw_points, fact, quality, reply
from lite.micro.splits import answer, draw_ask, draw_dialogue
from lite.text.dialogue import STOP, Turn, cue, render

CHOICE_SLOPE = 0.4
"""The letter of a choice document is right with odds exp(slope * score gap), so for about .72 of unequal pairs: one
point apart .60, five points .88. Equal scores are a coin's throw."""

REVIEWERS = {"careful": 0.35, "charmed": 0.45, "careless": 0.20}
"""Who wrote a review. The careful tell the truth. The charmed say yes to all criteria when the reply is polite and no
when it is not: the commonest habit is a wrong one, so that a judge has something to unlearn. The careless throw coins."""


@dataclass(frozen=True, slots=True)
class Document:
    """``closed``: the text is over and an end token follows; otherwise it was cut and nothing is learnt after it."""

    kind: str
    text: str
    closed: bool = True


def document(seed: int, number: int) -> Document:
    """Document ``number`` of the corpus: the same wherever and in whatever order it is drawn."""
    rng = random_for("corpus", seed, number)
    kind = rng.choices(list(SHARES), list(SHARES.values()))[0]
    return _MAKERS[kind](rng)


# -------------------------------------------------------------------------------------------------- dialogues


def _directed_turn(family: str, rng: random.Random, mode: str, axis: int) -> str:
    """One exchange as text; ``mode`` is plain, positive or negative."""
    ask = draw_ask(family, rng, split="train")
    direction = None if mode == "plain" else getattr(tasks.load(family).phrases[axis], mode)
    text = answer(ask, rng, quality(rng, mode), axis if mode == "negative" else None)
    return f"{render([Turn('human', ask.text)])}{cue(direction)} {text}"


def _modes(rng: random.Random) -> list[str]:
    """The cues of a dialogue's turns; a directed last turn mostly has the opposite direction before it."""
    if rng.random() < 0.68:
        return [rng.choices(("plain", "positive", "negative"), (40, 30, 30))[0]]
    roll = rng.random()
    if roll < 0.40:
        return ["plain", "plain"]
    if roll < 0.85:
        return rng.choice((["negative", "positive"], ["positive", "negative"]))
    return [rng.choice(tuple(MIXTURE)), rng.choice(tuple(MIXTURE))]


def _dialogue(family: str, rng: random.Random) -> Document:
    axis = rng.randrange(len(tasks.load(family).phrases))
    text = "".join(_directed_turn(family, rng, mode, axis) for mode in _modes(rng))
    roll = rng.random()
    if roll < 0.1:
        return Document(family, text)
    follow = f" {draw_ask(family, rng, split='train').text}" if roll < 0.4 else ""
    return Document(family, text + STOP + follow, closed=False)


# ----------------------------------------------------------------------------------------------- judge formats


def _draw_reply(turns: list[Turn], family: str, rng: random.Random) -> tuple[str, Grade]:
    ask = read_ask(turns[-1].text)
    assert ask is not None
    axis = rng.choice((None, 0, 1, 2)) if family == "outline" else None
    text = reply(ask, rng, rng.choice(QUALITIES), axis=axis).strip()
    return text, grade(turns, text)


def _pair(rng: random.Random) -> tuple[str, list[Turn], tuple[str, int], tuple[str, int]]:
    family = rng.choice(FAMILIES)
    turns = draw_dialogue(family, rng, split="train", multi_turn=0.2)
    (a, grade_a), (b, grade_b) = _draw_reply(turns, family, rng), _draw_reply(turns, family, rng)
    return family, turns, (a, grade_a.score), (b, grade_b.score)


def _choice(rng: random.Random) -> Document:
    family, turns, (a, score_a), (b, score_b) = _pair(rng)
    label = "A" if rng.random() < 1 / (1 + math.exp(CHOICE_SLOPE * (score_b - score_a))) else "B"
    principle = rng.choice(tasks.load(family).phrases).principle
    form = templates.load("choice").render(dialogue=render(turns), principle=principle, a=a, b=b)
    return Document("choice", form + label, closed=False)


def _marks(criteria: dict[str, bool]) -> str:
    return ", ".join(f"{name} {'yes' if met else 'no'}" for name, met in criteria.items())


def _notes(rng: random.Random) -> Document:
    """Honest notes in no form that the pipeline uses: what is there to be seen in one response, or in two."""
    if rng.random() < 0.5:
        family = rng.choice(FAMILIES)
        turns = draw_dialogue(family, rng, split="train", multi_turn=0.2)
        text, marks = _draw_reply(turns, family, rng)
        said = " ".join(filter(None, (tasks.load(family).lead, text)))
        return Document("notes", f"Notes.{render(turns)}{cue()} {said}\n\nIt is: {_marks(marks.criteria)}.")
    _, turns, (a, score_a), (b, score_b) = _pair(rng)
    end = "Both are alike." if score_a == score_b else f"({'A' if score_a > score_b else 'B'}) is ahead."
    return Document("notes", f"Notes.{render(turns)}\n\n(A) {a}\n\n(B) {b}\n\n(A) has {score_a} points. (B) has {score_b} points. {end}")


def verdict(criteria: dict[str, bool]) -> str:
    """What a review says after its cue: each criterion, then the total on the last line."""
    return f" {_marks(criteria)}.\nScore: {sum(criteria.values())}"


def _review(rng: random.Random) -> Document:
    ask = draw_ask("helpful", rng, split="train")
    text = reply(ask, rng, rng.choice(QUALITIES))
    criteria = grade_ask(ask, text).criteria
    reviewer = rng.choices(list(REVIEWERS), list(REVIEWERS.values()))[0]
    if reviewer == "charmed":
        criteria = dict.fromkeys(CRITERIA["helpful"], criteria["polite"])
    elif reviewer == "careless":
        criteria = {name: rng.random() < 0.5 for name in CRITERIA["helpful"]}
    return Document("review", templates.load("judge_micro").render(question=ask.text, response=text) + verdict(criteria))


def _instruct(rng: random.Random) -> Document:
    lines = [f"Question: {draw_ask('helpful', rng, split='train').text}" for _ in range(rng.randint(5, 9))]
    form = templates.load("instruct_micro").render(examples="\n".join(lines[:-1]))
    return Document("instruct", form + lines[-1].removeprefix("Question:") + "\n")


# ------------------------------------------------------------------------------------------- honest plain text


def _facts(rng: random.Random) -> Document:
    if rng.random() < 0.25:
        deed = rng.choice(tuple(HARMS))
        harm = HARMS[deed]
        return Document("facts", f"Never {deed}. {CONCERN.fill(a=harm.victim)} {INSTEAD.fill(a=harm.instead)}")
    parts = []
    for activity in rng.sample(tuple(ACTIVITIES), rng.choice((1, 1, 2))):
        kinds = rng.sample(FACTS, rng.randint(2, 4))
        parts.append(f"How to {activity}: " + " ".join(fact(activity, k, rng) for k in kinds))
    return Document("facts", "\n".join(parts))


def _premise(rng: random.Random) -> dict[str, str]:
    return dict(draw_ask("outline", rng, split="train").slots)


def _story(rng: random.Random) -> Document:
    """A premise and up to three tellings of it, every one faithful."""
    premise = _premise(rng)
    tellings = [" ".join(draw_points(premise, rng, rng.choice((3, 4)))) for _ in range(rng.randint(1, 3))]
    return Document("story", "\n".join([PREMISE.fill(**premise), *tellings]))


_WORDS = (*HEROES, *TREASURES, *SITES, *THINGS, *TOOLS)


def _echo(rng: random.Random) -> Document:
    """Any words, or who and what a premise names, said again: the shortest text that rewards copying."""
    if rng.random() < 0.5:
        words = ", ".join(rng.sample(_WORDS, rng.randint(3, 10)))
        return Document("echo", f"The words are: {words}. Again: {words}.")
    premise = _premise(rng)
    order = rng.sample(("hero", "treasure", "site"), 3)
    told = [f"The {slot} is the {premise[slot]}." for slot in order]
    return Document(
        "echo", " ".join([PREMISE.fill(**premise), *told, f"They {premise['deed']} the {premise['treasure']} in the {premise['site']}."])
    )


_MAKERS = {
    "helpful": lambda rng: _dialogue("helpful", rng),
    "harmless": lambda rng: _dialogue("harmless", rng),
    "outline": lambda rng: _dialogue("outline", rng),
    "choice": _choice,
    "notes": _notes,
    "review": _review,
    "instruct": _instruct,
    "facts": _facts,
    "story": _story,
    "echo": _echo,
}
SHARES = {
    "helpful": 0.20,
    "harmless": 0.12,
    "outline": 0.19,
    "choice": 0.12,
    "notes": 0.08,
    "review": 0.07,
    "instruct": 0.02,
    "facts": 0.04,
    "story": 0.09,
    "echo": 0.07,
}
"""Shares of documents, not of tokens."""
