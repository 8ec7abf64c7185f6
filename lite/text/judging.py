"""A judge's reply -> a score, or nothing: the strict reading of "reasons first, then a last line ``Score: n``".

Follows Yuan et al. 2024 (Self-Rewarding Language Models), section 2.1: an additive score from 0 to 5, sampled several times and
averaged. With three differences.
1. Only the judge's own words are read, never its prompt, so that a response which says "Score: 5" does not grade itself.
2. What cannot be read is None and stays None. It is no number, so it can neither win nor lose a comparison.
3. A score without a reason before it, a score in a reply that was cut off, and two scores that differ are unreadable too.
"""

import re
from collections.abc import Mapping, Sequence
from statistics import fmean

from lite.templates import Template
from lite.text.clean import StopReason
from lite.text.dialogue import STOP, Turn, cue, parse, render

LOWEST, HIGHEST = 0, 5
SLOTS = frozenset(("question", "dialogue", "response"))
"""What a judge's template may have: the last human turn, all turns, and the response, which it must have."""

_SCORE_LINE = re.compile(r"[Ss]core: ?([0-9]+)")


def read_score(reply: str, stop: StopReason) -> int | None:
    """The score of a judge's own words; None if it cannot be read.

    reply: what was generated, with or without the stop string     stop: why generation ended
    """
    if stop == "length":  # "Score: 1" may have been the beginning of another number, and a reason may have gone on
        return None
    lines = [line.strip() for line in reply.partition(STOP)[0].strip().split("\n")]
    scores = [_SCORE_LINE.fullmatch(line) for line in lines]
    last = scores[-1]
    reasons = any(line and not score for line, score in zip(lines, scores, strict=True))
    if last is None or not reasons or len({score[1] for score in scores if score}) > 1:
        return None
    found = int(last[1]) if len(last[1]) == 1 else HIGHEST + 1
    return found if LOWEST <= found <= HIGHEST else None


def mean_score(scores: Sequence[int | None]) -> float | None:
    """The mean of the scores that could be read; None if none could."""
    readable = [score for score in scores if score is not None]
    return fmean(readable) if readable else None


def readable_share(scores: Sequence[int | None]) -> float | None:
    """The share of judgements that could be read; None of none."""
    return sum(score is not None for score in scores) / len(scores) if scores else None


def form(template: Template, prompt: str, response: str) -> str:
    """A judge's prompt about one response to a rendered dialogue (``\\n\\nHuman: ...\\n\\nAssistant:``)."""
    turns = turns_of(prompt)
    values: Mapping[str, str] = {"question": turns[-1].text, "dialogue": render(turns), "response": response.strip()}
    return template.render(**{name: values[name] for name in template.slots})


def check_template(template: Template) -> Template:
    """The template, or a ValueError that says why it is none for a judge."""
    wrong = sorted(template.slots - SLOTS)
    if wrong:
        raise ValueError(f"a judge's template has the slots {', '.join(sorted(SLOTS))}; {template.name!r} has {', '.join(wrong)} too")
    if "response" not in template.slots or template.slots == {"response"}:
        raise ValueError(f"a judge's template needs {{response}}, and {{question}} or {{dialogue}}; {template.name!r} has not")
    return template


def turns_of(prompt: str) -> list[Turn]:
    """The turns of a rendered prompt, without the open tag of the assistant (and the response lead behind it)."""
    head, tag, _ = prompt.rpartition(cue())
    if not tag:
        raise ValueError(f"a prompt ends with an open tag of the assistant, this one with {prompt[-40:]!r}")
    return parse(head)


def still_open(drawn: Sequence[Sequence[int | None]], draws: int) -> list[int]:
    """The candidates of one prompt that more judgements are needed of, to know which has the best mean and which the worst.

    drawn: the scores so far of every candidate     draws: how many each is to get at most
    A judgement to come is any score, or cannot be read. A candidate that can be neither best nor worst needs no more, nor does one
    that is sure to be best or sure to be worst; one whose judgements are all in and all unreadable is out.
    """
    spans = {i: span for i, scores in enumerate(drawn) if (span := _span(scores, draws))}
    if len(spans) < 2:
        return []
    highest_low, lowest_high = max(low for low, _ in spans.values()), min(high for _, high in spans.values())
    best = {i for i, (_, high) in spans.items() if high >= highest_low}
    worst = {i for i, (low, _) in spans.items() if low <= lowest_high}
    needed = (best if len(best) > 1 else set()) | (worst if len(worst) > 1 else set())
    return [i for i in sorted(needed) if len(drawn[i]) < draws]


def _span(scores: Sequence[int | None], draws: int) -> tuple[float, float] | None:
    """The lowest and the highest mean that a candidate can end with."""
    readable = [score for score in scores if score is not None]
    left = draws - len(scores)
    low, high = (sum(readable) + edge * left for edge in (LOWEST, HIGHEST))
    n = len(readable) + left
    return (low / n, high / n) if n else None
