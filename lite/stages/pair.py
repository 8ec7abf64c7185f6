"""Pairs: of every prompt's candidates the one with the best mean score against the one with the worst.

Yuan et al. 2024, section 2.2; the remedies are those of ``lite.text.selection``. ``second`` names another judge's scores of the same
candidates (the model of the round before): how far the two rank alike is the label of every pair, and the rest of it goes to the opposite
order (Wang et al. 2024, CREAM). ``anchors`` and ``anchor_judgements`` name an earlier model's candidates for the same prompts, from
which the rejected one is taken. A candidate with no readable judgement takes no part.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from lite.artifacts import Candidates, Judgements, Pairs
from lite.errors import DivergedError, RecipeError
from lite.evaluate.ranks import consistency
from lite.knobs.rounds import PairSpec
from lite.records import Candidate, Pair, write_rows
from lite.runs.publish import write_json
from lite.stages.bench import Bench
from lite.stages.reviews import scores_of
from lite.text import statistics
from lite.text.judging import mean_score
from lite.text.selection import REASONS, Choice, Scored, choose

SHOWN = 20
Means = Mapping[tuple[str, int], float | None]


def pair(
    spec: PairSpec,
    *,
    candidates: Candidates,
    judgements: Judgements,
    second: Judgements | None,
    anchors: Candidates | None,
    anchor_judgements: Judgements | None,
    out: Path,
    bench: Bench,
) -> Pairs:
    if (anchors is None) != (anchor_judgements is None):
        raise RecipeError("pair.from", ["anchors and anchor_judgements go together: candidates of an earlier model, and their scores"])
    rows, means = candidates.rows(), _means(judgements)
    of_prompt = _by_prompt(rows)
    old = _scored(anchors.rows(), _means(anchor_judgements)) if anchors and anchor_judgements else None
    own = _scored(rows, means)
    found = {
        id: choose(own.get(id, []), rho=spec.rho, min_gap=spec.min_gap, anchors=old.get(id, []) if old is not None else None)
        for id in of_prompt
    }
    agreement = _agreement(of_prompt, means, _means(second)) if second else None
    label = 1.0 if agreement is None else agreement
    losers = _by_prompt(anchors.rows()) if anchors else of_prompt
    pairs = [_pair(of_prompt[id], losers[id], choice, label) for id, choice in found.items() if isinstance(choice, Choice)]
    report = _report(found, pairs, rows, own) | {"consistency": agreement, "judge": judgements.report()["judge"]}
    bench.metric(pairs=report["pairs"], tie_rate=report["tie_rate"], gap=report["gap"], mean_score=report["mean_score"])
    _require_pairs(spec, report)
    write_rows(out / "pairs.jsonl", pairs)
    write_json(out / "report.json", report)
    for id, choice in list(found.items())[:SHOWN]:
        if isinstance(choice, Choice):
            bench.show(id=id, prompt=of_prompt[id][0].prompt, chosen=asdict(choice.chosen), rejected=asdict(choice.rejected))
    bench.log(f"{len(pairs)} pairs of {len(of_prompt)} prompts; dropped: {report['dropped']}")
    return Pairs(out)


def _means(judgements: Judgements) -> Means:
    return {place: mean_score(scores) for place, scores in scores_of(judgements.rows()).items()}


def _by_prompt(rows: Sequence[Candidate]) -> dict[str, list[Candidate]]:
    found: dict[str, list[Candidate]] = {}
    for row in rows:
        found.setdefault(row.id, []).append(row)
    return found


def _scored(rows: Sequence[Candidate], means: Means) -> dict[str, list[Scored]]:
    """The candidates of every prompt that can be compared: they ended, and somebody could read a score of them."""
    return {
        id: [Scored(c.k, c.text, score, c.tokens) for c in group if c.stop != "length" and (score := means.get((c.id, c.k))) is not None]
        for id, group in _by_prompt(rows).items()
    }


def _agreement(of_prompt: Mapping[str, Sequence[Candidate]], one: Means, other: Means) -> float | None:
    """How far two judges rank the candidates alike, over those that both could be read on; None where nothing can be compared."""
    rankings = []
    for group in of_prompt.values():
        both = [(x, y) for c in group if (x := one.get((c.id, c.k))) is not None and (y := other.get((c.id, c.k))) is not None]
        rankings.append(([x for x, _ in both], [y for _, y in both]))
    return consistency(rankings)


def _pair(winners: Sequence[Candidate], losers: Sequence[Candidate], choice: Choice, label: float) -> Pair:
    """``index`` and the directed prompts are RLCD's: here there is one prompt, the plain one."""
    prompt = winners[0].prompt
    return Pair(
        id=winners[0].id,
        prompt=prompt,
        chosen=choice.chosen.text,
        rejected=choice.rejected.text,
        label=label,
        p_plus=prompt,
        p_minus=prompt,
        index=0,
        attempts=1,
        stop_chosen=next(c.stop for c in winners if c.k == choice.chosen.k),
        stop_rejected=next(c.stop for c in losers if c.k == choice.rejected.k),
    )


def _report(
    found: Mapping[str, Choice | str], pairs: Sequence[Pair], rows: Sequence[Candidate], scored: Mapping[str, Sequence[Scored]]
) -> dict[str, Any]:
    dropped = Counter(reason for reason in found.values() if isinstance(reason, str))
    choices = [choice for choice in found.values() if isinstance(choice, Choice)]
    judged = [s for group in scored.values() for s in group]
    texts = statistics.report([(p.chosen, p.rejected) for p in pairs])
    compared = len(found) - dropped["too_few"]
    return {
        "prompts": len(found),
        "pairs": len(pairs),
        "dropped": {reason: dropped[reason] for reason in REASONS},
        "dropped_share": 1 - len(pairs) / len(found) if found else None,
        "tie_rate": dropped["tie"] / compared if compared else None,
        "gap": fmean(c.gap for c in choices) if choices else None,
        "mean_score": fmean(s.score for s in judged) if judged else None,
        "without_score": len(rows) - len(judged),
        "words": asdict(texts.length) if texts.length else None,
        "distinct": texts.distinct,
    }


def _require_pairs(spec: PairSpec, report: Mapping[str, Any]) -> None:
    """Two gates before any training: a judge that ties everything, and too few pairs."""
    good = f"the last good model is {report['judge']}"
    ties = report["tie_rate"]
    if ties is not None and ties > spec.most_ties:
        raise DivergedError(
            f"gate refused: the judge ties all candidates of {ties:.0%} of the prompts, more than most_ties = {spec.most_ties:.0%}; {good}"
        )
    if report["pairs"] < spec.min_pairs:
        raise DivergedError(
            f"gate refused: {report['pairs']} pairs of {report['prompts']} prompts (dropped: {report['dropped']}), "
            f"fewer than min_pairs = {spec.min_pairs}; {good}"
        )
