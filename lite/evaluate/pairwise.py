"""Two responses to one prompt: in which order a judge sees them, how its reply is read, and what its readings come to.

A judge sees a response A and a response B and gives a READING of that presentation. Undoing the order makes it a VERDICT on the
first and the second response. Both know "could not be read" as a value of its own: it becomes a number (one half) only where a
win rate is made of verdicts, and is counted there.

Follows Yang et al. 2023, appendix: the order of every comparison is drawn with probability one half. The draw belongs to the
comparison's id, so it does not change with the judge, with resuming or with other comparisons. ``both`` orders cost twice as
much; a judge that then contradicts itself has said "tie".
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, cast, get_args

from lite.chance import random_for
from lite.records import Reply
from lite.text.pairing import is_identical

Choice = Literal["A", "B", "tie"]
Side = Literal["first", "second", "tie"]
Letter = Literal["A", "B"]
Order = Literal["drawn", "both"]
Why = Literal["no_verdict", "cut", "refused", "rejected", "malformed", "no_answer", "no_score"]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What a judge said, if anything, and why no verdict could be read from it."""

    reply: str
    why: Why = "no_verdict"


Reading: TypeAlias = Choice | Unreadable
Verdict: TypeAlias = Side | Unreadable


@dataclass(frozen=True, slots=True)
class Comparison:
    """``prompt`` is the dialogue without an open tag; ids are unique, prompts need not be (several draws of one prompt)."""

    id: str
    prompt: str
    first: str
    second: str


@dataclass(frozen=True, slots=True)
class Question:
    """One presentation of a comparison."""

    id: str
    prompt: str
    a: str
    b: str


class Judge(Protocol):
    @property
    def name(self) -> str: ...

    def judge(self, questions: Sequence[Question]) -> list[Reading]:
        """One reading per question, in their order."""
        ...


@dataclass(frozen=True, slots=True)
class Showing:
    """One presentation and its reading; ``first_as`` is the letter that the first response had."""

    first_as: Letter
    reading: Reading

    @property
    def verdict(self) -> Verdict:
        if isinstance(self.reading, Unreadable):
            return self.reading
        if self.reading == "tie":
            return "tie"
        return "first" if self.reading == self.first_as else "second"


@dataclass(frozen=True, slots=True)
class Judgement:
    """``showings`` is empty for two responses with the same text, about which nobody need be asked: a tie."""

    comparison: Comparison
    showings: tuple[Showing, ...]

    @property
    def verdict(self) -> Verdict:
        """The one verdict of all showings: unreadable if one was, a tie if they contradict each other."""
        found: list[Verdict] = [showing.verdict for showing in self.showings]
        unreadable = next((verdict for verdict in found if isinstance(verdict, Unreadable)), None)
        if unreadable:
            return unreadable
        return found[0] if found and len(set(found)) == 1 else "tie"


def comparisons(first: Iterable[Reply], second: Iterable[Reply], prompts: Mapping[str, str]) -> list[Comparison]:
    """The replies of two models to the same prompt and draw, side by side; ``prompts`` holds the plain dialogue by prompt id."""
    other = {(reply.id, reply.draw): reply for reply in second}
    return [
        Comparison(f"{r.id}/{r.draw}", prompts[r.id], r.text.strip(), other[r.id, r.draw].text.strip())
        for r in first
        if (r.id, r.draw) in other
    ]


def compare(judge: Judge, pairs: Sequence[Comparison], *, seed: int, order: Order = "drawn") -> list[Judgement]:
    """The judgements of all comparisons, in their order; the judge is called once."""
    twice = [id for id, n in Counter(pair.id for pair in pairs).items() if n > 1]
    if twice:
        raise ValueError(f"comparisons share an id: {', '.join(twice[:5])}")
    different = [pair for pair in pairs if not is_identical(pair.first, pair.second)]
    asked: list[tuple[Comparison, Letter]] = [(pair, letter) for pair in different for letter in _letters(pair, seed, order)]
    readings = judge.judge([_question(pair, letter) for pair, letter in asked])
    showings: dict[str, tuple[Showing, ...]] = {}
    for (pair, letter), reading in zip(asked, readings, strict=True):
        showings[pair.id] = (*showings.get(pair.id, ()), Showing(letter, reading))
    return [Judgement(pair, showings.get(pair.id, ())) for pair in pairs]


def _letters(pair: Comparison, seed: int, order: Order) -> tuple[Letter, ...]:
    if order == "both":
        return ("A", "B")
    return ("A",) if random_for(seed, "order", pair.id).random() < 0.5 else ("B",)


def _question(pair: Comparison, first_as: Letter) -> Question:
    a, b = (pair.first, pair.second) if first_as == "A" else (pair.second, pair.first)
    return Question(pair.id, pair.prompt, a, b)


VERDICT = re.compile(r"[*_`#\s]*verdict[*_`]*\s*:[*_`\s]*[(\[]?(?:response\s+)?(a|b|tie)[)\]]?[*_`.\s]*", re.I | re.A)
_CHOICE: dict[str, Choice] = {"a": "A", "b": "B", "tie": "tie"}


def read_verdict(reply: str) -> Reading:
    """The verdict on the last line of what the judge GENERATED, never of its prompt.

    Only the last line that is not empty counts, and only if it is nothing but a verdict. A judge that quotes a response which
    says "Verdict: A" and then goes on, or never comes to an end, has given none.
    """
    lines = reply.strip().splitlines()
    found = VERDICT.fullmatch(lines[-1]) if lines else None
    return _CHOICE[found[1].lower()] if found else Unreadable(reply)


def row(judgement: Judgement, judge: str) -> dict[str, Any]:
    """One judgement as plain values, without the texts that were compared: they lie in the replies."""
    verdict = judgement.verdict
    return {
        "id": judgement.comparison.id,
        "judge": judge,
        "verdict": None if isinstance(verdict, Unreadable) else verdict,
        "showings": [_showing_row(showing) for showing in judgement.showings],
    }


def _showing_row(showing: Showing) -> dict[str, Any]:
    if isinstance(showing.reading, Unreadable):
        return {"first_as": showing.first_as, "reading": None, "why": showing.reading.why, "reply": showing.reading.reply}
    return {"first_as": showing.first_as, "reading": showing.reading}


def verdicts(rows: Iterable[Mapping[str, Any]]) -> dict[str, Verdict]:
    """The verdicts of such rows by comparison id."""
    return {str(found["id"]): _verdict(found) for found in rows}


def _verdict(found: Mapping[str, Any]) -> Verdict:
    if found["verdict"] in get_args(Side):
        return cast(Side, found["verdict"])
    reply, why = next((s.get("reply", ""), s["why"]) for s in found["showings"] if s["reading"] is None)
    return Unreadable(reply, why)
