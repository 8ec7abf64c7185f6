"""Blind rating on the 1 to 8 scale: which models can be compared, the sheet of a comparison, and what the ratings come to.

Sheet and key are those of ``lite.evaluate.human``, so that a sheet that was begun here can be finished in a spreadsheet and the
other way round. Rows are rated in order: the first empty one is next, and the last filled one is what undo empties.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lite import tasks
from lite.artifacts import Evaluation
from lite.errors import LiteError, RecipeError
from lite.evaluate import human
from lite.evaluate.pairwise import Verdict, comparisons
from lite.evaluate.summary import by_model
from lite.evaluate.winrate import Agreement, agreement
from lite.records import Reply
from lite.runs.layout import RUN_NAME
from lite.runs.read import Run

SEED = 17
MOST_ROWS = 200


@dataclass(frozen=True)
class Sheet:
    """``rows``: the sheet's cells in order, with ``prompt``, ``A``, ``B`` and ``rating``."""

    path: Path
    key: Path
    rows: tuple[dict[str, str], ...]
    question: str

    @property
    def rated(self) -> int:
        return sum(bool(row["rating"].strip()) for row in self.rows)

    @property
    def next(self) -> int | None:
        """The position of the first row without a rating."""
        return next((i for i, row in enumerate(self.rows) if not row["rating"].strip()), None)

    @property
    def last(self) -> int | None:
        """The position of the last row with a rating."""
        return next((i for i in reversed(range(len(self.rows))) if self.rows[i]["rating"].strip()), None)


@dataclass(frozen=True)
class Outcome:
    first: str
    second: str
    scores: human.Scores
    judge: Agreement | None


def models(run: Run) -> list[str]:
    """The models whose replies can be compared, the newest first and the base last."""
    found = list(by_model(_replies(run)))
    made = [record.id for record in run.stages()]
    return sorted(found, key=lambda name: (name in ("base", "p_plus"), -made.index(name) if name in made else 0))


def _replies(run: Run) -> list[Reply]:
    for record in reversed(run.stages()):
        if record.done and (record.folder.out / "replies.jsonl").is_file():
            try:
                return Evaluation(record.folder.out).rows()
            except LiteError:  # of another version: nothing here to rate
                continue
    return []


def open_sheet(run: Run, first: str, second: str, task: str) -> Sheet:
    """The sheet of two models of a run, written if it is not there yet."""
    groups = by_model(_replies(run))
    if first == second or not {first, second} <= groups.keys() or not all(RUN_NAME.fullmatch(name) for name in (first, second)):
        raise RecipeError("rate", ["choose two different models of a run that has been evaluated"])
    folder = run.folder.ratings(first, second)
    question = tasks.load(task).question
    if not (folder / human.SHEET).exists():
        pairs = comparisons(
            groups[first], groups[second], {reply.id: reply.prompt.removesuffix("Assistant:").strip() for reply in groups[first]}
        )
        human.write_sheet(folder, pairs, first=first, second=second, question=question, seed=SEED, rows=MOST_ROWS)
    return Sheet(folder / human.SHEET, folder / human.KEY, tuple(human.rows(folder / human.SHEET)), question)


def rate(sheet: Sheet, position: int, rating: int) -> None:
    if not 0 <= position < len(sheet.rows) or not human.LOWEST <= rating <= human.HIGHEST:
        raise RecipeError("rate", [f"a whole number from {human.LOWEST} to {human.HIGHEST} is needed"])
    human.set_rating(sheet.path, sheet.rows[position]["row"], str(rating))


def undo(sheet: Sheet) -> None:
    if sheet.last is not None:
        human.set_rating(sheet.path, sheet.rows[sheet.last]["row"], "")


def outcome(run: Run, sheet: Sheet) -> Outcome | None:
    """What the ratings so far come to; None while there is none."""
    if not sheet.rated:
        return None
    found = human.read_sheet(sheet.path, sheet.key)
    groups = by_model(_replies(run))
    judged = _judged(groups.get(found.first, []), groups.get(found.second, []))
    return Outcome(found.first, found.second, human.scores(found), agreement(human.verdicts(found), judged) if judged else None)


def _judged(first: Sequence[Reply], second: Sequence[Reply]) -> dict[str, Verdict]:
    """What the evaluation's own marks say of the same comparisons; nothing where it gave none."""
    other = {(reply.id, reply.draw): reply.score for reply in second}
    found: dict[str, Verdict] = {}
    for reply in first:
        mine, theirs = reply.score, other.get((reply.id, reply.draw))
        if mine is not None and theirs is not None:
            found[f"{reply.id}/{reply.draw}"] = "first" if mine > theirs else "second" if theirs > mine else "tie"
    return found
