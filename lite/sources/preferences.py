"""One labelled pair of a source -> the dialogue, its two answers, and which of them people prefer; files and the Hub share it.

A row has the columns of one of these forms; the first that is whole decides:

- ``prompt``, ``chosen``, ``rejected``: TRL's form, the prompt a transcript or one human message, the others answers to it; ``label``, if
  there, is the probability that ``chosen`` is the better one;
- ``chosen``, ``rejected``: transcripts of hh-rlhf, cut where they part: what both have is the dialogue, what each says next its answer;
- ``instruction`` (and ``input``), ``output_1``, ``output_2``, ``preference``: the CSV form of AlpacaFarm and of the files published with
  RLCD; ``preference`` is 1 or 2, the better output.

A column of another type is a mistake in the file, :class:`SchemaError`; a pair that cannot be used is ``Unusable``, and counted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Literal, NamedTuple

from lite.sources.rows import REASONS, Asked, Reason, SchemaError, Turns, Unreadable, read_row, text_of
from lite.tasks import Task
from lite.text.dialogue import has_tag, parse
from lite.text.pairing import is_identical
from lite.yamltext import shown

FORMS = (("prompt", "chosen", "rejected"), ("chosen", "rejected"), ("instruction", "output_1", "output_2", "preference"))
PairReason = Reason | Literal["no_common_prompt", "empty_answer", "identical", "tie"]
PAIR_REASONS: Mapping[str, str] = {
    **REASONS,
    "no_common_prompt": "the two transcripts do not part at an assistant turn",
    "empty_answer": "an answer is empty",
    "identical": "both answers are the same",
    "tie": "neither answer is preferred",
}


@dataclass(frozen=True, slots=True)
class Unusable:
    reason: PairReason


class Preferred(NamedTuple):
    asked: Asked
    chosen: str
    rejected: str
    label: float  # probability that ``chosen`` is the better one


def read_pair(row: Any, task: Task) -> Preferred | Unusable:
    """The pair of a row, answers without white space at their ends."""
    if not isinstance(row, Mapping):
        raise SchemaError(f"an object with the columns of a labelled pair is needed (got {shown(row)})")
    form = next((form for form in FORMS if all(name in row for name in form)), None)
    if form is None:
        forms = "; or ".join(", ".join(form) for form in FORMS)
        raise SchemaError(f"the columns of a labelled pair are {forms} (there are: {', '.join(map(str, row)) or 'none'})")
    if form[0] == "chosen":
        return _parted(text_of(row, "chosen"), text_of(row, "rejected"))
    asked = read_row({name: row[name] for name in (form[0], "input") if name in row}, task)
    if isinstance(asked, Unreadable):
        return Unusable(asked.reason)
    if form[0] == "prompt":
        return _answered(asked, text_of(row, "chosen"), text_of(row, "rejected"), _label(row))
    first, second = text_of(row, "output_1"), text_of(row, "output_2")
    chosen, rejected = (first, second) if _better(row) == 1 else (second, first)
    return _answered(asked, chosen, rejected, 1.0)


def _parted(chosen: str, rejected: str) -> Preferred | Unusable:
    try:
        sides = parse(chosen), parse(rejected)
    except ValueError:
        return Unusable("broken_tag")
    n = sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(*sides, strict=False)))
    if all(len(side) == n for side in sides):
        return Unusable("identical")
    if not all(len(side) > n and side[n].role == "assistant" for side in sides) or n == 0 or sides[0][n - 1].role != "human":
        return Unusable("no_common_prompt")
    turns: Turns = tuple(sides[0][:n])
    if not turns[-1].text.strip():
        return Unusable("empty")
    if any(has_tag(turn.text) for turn in turns):
        return Unusable("broken_tag")
    return _answered(Asked(turns, sum(len(turn.text.split()) for turn in turns)), sides[0][n].text, sides[1][n].text, 1.0)


def _answered(asked: Asked, chosen: str, rejected: str, label: float) -> Preferred | Unusable:
    chosen, rejected = chosen.strip(), rejected.strip()
    if not chosen or not rejected:
        return Unusable("empty_answer")
    if has_tag(chosen) or has_tag(rejected):
        return Unusable("broken_tag")
    if is_identical(chosen, rejected):
        return Unusable("identical")
    return Unusable("tie") if label == 0.5 else Preferred(asked, chosen, rejected, label)


def _label(row: Mapping[str, Any]) -> float:
    value = row.get("label", 1.0)
    try:
        label = float(value)
    except (TypeError, ValueError):
        label = -1.0
    if isinstance(value, bool) or not 0 <= label <= 1:
        raise SchemaError(f"label: a probability from 0 to 1 is needed (got {shown(value)})")
    return label


def _better(row: Mapping[str, Any]) -> int:
    value = row["preference"]
    if value not in (1, 2, "1", "2") or isinstance(value, bool):
        raise SchemaError(f"preference: 1 or 2, the better output, is needed (got {shown(value)})")
    return int(value)
