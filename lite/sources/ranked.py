"""Questions with responses that people ranked, and where they come from: the embedded world, OpenAssistant, a local file.

All give :class:`Question`, in an order that does not change; which are used for what is decided by the stage ``seed``.
"""

from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from lite.chance import random_for
from lite.errors import RecipeError
from lite.micro.grammar import Ask
from lite.micro.oracle import grade_ask
from lite.micro.replies import QUALITIES, reply
from lite.micro.splits import Split, draw_ask
from lite.sources.files import read_file
from lite.sources.rows import SchemaError
from lite.text.dialogue import has_tag
from lite.yamltext import shown

TRIES = 60
"""Draws of replies to one question of the embedded world until enough of them differ in score."""


class Question(NamedTuple):
    """``responses`` and their ranks, 0 the best; equal ranks are ties."""

    text: str
    responses: tuple[str, ...]
    ranks: tuple[int, ...]

    @property
    def best(self) -> str:
        return self.responses[self.ranks.index(min(self.ranks))]

    @property
    def orders(self) -> bool:
        """Whether the ranks tell any two responses apart."""
        return len(set(self.ranks)) > 1


def from_world(family: str, n: int, *, split: Split, responses: int, place: Sequence[str | int]) -> list[Question]:
    """Questions of the embedded world with replies of all qualities, ranked by the oracle; no two replies to a question have one score."""
    found: dict[str, Question] = {}
    for draw in count():
        if len(found) == n:
            return list(found.values())
        if draw > 40 * (n + 10):
            raise RecipeError("seed", [f"the embedded world has hardly more than {len(found)} different questions; ask for fewer"])
        rng = random_for(*place, draw)
        ask = draw_ask(family, rng, split=split)
        by_score: dict[int, str] = {}
        for _ in range(TRIES):
            text = reply(ask, rng, rng.choice(QUALITIES))
            by_score.setdefault(grade_ask(ask, text).score, text)
            if len(by_score) == responses:
                break
        if len(by_score) > 1 and ask.text not in found:
            scores = rng.sample(sorted(by_score), len(by_score))
            ranks = tuple(sorted(by_score, reverse=True).index(score) for score in scores)
            found[ask.text] = Question(ask.text, tuple(by_score[score] for score in scores), ranks)
    raise AssertionError("count() has no end")


def instructions_from_world(family: str, n: int, *, good: float, place: Sequence[str | int]) -> list[Question]:
    """Train questions of the embedded world with one reply each: good, or medium (short, one thing wrong, beside the point)."""
    found: dict[str, Question] = {}
    for draw in count():
        if len(found) == n:
            break
        rng = random_for(*place, draw)
        ask: Ask = draw_ask(family, rng, split="train")
        if ask.text not in found:
            found[ask.text] = Question(ask.text, (reply(ask, rng, "good" if rng.random() < good else "medium"),), (0,))
    return list(found.values())


def from_file(path: Path, *, most: int) -> list[Question]:
    """Rows ``{"prompt": text, "responses": [{"text": ..., "rank": 0}, ...]}``; all that is wrong with a file is told at once."""
    found, problems = [], []
    for where, row in read_file(path, plain="prompt"):
        try:
            found.append(read_question(row, most=most))
        except SchemaError as e:
            problems.append(f"{where}: {e}")
    if problems:
        raise RecipeError(str(path), [*problems[:10], *([f"... and {len(problems) - 10} more"] if len(problems) > 10 else [])])
    return [question for question in found if not has_tag(question.text)]


def read_question(row: Any, *, most: int) -> Question:
    if isinstance(row, SchemaError):
        raise row
    responses = row.get("responses") if isinstance(row, dict) else None
    if not isinstance(row, dict) or not isinstance(row.get("prompt"), str) or not row["prompt"].strip():
        raise SchemaError(f"prompt: a text is needed (got {shown(row)})")
    if not isinstance(responses, list) or not responses:
        raise SchemaError(f"responses: a list of {{text, rank}} is needed (got {shown(responses)})")
    for response in responses:
        rank = response.get("rank") if isinstance(response, dict) else None
        if not isinstance(response, dict) or not isinstance(response.get("text"), str) or not isinstance(rank, int) or rank < 0:
            raise SchemaError(f"responses: each is a text with a rank from 0 up (got {shown(response)})")
    return ranked(row["prompt"].strip(), [(response["text"].strip(), response["rank"]) for response in responses], most=most)


def ranked(text: str, responses: Sequence[tuple[str, int]], *, most: int) -> Question:
    """At most so many of the responses, the best ones and the worst one, so that there is something to tell apart."""
    ordered = sorted(responses, key=lambda r: r[1])
    kept = ordered[:most] if len(ordered) <= most or most == 1 else [*ordered[: most - 1], ordered[-1]]
    return Question(text, tuple(r for r, _ in kept), tuple(rank for _, rank in kept))


def distinct(questions: Sequence[Question]) -> Iterator[Question]:
    """The questions, each once: two are the same if they differ only in case and white space."""
    seen = set()
    for question in questions:
        key = same(question.text)
        if key not in seen:
            seen.add(key)
            yield question


def same(text: str) -> str:
    return " ".join(text.casefold().split())
