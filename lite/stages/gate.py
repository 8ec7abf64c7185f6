"""A round's figures, and whether it may go on: the new model beside the one before it and the instruction-tuned one.

Every model answers the same dev prompts and judges the same responses that people ranked (on the embedded world: the oracle), sampled and
greedily: the difference of the two is what sampling noise costs. A model is measured once: what an earlier gate wrote and judged with
it, in the same way, is taken over, so that a later round does not draw its luck anew. Replies are compared by the oracle where there is
one, else by the scores of the model before, a judge of one response at a time, so that no order can favour either; with ``both_orders`` the
base chooses between two replies as well. Where a gate is shut the round is refused: exit code 4, the reasons, and the last good model by
its name; the figures then lie in the stage's ``ckpt``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from lite.artifacts import Judgements, Pairs, Policy, Prompts, Round, Seed
from lite.errors import DivergedError
from lite.evaluate import oracle, summary
from lite.evaluate.gates import Gate, Health, Limits, gates
from lite.evaluate.judge_quality import TIE_RULE, Ranking, judge_quality
from lite.knobs.judging import PairwiseJudge
from lite.knobs.rounds import GateSpec
from lite.model.bank import AdapterBank
from lite.records import Prompt, Ranked, Reply, write_rows
from lite.runs.layout import stage_of
from lite.runs.publish import write_json
from lite.stages.answers import answers, head_to_head, scored
from lite.stages.bench import Bench
from lite.stages.judging import Known, ask_judges
from lite.stages.reviews import Court, Question, scores_of
from lite.text.dialogue import closed
from lite.text.dialogue import prompt as plain_prompt
from lite.text.judging import mean_score, readable_share

POLICY = "policy"


def gate(
    spec: GateSpec,
    *,
    policy: Policy,
    before: Policy | None,
    baseline: Policy | None,
    seed: Seed,
    prompts: Prompts,
    pairs: Pairs | None,
    judgements: Judgements | None,
    rounds: Mapping[str, Round],
    out: Path,
    bench: Bench,
) -> Round:
    models = {stage_of(p.path): p for p in (policy, before, baseline) if p}
    name, name_before = stage_of(policy.path), stage_of(before.path) if before else None
    rows, ranked = prompts.rows("dev")[: spec.prompts], seed.ranked("judged")
    bank = bench.bank()
    how = _how(spec, seed)
    known = _known(rounds, how, rows)
    replies = [reply for model in models if model in known for reply in known[model].replies]
    figures: dict[str, dict[str, Any]] = {model: {"judge": known[model].judge} for model in models if model in known}
    per_model = len(rows) + sum(len(r.responses) for r in ranked) * (spec.judging.draws + 1)
    with bench.progress(len(models.keys() - known.keys()) * per_model, "texts", "gate: replies and judgements of every model") as bar:
        for model, artifact in models.items():
            if model not in known:
                replies += _replies(spec, model, artifact, rows, bank, bench, bar)
                figures[model] = {"judge": _judge(spec, model, artifact, ranked, bank, bench, bar)}
    on_world = prompts.read_json("report.json").get("source") == "micro"
    by_id = {row.id: row for row in rows}
    rated = oracle.judge(replies, by_id) if on_world else scored(spec, before or policy, replies, bank, bench)
    groups = summary.by_model(rated)
    for model, group in groups.items():
        figures[model] |= summary.describe(group)
    comparisons = {other: head_to_head(groups[name], groups[other]) for other in models if other != name}
    met = comparisons.get(name_before) if name_before else None
    verdicts = gates(
        _health(figures[name], policy),
        _health(figures[name_before], before) if before and name_before else None,
        Limits(spec.min_readable, spec.min_ended, spec.judge_drop, spec.longer, spec.min_change, spec.min_win_rate),
        win_rate=met["win_rate"] if met else None,
    )
    report = {
        "model": name,
        "before": name_before,
        "models": {model: figures[model] for model in models},
        "comparisons": list(comparisons.values()),
        "compared_by": "oracle" if on_world else stage_of((before or policy).path),
        "both_orders": _both_orders(name, groups, by_id, bank, bench, out) if spec.both_orders else [],
        "measured": how,
        "tie_rule": TIE_RULE,
        "adapter_change": policy.report().get("adapter_change"),
        "judging": judgements.report() if judgements else None,
        "pairs": pairs.report() if pairs else None,
        "gates": [asdict(verdict) for verdict in verdicts],
    }
    _metrics(report, bench)
    shut = [verdict for verdict in verdicts if not verdict.open]
    if shut and spec.refuse:
        write_rows(bench.ckpt / "replies.jsonl", rated)
        write_json(bench.ckpt / "report.json", report)
        raise DivergedError(_refusal(name, shut, before, bench))
    write_rows(out / "replies.jsonl", rated)
    write_json(out / "report.json", report)
    bench.log(f"{name}: {'; '.join(v.says for v in verdicts)}" + ("" if not shut else f"; SHUT: {', '.join(v.sign for v in shut)}"))
    return Round(out)


class Measured(NamedTuple):
    """What an earlier gate took from a model."""

    judge: dict[str, Any]
    replies: list[Reply]


def _how(spec: GateSpec, seed: Seed) -> dict[str, Any]:
    """All that a model's own figures hang on, besides the dev prompts."""
    knobs = {"prompts", "temperature", "top_p", "max_new_tokens", "judging"}
    drawn = spec.model_dump(mode="json", include=knobs, exclude={"judging": {"shared_prefix", "batch_rows"}})
    return drawn | {"seed": stage_of(seed.path)}


