"""One row of a source -> the dialogue that waits for an answer; files and the Hub share it.

A row has one of these columns; the first that is there decides:

- ``turns``: [{role, text}, ...], the role human or assistant;
- ``prompt``: a transcript ("Human: ... Assistant: ...") or one human message;
- ``premise``: for a task with an ``ask``, which makes a human message of it;
- ``instruction``: a transcript, as in the CSV files published with RLCD (instruction, input, output_1, ...), or an instruction
  with its ``input``, as in AlpacaFarm;
- ``chosen``: a transcript of hh-rlhf, whose last assistant turn is to be written anew.

A column that is missing or of another type is a mistake in the file, :class:`SchemaError`. A dialogue that cannot be used is
``Unreadable``: its reason is counted, the other rows go on. Yang et al. 2023 cut the text at its last "Assistant:", wherever it
stands; here a tag begins a paragraph, so that a response which quotes one is not cut in two.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from lite.tasks import Task
from lite.text.dialogue import ASSISTANT_TAG, HUMAN_TAG, Role, Turn, cut_after_last_assistant_tag, has_tag, parse
from lite.yamltext import shown

COLUMNS = ("turns", "prompt", "premise", "instruction", "chosen")
Reason = Literal["no_speaker", "broken_tag", "no_answer", "no_human_turn", "empty"]
REASONS: Mapping[Reason, str] = {
    "no_speaker": "the transcript begins with neither Human: nor Assistant:",
    "broken_tag": "a line begins with a speaker's tag that opens no turn",
    "no_answer": "no assistant turn answers anything",
    "no_human_turn": "the turn before the answer is not a human one",
    "empty": "nothing is asked",
}

Turns = tuple[Turn, ...]
_ROLES: dict[Any, Role] = {"human": "human", "assistant": "assistant"}


class SchemaError(ValueError):
    """The row is not of the form that a source has: the file has to be mended."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    reason: Reason


class Asked(NamedTuple):
    turns: Turns
    words: int  # of the premise where there is one, else of all turns


def read_row(row: Any, task: Task) -> Asked | Unreadable:
    """The dialogue of a row, up to and including the human turn that waits for an answer."""
    if not isinstance(row, Mapping):
        raise SchemaError(f"an object with one of the columns {', '.join(COLUMNS)} is needed (got {shown(row)})")
    column = next((name for name in COLUMNS if name in row), None)
    if column is None:
        raise SchemaError(f"none of the columns {', '.join(COLUMNS)} (there are: {', '.join(map(str, row)) or 'none'})")
    if column == "turns":
        return _waiting(_given_turns(row["turns"]))
    text = text_of(row, column)
    if column == "premise":
        return _premise(text, task)
    if column == "chosen":
        return _transcript(text, answered=True)
    if _speaks(text):
        return _transcript(text)
    more = text_of(row, "input").strip() if column == "instruction" and row.get("input") else ""
    return _waiting([Turn("human", f"{text.strip()}\n\n{more}".strip())])


def text_of(row: Mapping[str, Any], column: str) -> str:
    """The text of a column that a row has."""
    if not isinstance(row[column], str):
        raise SchemaError(f"{column}: a text is needed (got {shown(row[column])}; the columns are {', '.join(map(str, row))})")
    return row[column]


def _given_turns(value: Any) -> list[Turn]:
    if not isinstance(value, list) or not all(isinstance(turn, Mapping) and isinstance(turn.get("text"), str) for turn in value):
        raise SchemaError(f"turns: a list of {{role, text}} is needed (got {shown(value)})")
    for turn in value:
        if turn.get("role") not in tuple(_ROLES):  # a tuple: what stands there may be a list
            raise SchemaError(f"turns: the role {shown(turn.get('role'))} is neither human nor assistant")
    return [Turn(_ROLES[turn["role"]], turn["text"]) for turn in value]


def _premise(text: str, task: Task) -> Asked | Unreadable:
    if not task.ask:
        raise SchemaError(f"a premise, but the task {task.name} has no `ask` that makes a request of it; call the column `prompt`")
    premise = " ".join(text.split())
    if not premise:
        return Unreadable("empty")
    found = _waiting([Turn("human", task.ask.replace("{premise}", premise))])
    return found._replace(words=len(premise.split())) if isinstance(found, Asked) else found


def _speaks(text: str) -> bool:
    """Whether a text is a transcript: it begins with a speaker's tag."""
    start = text.lstrip()
    return bool(HUMAN_TAG.match(start) or ASSISTANT_TAG.match(start))


def _transcript(text: str, *, answered: bool = False) -> Asked | Unreadable:
    try:
        turns = parse(text)
    except ValueError:
        return Unreadable("broken_tag" if _speaks(text) else "no_speaker")
    return _waiting(turns, answered=answered)


def _waiting(turns: Sequence[Turn], *, answered: bool = False) -> Asked | Unreadable:
    """The turns before the answer. An ``answered`` dialogue has one, even if a human turn follows it."""
    if answered or (turns and turns[-1].role == "assistant"):
        try:
            turns = cut_after_last_assistant_tag(turns)
        except ValueError:
            return Unreadable("no_answer")
    if not turns or turns[-1].role != "human":
        return Unreadable("no_human_turn")
    if not turns[-1].text.strip():
        return Unreadable("empty")
    if any(has_tag(turn.text) for turn in turns):
        return Unreadable("broken_tag")
    return Asked(tuple(turns), sum(len(turn.text.split()) for turn in turns))
