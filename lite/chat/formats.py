"""Files of questions and files of replies: plain JSONL, AlpacaEval's list, MT-Bench's answers. Torch-free.

jsonl        questions as in ``prompts.source`` (turns, prompt, premise, instruction); one reply a line, with what it was asked under
alpaca_eval  rows with an ``instruction``; a list of {instruction, output, generator}, as ``alpaca_eval --model_outputs`` reads it
mt_bench     {question_id, category, turns: [first, second]}; the second is asked after the first was answered; FastChat's model_answer
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from lite.errors import RecipeError
from lite.runs.publish import dumps
from lite.sources.files import read_file
from lite.sources.rows import REASONS, SchemaError, Unreadable, read_row
from lite.tasks import Task
from lite.text.dialogue import Turn
from lite.yamltext import hint, shown

Format = Literal["jsonl", "alpaca_eval", "mt_bench"]
MOST_SHOWN = 20


@dataclass(frozen=True)
class Question:
    """``turns`` wait for an answer; each of ``later`` is a human turn that is asked when the one before it was answered."""

    id: str
    turns: tuple[Turn, ...]
    later: tuple[str, ...] = ()
    row: Mapping[str, Any] | None = None

    @property
    def key(self) -> str:
        """Changes with the text, so that a reply to another question is never taken for this one's."""
        told = json.dumps([[t.role, t.text] for t in self.turns] + [*self.later])
        return f"{self.id}:{hashlib.sha256(told.encode()).hexdigest()[:12]}"


@dataclass(frozen=True)
class Answer:
    """The replies to a question, turn by turn; ``stops`` and ``tokens`` say how each ended and how long it was."""

    question: Question
    replies: tuple[str, ...]
    stops: tuple[str, ...]
    tokens: tuple[int, ...]
    seed: int


def read_questions(file: Path, format: str, task: Task, most: int | None = None) -> list[Question]:
    """The questions of a file; a :class:`RecipeError` tells every row that is none, and an unknown format."""
    if format not in get_args(Format):
        raise RecipeError("--format", [f"nothing is called {format!r}{hint(format, get_args(Format))}"])
    read: Callable[[Any, int, Task], Question] = _mt_bench if format == "mt_bench" else _plain
    found: list[Question] = []
    problems: list[str] = []
    benched = False
    for number, (place, row) in enumerate(_rows(file)):
        if most is not None and len(found) == most:
            break
        try:
            if isinstance(row, SchemaError):
                raise row
            found.append(read(row, number, task))
        except SchemaError as e:
            problems.append(f"{place}: {e}")
            benched = benched or (format != "mt_bench" and _of_mt_bench(row))
    twice = sorted({q.id for q in found if sum(other.id == q.id for other in found) > 1}) if len({q.id for q in found}) < len(found) else []
    problems += [f"the id {id} is there twice" for id in twice]
    if not found and not problems:
        problems.append("no questions")
    if problems:
        more = [f"... and {len(problems) - MOST_SHOWN} more"] if len(problems) > MOST_SHOWN else []
        near = ["rows of MT-bench have question_id, and turns that are texts: did you mean --format mt_bench?"] if benched else []
        raise RecipeError(str(file), [*problems[:MOST_SHOWN], *more, *near])
    return found


def _rows(file: Path) -> Any:
    if not file.is_file():
        raise RecipeError("--prompts", [f"{file}: no such file"])
    if file.suffix != ".json":
        return read_file(file, plain="prompt")
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise RecipeError(str(file), [f"not JSON: {e}"]) from e
    if not isinstance(rows, list):
        raise RecipeError(str(file), [f"a list of questions is needed (got {shown(rows)})"])
    return ((f"row {i}", row) for i, row in enumerate(rows, 1))


def _plain(row: Any, number: int, task: Task) -> Question:
    found = read_row(row, task)
    if isinstance(found, Unreadable):
        raise SchemaError(REASONS[found.reason])
    return Question(str(row.get("id", number)), found.turns, row=row)


def _of_mt_bench(row: Any) -> bool:
    turns = row.get("turns") if isinstance(row, Mapping) else None
    return isinstance(turns, list) and "question_id" in row and all(isinstance(turn, str) for turn in turns)


def _mt_bench(row: Any, number: int, task: Task) -> Question:
    turns = row.get("turns") if isinstance(row, Mapping) else None
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, str) and turn.strip() for turn in turns):
        raise SchemaError(f"turns: a list of questions is needed (got {shown(turns)})")
    if "question_id" not in row:
        raise SchemaError("no question_id")
    return Question(str(row["question_id"]), (Turn("human", turns[0].strip()),), tuple(turn.strip() for turn in turns[1:]), row)


def written(answers: Sequence[Answer], format: str, *, model: str, generator: str, prompt: Callable[[Question], str], at: float) -> str:
    """The file's text. ``at``: seconds since 1970, for MT-Bench alone."""
    if format == "alpaca_eval":
        return dumps([_alpaca(answer, generator) for answer in answers], indent=2) + "\n"
    make = _fastchat if format == "mt_bench" else _line
    return "".join(dumps(make(a, generator, model, prompt(a.question), at)) + "\n" for a in answers)


def _line(answer: Answer, generator: str, model: str, prompt: str, at: float) -> dict[str, Any]:
    return {
        "id": answer.question.id,
        "model": model,
        "prompt": prompt,
        "reply": answer.replies[0],
        "stop": answer.stops[0],
        "tokens": answer.tokens[0],
        "seed": answer.seed,
    }


def _alpaca(answer: Answer, generator: str) -> dict[str, Any]:
    row = answer.question.row or {}
    instruction = row.get("instruction") if isinstance(row.get("instruction"), str) else answer.question.turns[-1].text
    kept = {name: row[name] for name in ("dataset", "datasplit") if name in row}
    return {"instruction": instruction, "output": answer.replies[0], "generator": generator, **kept}


def _fastchat(answer: Answer, generator: str, model: str, prompt: str, at: float) -> dict[str, Any]:
    row = answer.question.row or {}
    told = hashlib.sha256(f"{generator}\0{answer.question.key}\0{answer.replies}".encode()).hexdigest()[:22]
    return {
        "question_id": row["question_id"],
        "answer_id": told,
        "model_id": generator,
        "choices": [{"index": 0, "turns": list(answer.replies)}],
        "tstamp": at,
    }
