"""Examples of the candidates that the judge finds perfect: the positive-only way, in place of pairs.

Yuan et al. 2024, section 4.1: supervised training on responses with a perfect score brought no gain over their seed, and preference
training did; so this is what pairs are compared with. A response counts where all its judgements could be read and their mean reaches
``at_least``; one response per prompt at most, the first.
"""

from collections import Counter
from pathlib import Path

from lite.artifacts import Candidates, Examples, Judgements
from lite.errors import DivergedError
from lite.knobs.rounds import BestSpec
from lite.records import Example, write_rows
from lite.runs.publish import write_json
from lite.stages.bench import Bench
from lite.stages.reviews import scores_of
from lite.text.dialogue import STOP
from lite.text.judging import mean_score


def best(spec: BestSpec, *, candidates: Candidates, judgements: Judgements, out: Path, bench: Bench) -> Examples:
    rows = candidates.rows()
    scores = scores_of(judgements.rows())
    found: dict[str, Example] = {}
    reasons: Counter[str] = Counter()
    for row in rows:
        given = scores.get((row.id, row.k), [])
        mean = mean_score(given)
        if mean is None or None in given:
            reasons["unreadable"] += 1
        elif mean < spec.at_least:
            reasons["not_good_enough"] += 1
        elif row.stop == "length":
            reasons["unfinished"] += 1
        elif row.id in found:
            reasons["one_is_enough"] += 1
        else:
            found[row.id] = Example(row.id, row.prompt, row.text + STOP, "best")
    if not found:
        raise DivergedError(
            f"gate refused: none of {len(rows)} candidates has a mean score of {spec.at_least:g} ({dict(reasons)}); "
            f"the last good model is {judgements.report()['judge']}; lower at_least"
        )
    write_rows(out / "examples.jsonl", found.values())
    write_json(out / "report.json", {"candidates": len(rows), "examples": len(found), "left_out": dict(reasons)})
    bench.log(f"{len(found)} responses of {len(rows)} candidates; left out: {dict(reasons)}")
    return Examples(out)