def _known(rounds: Mapping[str, Round], how: Mapping[str, Any], rows: Sequence[Prompt]) -> dict[str, Measured]:
    """The models that earlier gates measured in this way, on these prompts."""
    found: dict[str, Measured] = {}
    for earlier in rounds.values():
        report = earlier.report()
        if report["measured"] != how:
            continue
        for model, replies in summary.by_model(earlier.rows()).items():
            if [r.id for r in replies] == [row.id for row in rows]:
                found.setdefault(model, Measured(report["models"][model]["judge"], replies))
    return found


def _replies(
    spec: GateSpec, model: str, policy: Policy, rows: Sequence[Prompt], bank: AdapterBank, bench: Bench, bar: Any
) -> list[Reply]:  # fmt: skip
    bank.load(POLICY, policy.adapter)
    found = answers(spec, model, POLICY, rows, bank, bench, bar)
    bank.drop(POLICY)
    return found


def _judge(
    spec: GateSpec, model: str, policy: Policy, ranked: Sequence[Ranked], bank: AdapterBank, bench: Bench, bar: Any
) -> dict[str, Any]:  # fmt: skip
    """A model as a judge of ranked responses: the mean of its draws, a single draw, and greedily."""
    questions = [Question(row.id, k, row.prompt, text) for row in ranked for k, text in enumerate(row.responses)]
    court = Court(spec.judging, bench, bank, policy, name=f"judge-{model}")
    sampled = court.judge(questions, range(spec.judging.draws), bar)
    court.close()
    sure = Court(spec.judging.model_copy(update={"temperature": 0.0}), bench, bank, policy, name=f"greedy-{model}")
    greedy = sure.judge(questions, [0], bar)
    sure.close()
    scores = scores_of(sampled)
    return {
        **asdict(_quality(ranked, {place: mean_score(s) for place, s in scores.items()})),
        "readable": readable_share([j.score for j in sampled]),
        "single": asdict(_quality(ranked, {place: mean_score(s[:1]) for place, s in scores.items()})),
        "greedy": asdict(_quality(ranked, {(j.id, j.k): mean_score([j.score]) for j in greedy})),
    }


def _quality(ranked: Sequence[Ranked], means: Mapping[tuple[str, int], float | None]):
    return judge_quality([Ranking(row.ranks, tuple(means.get((row.id, k)) for k in range(len(row.ranks)))) for row in ranked])


def _both_orders(
    name: str, groups: Mapping[str, Sequence[Reply]], rows: Mapping[str, Prompt], bank: AdapterBank, bench: Bench, out: Path
) -> list[dict[str, Any]]:
    """The new model against every other, the untouched base choosing between two replies in both orders; a choice that turns is a tie."""
    known = Known({id: closed(plain_prompt(row.turns, lead=bench.task.lead)) for id, row in rows.items()}, None, oracle=False)
    found = []
    for other in [model for model in groups if model != name]:
        judge = PairwiseJudge(kind="base", order="both", versus=(other,))
        found += ask_judges([judge], {name: groups[name], other: groups[other]}, known, out=out, bench=bench, bank=bank).figures
    return found


def _health(figures: Mapping[str, Any], policy: Policy) -> Health:
    judge = figures["judge"]
    return Health(judge["readable"], judge["pairwise"], figures["stop_rate"], figures["tokens"], policy.report().get("adapter_change"))


def _metrics(report: Mapping[str, Any], bench: Bench) -> None:
    for model, found in report["models"].items():
        judge = found["judge"]
        kept = {key: judge[key] for key in ("pairwise", "best_of_five", "exact", "spearman", "kendall", "ties", "readable")}
        bench.metric(model=model, tokens=found["tokens"], ended=found["stop_rate"], success=found.get("success"), **kept)


def _refusal(name: str, shut: Sequence[Gate], before: Policy | None, bench: Bench) -> str:
    reasons = "; ".join(f"{verdict.sign} ({verdict.says})" for verdict in shut)
    good = f"the last good model is {stage_of(before.path)} ({before.adapter})" if before else "there is no model before it"
    return f"{bench.stage} refused {name}: {reasons}; {good}; the figures are in {bench.ckpt / 'report.json'}"
