"""Check a file of preference pairs in TRL's format, line by line.

A row has ``prompt``, ``chosen`` and ``rejected``: all strings, or all lists of ``{"role", "content"}`` messages. Other columns
(provenance) are welcome. Source: TRL's "preference" format with an explicit prompt.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lite.errors import RecipeError
from lite.yamltext import near, shown

COLUMNS = ("prompt", "chosen", "rejected")
MOST_SHOWN = 20


def pairs_file(path: Path) -> int:
    """How many pairs a file holds; a :class:`RecipeError` tells every line that is not one."""
    problems: list[str] = []
    rows = 0
    try:
        with path.open(encoding="utf-8") as f:
            for number, line in enumerate(f, 1):
                if line.strip():
                    rows += 1
                    problems += [f"line {number}: {problem}" for problem in _row(line)]
    except (OSError, UnicodeDecodeError) as e:
        raise RecipeError(str(path), [f"cannot be read: {e}"]) from e
    if not rows:
        problems.append("no rows")
    if len(problems) > MOST_SHOWN:
        problems = [*problems[:MOST_SHOWN], f"... and {len(problems) - MOST_SHOWN} more"]
    if problems:
        raise RecipeError(str(path), problems)
    return rows


def _row(line: str) -> Iterator[str]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as e:
        yield f"not JSON: {e}"
        return
    if not isinstance(row, dict):
        yield f"an object is needed (got {shown(row)})"
        return
    missing = [column for column in COLUMNS if column not in row]
    for column in missing:
        yield f"no {column!r}{near(column, [key for key in row if key not in COLUMNS]).replace('did you mean', 'is it')}"
    if missing:
        return
    kinds = {column: _kind(row[column]) for column in COLUMNS}
    wrong = [column for column in COLUMNS if kinds[column] is None]
    for column in wrong:
        yield f"{column}: a text, or a list of messages with `role` and `content`, is needed (got {shown(row[column])})"
    if wrong:
        return
    if len(set(kinds.values())) > 1:
        yield f"texts and messages are mixed: {', '.join(f'{c} is {k}' for c, k in kinds.items())}"
    for column in ("chosen", "rejected"):
        if not row[column] or (isinstance(row[column], str) and not row[column].strip()):
            yield f"{column} is empty"
    if row["chosen"] == row["rejected"]:
        yield "chosen and rejected are the same"


def _kind(value: Any) -> str | None:
    if isinstance(value, str):
        return "a text"
    if isinstance(value, list) and all(
        isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str) for m in value
    ):
        return "messages"
    return None
