"""People's part of a run: a blind sheet of two of its models, and what the ratings come to beside its judges."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from lite.artifacts import Evaluation
from lite.errors import RecipeError
from lite.evaluate import human, pairwise, questions, winrate
from lite.evaluate.pairwise import Comparison, Verdict
from lite.evaluate.summary import by_model
from lite.records import Reply
from lite.runs.publish import write_json
from lite.runs.read import Run, StageRecord
from lite.tasks import Task
from lite.text.dialogue import closed
from lite.yamltext import hint

FLIP: dict[Verdict, Verdict] = {"first": "second", "second": "first", "tie": "tie"}


class Written(NamedTuple):
    """A sheet, its key and its number of pairs; of how many prompts both models gave the same reply, and how many found no row."""

    sheet: Path
    key: Path
    pairs: int
    same: int
    left: int

    def text(self) -> str:
        same = f"; {_prompts(self.same)} had the same reply of both" if self.same else ""
        left = f"; {_prompts(self.left)} found no row, --rows gives more" if self.left else ""
        return f"{self.pairs} {'pair' if self.pairs == 1 else 'pairs'}{same}{left}"


def _prompts(n: int) -> str:
    return f"{n} {'prompt' if n == 1 else 'prompts'}"


def evaluations(run: Run) -> list[StageRecord]:
    """Those that a run has finished."""
    return [stage for stage in run.stages() if stage.done and stage.facts.get("kind") == "evaluate"]


def evaluation_of(run: Run) -> Evaluation:
    """The last of them."""
    done = evaluations(run)
    if not done:
        raise RecipeError(run.name, ["has no finished evaluation yet; `lite run --resume` goes on with it"])
    return Evaluation(done[-1].folder.out)


def write_sheet(run: Run, task: Task, *, first: str | None, second: str, rows: int) -> Written:
    """A sheet of blind pairs and its key, in the run's folder for people. ``first``: none is the model that was trained last."""
    groups = by_model([r for r in evaluation_of(run).rows() if r.draw == 0])
    first = first or next((model for model in reversed(groups) if model != second), second)
    problems = [f"no model {name!r} was evaluated{hint(name, groups)}" for name in (first, second) if name not in groups]
    if problems or first == second:
        raise RecipeError(run.name, problems or [f"{first!r} against itself is nothing to rate"])
    pairs = _comparisons(groups[first], groups[second], groups)
    seed = int(run.report().get("run", {}).get("seed") or 0)
    sheet, key = human.write_sheet(
        run.folder.human, pairs, first=first, second=second, question=questions.forms_of(task)[0].question, seed=seed, rows=rows
    )
    usable = len(human.different(pairs))
    return Written(sheet, key, pairs=min(rows, usable), same=len(pairs) - usable, left=max(0, usable - rows))


def _comparisons(first: list[Reply], second: list[Reply], groups: Mapping[str, list[Reply]]) -> list[Comparison]:
    """Side by side under the plain dialogue, which the untouched base was given."""
    return pairwise.comparisons(first, second, {r.id: closed(r.prompt) for r in groups["base"]})


def read_ratings(run: Run, sheet: Path) -> dict[str, Any]:
    """What the ratings of a filled-in sheet come to, and how far every judge of the run agrees with them; kept beside the key."""
    ratings = human.read_sheet(sheet, run.folder.human / human.KEY)
    people, scores = human.verdicts(ratings), human.scores(ratings)
    judges = _judges(evaluation_of(run), ratings.first, ratings.second)
    found = {
        "first": ratings.first,
        "second": ratings.second,
        "score_first": asdict(scores.first),
        "score_second": scores.second,
        "preferred": scores.preferred,
        "rated": scores.rated,
        "unrated": ratings.unrated,
        "agreement": {judge: asdict(winrate.agreement(people, said)) for judge, said in judges.items()},
    }
    write_json(run.folder.human / "ratings.json", found)
    return found


def _judges(evaluation: Evaluation, first: str, second: str) -> dict[str, dict[str, Verdict]]:
    """What each judge said of the first model against the second, whichever way round it was asked."""
    said: dict[str, dict[str, Verdict]] = {}
    for row in evaluation.judgements():
        if {row.first, row.second} == {first, second}:
            name = f"{row.judge} ({row.form.replace('_', ' ')})" if row.form else row.judge
            verdicts = pairwise.verdicts([asdict(row)])
            turned = row.first != first
            said.setdefault(name, {}).update({id: FLIP.get(v, v) if turned else v for id, v in verdicts.items()})
    return said


def text(found: Mapping[str, Any]) -> str:
    mean = found["score_first"]
    lines = [
        f"{found['first']} {mean['mean']:.2f} ({mean['low']:.2f}-{mean['high']:.2f}), {found['second']} {found['score_second']:.2f} of 9; "
        f"{found['first']} preferred in {100 * found['preferred']:.0f}% of {found['rated']} pairs ({found['unrated']} without a rating)"
    ]
    for judge, a in found["agreement"].items():
        accuracy, kappa = a["decided_accuracy"], a["kappa"]
        said = f"{100 * accuracy['mean']:.0f}% of the {a['decided']} pairs on which it decides" if accuracy else "nothing: it never decides"
        lines.append(f"{judge}: agrees on {said}" + (f", kappa {kappa:.2f}" if kappa is not None else ""))
    return "\n".join(lines if found["agreement"] else [*lines, "no judge compared these two; give evaluate `judges`"])
