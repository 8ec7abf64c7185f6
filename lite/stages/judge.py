"""Judgements: the model scores its own candidates, several times each, reason first.

Yuan et al. 2024, section 2.2: the same M_t that wrote the candidates is the judge; the mean of ``draws`` judgements counts, to
smooth the noise of one. Every judgement is kept with its text. ``adaptive`` leaves out judgements that could change neither the best nor
the worst candidate of a prompt; the pairs are the same (the plain ones: length control and gaps look at exact means).
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lite.artifacts import Candidates, Judgements, Policy
from lite.errors import JudgeError
from lite.knobs.rounds import JudgeSpec
from lite.records import Candidate, Judgement, write_rows
from lite.runs.layout import stage_of
from lite.runs.publish import write_json
from lite.stages.bench import Bench
from lite.stages.reviews import Court, Question, scores_of
from lite.text.judging import HIGHEST, readable_share, still_open

SHOWN = 20


def judge(spec: JudgeSpec, *, candidates: Candidates, policy: Policy, out: Path, bench: Bench) -> Judgements:
    rows = candidates.rows()
    questions = [Question(c.id, c.k, c.prompt, c.text) for c in rows]
    court = Court(spec, bench, bench.bank(), policy)
    most = len(questions) * spec.draws
    with bench.progress(most, "judgements", f"judge: {spec.draws} judgements of each candidate") as bar:
        found = _adaptive(spec, court, questions, bar) if spec.adaptive else court.judge(questions, range(spec.draws), bar)
    report = _report(found, candidates=len(rows), most=most) | {"judge": stage_of(policy.path), "template": court.template.hash}
    bench.metric(**report)
    _require_readable(report, found, spec, report["judge"])
    write_rows(out / "judgements.jsonl", found)
    write_json(out / "report.json", report)
    _show(rows, found, bench)
    saved = f"; {report['saved']} of {most} were not needed" if spec.adaptive else ""
    bench.log(f"{len(found)} judgements, {report['readable']:.3f} of them readable{saved}")
    return Judgements(out)


def _adaptive(spec: JudgeSpec, court: Court, questions: Sequence[Question], bar: Any) -> list[Judgement]:
    """One draw after another, each for the candidates that can still become the best or the worst of their prompt."""
    of_prompt: dict[str, list[int]] = {}
    for i, question in enumerate(questions):
        of_prompt.setdefault(question.id, []).append(i)
    drawn: list[list[Judgement]] = [[] for _ in questions]
    for d in range(spec.draws):
        open_ = sorted(
            members[k] for members in of_prompt.values() for k in still_open([[j.score for j in drawn[i]] for i in members], spec.draws)
        )
        if not open_:
            break
        for i, judgement in zip(open_, court.judge([questions[i] for i in open_], [d], bar), strict=True):
            drawn[i].append(judgement)
    return [judgement for judgements in drawn for judgement in judgements]


def _report(found: Sequence[Judgement], *, candidates: int, most: int) -> dict[str, Any]:
    histogram = Counter(j.score for j in found)
    spread = [max(read) - min(read) for scores in scores_of(found).values() if (read := [s for s in scores if s is not None])]
    return {
        "candidates": candidates,
        "judgements": len(found),
        "saved": most - len(found),
        "readable": readable_share([j.score for j in found]) or 0.0,
        "unreadable": {
            "cut": sum(j.stop == "length" for j in found),
            "no_score": sum(j.score is None and j.stop != "length" for j in found),
        },
        "histogram": {score: histogram[score] for score in range(HIGHEST + 1)},
        "spread": sum(spread) / len(spread) if spread else None,
    }


def _require_readable(report: dict[str, Any], found: Sequence[Judgement], spec: JudgeSpec, judge: str) -> None:
    if report["readable"] >= spec.min_readable and found:
        return
    strange = next((j for j in found if j.score is None), None)
    cut = report["unreadable"]["cut"]
    advice = (
        "raise max_new_tokens"
        if 2 * cut > len(found) - report["readable"] * len(found)
        else "train the judge on more reviews (eft), or lower the learning rate"
    )
    raise JudgeError(
        f"only {report['readable']:.0%} of {len(found)} judgements of {judge} could be read ({cut} were cut off at {spec.max_new_tokens} tokens), "
        f"less than min_readable = {spec.min_readable:.0%}: {advice}; one that could not: {(strange.text[-200:] if strange else '')!r}"
    )


def _show(rows: Sequence[Candidate], found: Sequence[Judgement], bench: Bench) -> None:
    judged: dict[tuple[str, int], list[Judgement]] = {}
    for j in found:
        judged.setdefault((j.id, j.k), []).append(j)
    for row in rows[:SHOWN]:
        said = [{"score": j.score, "text": j.text.strip()} for j in judged.get((row.id, row.k), [])]
        bench.show(id=row.id, k=row.k, prompt=row.prompt, candidate=row.text.strip(), judgements=said)
