"""The judges of an evaluation: made of their specs, asked about every policy against its references, and put into figures.

Replies to the same prompt and draw are compared, first draws only. What a judge said of each stays in ``judgements.jsonl``.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from lite.errors import RecipeError
from lite.evaluate import questions, winrate
from lite.evaluate.endpoint import Chat, Endpoint
from lite.evaluate.judges import ChoiceJudge, EndpointJudge, ScoreJudge, length_judge
from lite.evaluate.pairwise import Comparison, Judge, Judgement, Verdict, compare, comparisons, row
from lite.evaluate.questions import Form
from lite.knobs.judging import PairwiseJudge
from lite.model.bank import AdapterBank
from lite.model.choice import encode_choice, letter_logprobs
from lite.records import HeadToHead, Reply
from lite.stages.bench import Bench

Groups = Mapping[str, Sequence[Reply]]
"""Replies by model."""
Scores = Mapping[tuple[str, str], float | None]
"""By the plain dialogue and the reply without white space at its ends: what a judge is given."""


class Known(NamedTuple):
    """What is known of the replies before anybody is asked; None where there is no reward model or no oracle."""

    dialogues: Mapping[str, str]  # by prompt id, in the order of the test split
    rewards: Mapping[Reply, float] | None
    oracle: bool


class Judged(NamedTuple):
    figures: list[dict[str, Any]]  # one head to head each
    agreement: list[dict[str, Any]]  # of every two judges, each by its first form
    usage: list[dict[str, Any]]  # of the endpoints
    rows: list[HeadToHead]


class _Seat(NamedTuple):
    judge: Judge
    form: Form | None
    first_form: bool
    chat: Chat | None = None


def ask_judges(specs: Sequence[PairwiseJudge], groups: Groups, known: Known, *, out: Path, bench: Bench, bank: AdapterBank) -> Judged:
    """The verdicts of all judges in turn. Answers of an endpoint are kept in its cache, so going on after a stop asks no question twice; of
    several ranks the first alone asks it."""
    found = Judged([], [], [], [])
    said: dict[str, dict[str, Verdict]] = {}
    with bench.progress(len(specs), "judges", "evaluate: head to head") as bar:
        for spec in specs:
            for seat in _seats(spec, groups, known, bench, bank):
                for first, second, met in _matches(spec, groups, known.dialogues):
                    ask = partial(compare, seat.judge, met, seed=bench.seed_for("judge"), order=spec.order)
                    judgements = bench.ranks.by_first(ask) if seat.chat else ask()
                    winrate.require_readable(judgements, share=spec.readable)
                    found.figures.append(_figures(seat, spec, first, second, judgements, bench))
                    found.rows.extend(_rows(seat, first, second, judgements))
                    if seat.first_form:
                        said.setdefault(seat.judge.name, {}).update({f"{first}/{second}/{j.comparison.id}": j.verdict for j in judgements})
                if seat.chat:
                    found.usage.append(_usage(seat.chat, out))
            bar.advance(1)
    names = list(said)
    for i, one in enumerate(names):
        found.agreement.extend(
            {"one": one, "other": other, **asdict(winrate.agreement(said[one], said[other]))} for other in names[i + 1 :]
        )
    return found


def _seats(spec: PairwiseJudge, groups: Groups, known: Known, bench: Bench, bank: AdapterBank) -> Iterator[_Seat]:
    """A judge per question form; scores know no question, so there is one judge of each."""
    if spec.kind == "length":
        yield _Seat(length_judge(), None, True)
    elif spec.kind in ("reward", "oracle"):
        scores = _scores(spec, groups, known)
        yield _Seat(ScoreJudge(spec.kind, lambda rows: [scores.get(row) for row in rows]), None, True)
    else:
        forms = tuple(map(questions.form, spec.forms)) if spec.forms else questions.forms_of(bench.task)
        for form in forms:
            if spec.kind == "base":
                yield _Seat(ChoiceJudge("base", form, lambda prompts: _letters(prompts, bank, bench)), form, form == forms[0])
            else:
                chat = _chat(spec, bench)
                yield _Seat(EndpointJudge(chat, form, done=lambda _: bench.pause_first()), form, form == forms[0], chat)


def _scores(spec: PairwiseJudge, groups: Groups, known: Known) -> Scores:
    replies = [r for rows in groups.values() for r in rows]
    if spec.kind == "oracle":
        if not known.oracle:
            raise RecipeError("evaluate.judges", ["oracle: only the prompts of the embedded world (source: micro) have one"])
        return {(known.dialogues[r.id], r.text.strip()): r.score for r in replies}
    if known.rewards is None:
        raise RecipeError("evaluate.judges", ["reward: no stage before this one gives a reward model"])
    return {(known.dialogues[r.id], r.text.strip()): known.rewards.get(r) for r in replies}


def _letters(prompts: Sequence[str], bank: AdapterBank, bench: Bench) -> list[tuple[float, float]]:
    asked = [encode_choice(bank.base.tokenizer, prompt) for prompt in prompts]
    return [(found.a, found.b) for found in letter_logprobs(bank, asked, done=lambda _: bench.pause_inside())]


def _chat(spec: PairwiseJudge, bench: Bench) -> Chat:
    assert spec.endpoint is not None, "the spec of an endpoint judge has one"
    cache = Path(spec.endpoint.cache).expanduser() if spec.endpoint.cache else bench.ckpt / "answers.jsonl"
    return Chat(Endpoint(**spec.endpoint.model_dump(exclude={"cache"})), cache=cache)


def _usage(chat: Chat, out: Path) -> dict[str, Any]:
    """What was asked and paid; the answers are put beside the judgements."""
    if chat.cache.path and chat.cache.path.is_file():
        shutil.copyfile(chat.cache.path, out / "answers.jsonl")
    return {"judge": chat.endpoint.model, **asdict(chat.usage), "cost": chat.usage.cost(chat.endpoint)}


def _matches(spec: PairwiseJudge, groups: Groups, dialogues: Mapping[str, str]) -> Iterator[tuple[str, str, list[Comparison]]]:
    """Every model against each reference that stands before it, and against no model twice."""
    asked = set(list(dialogues)[: spec.prompts])
    once = {model: [r for r in rows if r.draw == 0 and r.id in asked] for model, rows in groups.items()}
    for i, second in enumerate(spec.versus):
        for first in once:
            if first not in spec.versus[: i + 1]:
                yield first, second, comparisons(once[first], once[second], dialogues)


def _figures(seat: _Seat, spec: PairwiseJudge, first: str, second: str, judgements: Sequence[Judgement], bench: Bench) -> dict[str, Any]:
    words = winrate.describe(first, second, judgements, seed=bench.seed_for("bootstrap"))
    return {"judge": seat.judge.name, "form": seat.form.name if seat.form else None, "order": spec.order, **words}


def _rows(seat: _Seat, first: str, second: str, judgements: Sequence[Judgement]) -> list[HeadToHead]:
    form = seat.form.name if seat.form else None
    return [HeadToHead(first=first, second=second, form=form, **row(judgement, seat.judge.name)) for judgement in judgements]
