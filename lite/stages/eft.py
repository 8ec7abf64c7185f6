"""Examples of judging: the instruction-tuned model reviews ranked responses, and its reviews are kept where they rank as people do.

Yuan et al. 2024, section 3.1.1. All responses to a question are judged together; the reviews of one draw are kept if every two
responses that people told apart have scores in that order; otherwise the question is drawn again, ``draws`` times at most. Then reviews
with the commonest score are dropped until it has no more than its share, since the judge would say little else.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from math import floor
from pathlib import Path

from lite import templates
from lite.artifacts import Examples, Policy, Seed
from lite.errors import JudgeError
from lite.knobs.rounds import EftSpec
from lite.records import Example, Judgement, Ranked, write_rows
from lite.runs.publish import write_json
from lite.stages.bench import Bench
from lite.stages.reviews import Court, Question
from lite.text.dialogue import STOP
from lite.text.judging import HIGHEST, form, readable_share

SHOWN = 10


def eft(spec: EftSpec, *, seed: Seed, policy: Policy, out: Path, bench: Bench) -> Examples:
    rows = seed.ranked("train")
    court = Court(spec, bench, bench.bank(), policy)
    agreed: dict[str, list[Judgement]] = {}
    asked: list[Judgement] = []
    most = sum(len(row.responses) for row in rows)
    with bench.progress(most * spec.draws, "judgements", "eft: reviews of ranked responses") as bar:
        for d in range(spec.draws):
            todo = [row for row in rows if row.id not in agreed]
            said = court.judge([Question(row.id, k, row.prompt, text) for row in todo for k, text in enumerate(row.responses)], [d], bar)
            asked += said
            for row, judgements in zip(todo, _groups(said, todo), strict=True):
                if agrees(row.ranks, [j.score for j in judgements]):
                    agreed[row.id] = judgements
            bench.metric(draw=d + 1, judged=len(said), questions=len(todo), agreed=len(agreed))
    made = [(row, j) for row in rows for j in agreed.get(row.id, ())]
    if not made:
        raise JudgeError(
            f"no review of {len(rows)} questions ranks the responses as people do, in {spec.draws} draws each "
            f"({readable_share([j.score for j in asked]) or 0:.0%} could be read); give more draws, or fewer responses per question"
        )
    kept = thin(made, spec.commonest, bench)
    template = templates.load(spec.template)
    examples = [Example(f"{row.id}/{j.k}", form(template, row.prompt, row.responses[j.k]), j.text + STOP, "eft") for row, j in kept]
    report = {
        "questions": len(rows),
        "agreed": len(agreed),
        "judgements": len(asked),
        "readable": readable_share([j.score for j in asked]),
        "reviews": len(made),
        "thinned": len(made) - len(kept),
        "examples": len(examples),
        "histogram_before": _histogram(made),
        "histogram": _histogram(kept),
    }
    write_rows(out / "examples.jsonl", examples)
    write_json(out / "report.json", report)
    for example in examples[:SHOWN]:
        bench.show(prompt=example.prompt, response=example.response)
    bench.log(f"{len(examples)} reviews; {len(agreed)} of {len(rows)} questions agree with people; scores {report['histogram']}")
    return Examples(out)


def agrees(ranks: Sequence[int], scores: Sequence[int | None]) -> bool:
    """Whether every score could be read, and any two responses of different ranks have scores in that order. Rank 0 is the best."""
    if any(score is None for score in scores):
        return False
    rows = list(zip(ranks, scores, strict=True))
    return all(a[0] == b[0] or ((a[0] < b[0]) == (a[1] > b[1]) and a[1] != b[1]) for a, b in combinations(rows, 2))  # type: ignore[operator]


def thin(made: Sequence[tuple[Ranked, Judgement]], share: float, bench: Bench) -> list[tuple[Ranked, Judgement]]:
    """The reviews without so many of the commonest score that it would have more than a share; which ones is drawn by place."""
    score, n = Counter(j.score for _, j in made).most_common(1)[0]
    others = len(made) - n
    most = n if share == 1 else min(n, max(1, floor(share * others / (1 - share))))
    ranked = sorted((bench.seed_for("thin", j.id, j.k), j.id, j.k) for _, j in made if j.score == score)
    dropped = {(id, k) for _, id, k in ranked[most:]}
    return [(row, j) for row, j in made if (j.id, j.k) not in dropped]


def _groups(said: Sequence[Judgement], rows: Sequence[Ranked]) -> list[list[Judgement]]:
    of: dict[str, list[Judgement]] = {row.id: [] for row in rows}
    for judgement in said:
        of[judgement.id].append(judgement)
    return list(of.values())


def _histogram(made: Sequence[tuple[Ranked, Judgement]]) -> dict[int, int]:
    count = Counter(j.score for _, j in made)
    return {score: count[score] for score in range(HIGHEST + 1)}
