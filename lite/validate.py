"""Check a recipe, a task, or a file of preference pairs in TRL's format, the latter line by line.

A row has ``prompt``, ``chosen`` and ``rejected``: all strings, or all lists of ``{"role", "content"}`` messages. Other columns
(provenance) are welcome. Source: TRL's "preference" format with an explicit prompt.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lite import recipe, tasks
from lite.errors import RecipeError
from lite.plan import plan
from lite.yamltext import near, shown

COLUMNS = ("prompt", "chosen", "rejected")
MOST_SHOWN = 20


def whatever(file: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """What a file is good for: {pairs: n}, {task, phrases: n} or {stages: ids}; a :class:`RecipeError` tells all that is wrong with it.

    Of a recipe with a sweep every run is checked.
    """
    name, no_recipe = str(file), file.suffix in (".jsonl", ".json")
    is_task = not no_recipe and (tasks.is_task(file) if file.is_file() else name in tasks.names() and name not in recipe.built_in())
    if overrides and (no_recipe or is_task):
        raise RecipeError(name, [f"{'a task has' if is_task else 'pairs have'} nothing to override (got {' '.join(overrides)})"])
    if no_recipe:
        return {"pairs": pairs_file(file)}
    if is_task:
        task = tasks.load(name)
        return {"task": task.name, "phrases": len(task.phrases)}
    path = recipe.find(name)
    plans = [plan(recipe.load(path, wanted)) for wanted in recipe.combinations(path, overrides)]
    return {"stages": [node.id for node in plans[0]]} | ({"runs": len(plans)} if len(plans) > 1 else {})


def summary(found: Mapping[str, Any]) -> str:
    if "pairs" in found:
        return f"{found['pairs']} pairs"
    if "task" in found:
        return f"the task {found['task']}, {found['phrases']} {'pair' if found['phrases'] == 1 else 'pairs'} of phrases"
    return f"{len(found['stages'])} stages" + (f", {found['runs']} runs" if "runs" in found else "")


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
