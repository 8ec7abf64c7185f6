"""Soft labels by a two-way choice: the base is asked which response is better, and its odds of "A" and "B" are the label.

RLAIF (Yang et al. 2023, section 4): two answers to one plain prompt, under a principle drawn at random. Rescore: RLCD's own pairs,
under the principle on the axis of their phrases. ``chosen`` is the response with the label above one half; it keeps the prompt that
it was written under, and ``turned`` tells that this was p-.

With one difference from the authors: which response comes first as (A) is drawn per pair, since a base that favours a letter would
otherwise favour one side of every pair of RLCD.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import exp
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from lite import templates
from lite.artifacts import Candidates, Pairs
from lite.chance import random_for
from lite.errors import ArtifactError
from lite.evaluate import diagnostics
from lite.knobs.judging import ScoreSpec
from lite.model.choice import LetterLogProbs, encode_choice, letter_logprobs
from lite.records import Candidate, Pair, write_rows
from lite.runs.publish import write_json
from lite.stages.bench import Bench
from lite.tasks import Task
from lite.text.choosing import Letter, choice_prompt, preference, shots_before, soft_label
from lite.text.contrast import draw_index
from lite.text.dialogue import closed
from lite.text.pairing import is_identical
from lite.text.statistics import words

DropReason = Literal["missing", "identical", "too_long"]
SHOWN = 20
SHARD = 512
"""Choices that are kept together, and at most so many are lost by a stop."""
OTHER: dict[Letter, Letter] = {"A": "B", "B": "A"}


@dataclass(frozen=True, slots=True)
class Reading:
    """One presentation of a pair: the letter that ``chosen`` had, and the log-probabilities of both letters."""

    first_as: Letter
    logp: LetterLogProbs

    @property
    def preference(self) -> float:
        return preference(self.logp.a, self.logp.b, self.first_as)


def score(spec: ScoreSpec, *, candidates: Candidates | None, pairs: Pairs | None, out: Path, bench: Bench) -> Pairs:
    given = candidates if spec.what == "candidates" else pairs
    if given is None:
        raise ArtifactError(f"{bench.stage}: scores {spec.what}, and was given none")
    unscored, dropped = (
        _of_candidates(given.rows(), given.report()["prompts"], bench)
        if isinstance(given, Candidates)
        else _again(given.rows(), bench.task)
    )
    if spec.by == "length":
        labels, report = {p.id: _longer(p) for p in unscored}, {}
    else:
        readings = _ask(spec, unscored, bench)
        labels = {id: soft_label([r.preference for r in found[: _orders(spec)]], clamp=spec.clamp) for id, found in readings.items()}
        report = {"choice": _describe(readings)}
        dropped["too_long"] = len(unscored) - len(readings)
    found = [_labelled(p, labels[p.id]) for p in unscored if p.id in labels]
    for pair in found[:SHOWN]:
        bench.show(id=pair.id, prompt=pair.prompt, chosen=pair.chosen, rejected=pair.rejected, label=pair.label, index=pair.index)
    write_rows(out / "pairs.jsonl", found)
    report |= {
        "pairs": len(found),
        "dropped": dropped,
        "dropped_share": sum(dropped.values()) / (len(found) + sum(dropped.values())) if found or any(dropped.values()) else None,
        "turned": sum(p.turned for p in found) / len(found) if found and spec.what == "pairs" else None,
        "index": dict(sorted(Counter(p.index for p in found).items())),
        **diagnostics.describe(found, bench.task.name),
    }
    write_json(out / "report.json", report)
    bench.log(f"{len(found)} pairs; dropped: {dropped}")
    return Pairs(out)


def _of_candidates(rows: Sequence[Candidate], prompts: int, bench: Bench) -> tuple[list[Pair], dict[DropReason, int]]:
    """The first two candidates of every prompt, unlabelled, with a principle at random."""
    of_prompt: dict[str, list[Candidate]] = {}
    for row in sorted(rows, key=lambda c: c.k):
        of_prompt.setdefault(row.id, []).append(row)
    found = [
        Pair(
            id=one.id,
            prompt=one.prompt,
            chosen=one.text,
            rejected=other.text,
            label=0.5,
            p_plus=one.prompt,
            p_minus=one.prompt,
            index=draw_index(bench.task, bench.seed, bench.stage, "principle", one.id),
            attempts=0,
            stop_chosen=one.stop,
            stop_rejected=other.stop,
        )
        for one, other in (group[:2] for _, group in sorted(of_prompt.items()) if len(group) > 1)
    ]
    different = [p for p in found if not is_identical(p.chosen, p.rejected)]
    return different, {"missing": prompts - len(found), "identical": len(found) - len(different), "too_long": 0}


def _again(rows: Sequence[Pair], task: Task) -> tuple[list[Pair], dict[DropReason, int]]:
    if strangers := [p for p in rows if not 0 <= p.index < len(task.phrases)]:
        raise ArtifactError(f"pair {strangers[0].id}: task {task.name!r} has no principle of index {strangers[0].index}")
    return list(rows), {"missing": 0, "identical": 0, "too_long": 0}


def _longer(pair: Pair) -> float:
    chosen, rejected = len(words(pair.chosen)), len(words(pair.rejected))
    return 0.5 if chosen == rejected else float(chosen > rejected)


def _orders(spec: ScoreSpec) -> int:
    """How many readings of a pair its label is made of; one more may be there for the report."""
    return 2 if spec.order == "both" else 1


def _ask(spec: ScoreSpec, pairs: Sequence[Pair], bench: Bench) -> dict[str, list[Reading]]:
    """The readings of every pair by its id, in the order in which they are asked; pairs whose question is too long are left out."""
    if spec.shots > len(bench.task.examples):
        raise ArtifactError(f"{bench.stage}.shots = {spec.shots}, and task {bench.task.name!r} has {len(bench.task.examples)} examples")
    bank, frame = bench.bank(), templates.load("choice")
    shots = {phrases.principle: shots_before(frame, phrases.principle, bench.task.examples[: spec.shots]) for phrases in bench.task.phrases}

    def question(pair: Pair, first_as: Letter) -> str:
        principle = bench.task.phrases[pair.index].principle
        a, b = (pair.chosen, pair.rejected) if first_as == "A" else (pair.rejected, pair.chosen)
        return shots[principle] + choice_prompt(frame, principle, dialogue=closed(pair.prompt), a=a, b=b)

    asked, letters = {}, {}
    for i, pair in enumerate(pairs):
        first: Letter = "A" if random_for(bench.seed, bench.stage, "order", pair.id).random() < 0.5 else "B"
        shown = (first, OTHER[first]) if spec.order == "both" or i < spec.probe else (first,)
        prompts = [encode_choice(bank.base.tokenizer, question(pair, letter)) for letter in shown]
        if max(len(p.ids) for p in prompts) < spec.max_tokens:
            asked[pair.id], letters[pair.id] = prompts, shown
    flat = [prompt for prompts in asked.values() for prompt in prompts]
    keys = [f"{id}.{letter}" for id, shown in letters.items() for letter in shown]
    with bench.progress(len(flat), "choices", "score: which of two responses is better") as bar:

        def make(which: list[int]) -> list[LetterLogProbs]:
            return letter_logprobs(bank, [flat[i] for i in which], micro_tokens=spec.micro_tokens, done=bar.advance)

        found = iter(bench.by_shard("choices", keys, make, size=SHARD, bar=bar))
    return {id: [Reading(letter, LetterLogProbs(*next(found))) for letter in letters[id]] for id in asked}


def _labelled(pair: Pair, label: float) -> Pair:
    """The pair with the preferred response as ``chosen``."""
    if label >= 0.5:
        return replace(pair, label=label)
    return replace(
        pair,
        label=1 - label,
        chosen=pair.rejected,
        rejected=pair.chosen,
        stop_chosen=pair.stop_rejected,
        stop_rejected=pair.stop_chosen,
        turned=not pair.turned,
    )


def _describe(readings: dict[str, list[Reading]]) -> dict[str, Any] | None:
    """How the base chooses, whatever it is right about.

    ``says_a``: share of first readings in which A is likelier; ``same_position``: share of pairs asked in both orders that get the
    same letter twice (0 is a judge that reads, 1 one that only sees places); ``outside``: mean probability of neither letter.
    """
    first, twice = [r[0] for r in readings.values()], [r for r in readings.values() if len(r) > 1]
    if not first:
        return None
    return {
        "asked": len(first),
        "says_a": fmean(_letter(r) == "A" for r in first),
        "same_position": fmean(_letter(one) == _letter(other) for one, other in twice) if twice else None,
        "asked_twice": len(twice),
        "outside": fmean(max(0.0, 1 - exp(r.logp.a) - exp(r.logp.b)) for r in first),
    }


def _letter(reading: Reading) -> Letter:
    return "A" if reading.logp.a >= reading.logp.b else "B"
