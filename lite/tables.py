"""What `lite ls` and `lite show` print: lists and details of recipes, runs, tasks and kinds of stages, as text or JSON."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from lite import recipe, tasks
from lite.contracts import CONTRACTS, Contract
from lite.errors import RecipeError
from lite.knobs import BaseSpec
from lite.runs import read
from lite.runs.publish import dumps
from lite.text.contrast import contrast
from lite.text.dialogue import Turn
from lite.text.likeness import likeness
from lite.unroll import MOST_ROUNDS
from lite.yamltext import hint

PREVIEW = (Turn("human", "Hello!"), Turn("assistant", "Hello. What can I do for you?"), Turn("human", "..."))
KINDS_OF_LISTS = ("recipes", "runs", "tasks", "stages")


def text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Columns of equal width, without rules or colour, so that it can be cut and searched."""
    lines = [tuple(header), *(tuple("" if cell is None else str(cell) for cell in row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def listing(what: str, runs: Path) -> dict[str, list[dict[str, Any]]]:
    if what not in ("all", *KINDS_OF_LISTS):
        raise RecipeError("lite ls", [f"nothing is called {what!r}{hint(what, KINDS_OF_LISTS)}"])
    makers = {"recipes": _recipes, "runs": lambda: _runs(runs), "tasks": _tasks, "stages": _stages}
    return {name: make() for name, make in makers.items() if what in ("all", name)}


def listed(name: str, rows: list[dict[str, Any]]) -> str:
    return text(tuple(rows[0]), [tuple(row.values()) for row in rows]) if rows else f"no {name}"


def _recipes() -> list[dict[str, Any]]:
    return [{"recipe": name, "about": recipe.summary(path)} for name, path in sorted(recipe.built_in().items())]


def _runs(runs: Path) -> list[dict[str, Any]]:
    return [run_row(run) for run in read.all_runs(runs)]


def run_row(run: read.Run) -> dict[str, Any]:
    return {
        "run": run.name,
        "recipe": run.recipe,
        "state": run.state,
        "stage": f"{run.facts.get('number', 0)}/{run.facts.get('stages', 0)} {run.facts.get('stage') or ''}".strip(),
        "started": run.facts.get("started"),
    }


def progress_row(run: read.Run) -> dict[str, Any]:
    done = run.facts.get("progress") or {}
    return run_row(run) | {"progress": f"{done['done']}/{done['total']} {done['unit']}" if done else "", "pid": run.facts.get("pid")}


def bytes_text(n: int) -> str:
    """``1.5 MiB``, seven characters and its unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1024 or unit == "GiB":
            break
        n /= 1024  # type: ignore[assignment]
    return f"{n:7.1f} {unit}"


def _tasks() -> list[dict[str, Any]]:
    return [{"task": name, "about": tasks.load(name).about} for name in tasks.names()]


def _stages() -> list[dict[str, Any]]:
    return [
        {
            "stage": c.kind,
            "reads": ", ".join(need.type.__name__ for need in c.reads.values()) or "-",
            "gives": c.gives.__name__,
            "about": c.about,
        }
        for c in CONTRACTS.values()
    ]


def show(thing: str, overrides: Sequence[str], runs: Path, *, schema: bool, as_json: bool) -> str:
    if thing in CONTRACTS:
        contract = CONTRACTS[thing]
        if schema or as_json:
            return dumps(contract.spec.model_json_schema(), indent=2)
        return f"{contract.about}\n\n{_knobs(contract)}"
    if (task := _task(thing)) is not None:
        return dumps(task.model_dump() | {"likeness": _likeness(task)}) if as_json else _task_text(task)
    if thing == "recipe" and schema:
        return dumps(recipe_schema(), indent=2)
    if Path(thing).suffix in (".yaml", ".yml") or thing in recipe.built_in():
        loaded = recipe.load(recipe.find(thing), overrides)
        if schema:
            return dumps(recipe_schema(), indent=2)
        return dumps(loaded) if as_json else loaded.to_yaml().rstrip()
    try:
        run = read.find(runs, thing)
    except RecipeError as e:
        if Path(thing).is_dir():
            raise
        known = [*recipe.built_in(), *tasks.names(), *CONTRACTS, *(run.name for run in read.all_runs(runs))]
        raise RecipeError(thing, [f"no recipe, run, task or kind of stage is called so{hint(thing, known)}"]) from e
    return _run_json(run) if as_json else _run_text(run)


def _task(thing: str) -> tasks.Task | None:
    """A built-in task, or that of a file which is no recipe."""
    if thing in tasks.names():
        return tasks.load(thing)
    path = Path(thing)
    return tasks.load(thing) if path.suffix in (".yaml", ".yml") and path.is_file() and tasks.is_task(path) else None


def _task_text(task: tasks.Task) -> str:
    """The task as data, how alike its phrases are, and what p+ and p- look like."""
    told = yaml.safe_dump(task.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120).rstrip()
    rows = [
        (row["index"], row["positive_words"], row["negative_words"], f"{row['changed']:.2f}", row["concern"] or "good")
        for row in _likeness(task)
    ]
    alike = text(("index", "words +", "words -", "changed", "alike?"), rows)
    both = contrast(PREVIEW, task, 0)
    return "\n\n".join(
        (
            told,
            "How alike the phrases of a pair are (the paper: as alike as possible; changed: share of the characters):",
            alike,
            f"p+ of index 0:{both.p_plus}",
            f"p- of index 0:{both.p_minus}",
        )
    )


def _likeness(task: tasks.Task) -> list[dict[str, Any]]:
    found = [likeness(pair.positive, pair.negative) for pair in task.phrases]
    return [
        {"index": i, "positive_words": x.positive, "negative_words": x.negative, "changed": x.changed, "concern": x.concern}
        for i, x in enumerate(found)
    ]


def _knobs(contract: Contract) -> str:
    rows = []
    for name, info in contract.spec.model_fields.items():
        default = info.get_default(call_default_factory=True, validated_data={})
        value = default.model_dump() if isinstance(default, BaseModel) else list(default) if isinstance(default, tuple) else default
        rows.append((name, "none" if value is None else str(value), info.description))
    return text(("knob", "default", "meaning"), rows)


def _run_json(run: read.Run) -> str:
    stages = [
        {"id": s.id, "done": s.done, "seconds": s.seconds, "fingerprint": s.fingerprint, "folder": str(s.folder.path)} for s in run.stages()
    ]
    return dumps({**run.facts, "run": str(run.folder.path), "state": run.state, "stages": stages, "report": run.report() or None})


def _run_text(run: read.Run) -> str:
    facts = {key: run.facts.get(key) for key in ("recipe", "started", "finished", "exit_code", "error")}
    facts["overrides"] = " ".join(map(str, run.facts.get("overrides") or ())) or None
    head = "\n".join(f"{key}: {value}" for key, value in {"run": run.folder.path, "state": run.state, **facts}.items() if value is not None)
    rows = [(s.id, "done" if s.done else "not done", s.seconds) for s in run.stages()]
    page = run.folder.report_md
    report = page.read_text(encoding="utf-8").rstrip() if page.is_file() else ""
    return "\n\n".join(part for part in (head, text(("stage", "status", "seconds"), rows), report) if part)


def recipe_schema() -> dict[str, Any]:
    """The JSON schema of recipes, for editors."""
    wiring = {"as": {"type": "string", "description": "the stage's id"}, "from": {"description": "inputs by name: {param: id}"}}
    kinds, shared = [], {}
    for contract in CONTRACTS.values():
        spec = contract.spec.model_json_schema(ref_template="#/$defs/{model}")
        shared |= spec.pop("$defs", {})
        spec["properties"] = wiring | spec["properties"]
        knobs = {"anyOf": [spec, {"type": "null"}]}
        kinds.append({"type": "object", "properties": {contract.kind: knobs}, "required": [contract.kind], "additionalProperties": False})
    stages = {"type": "array", "minItems": 1, "items": {"anyOf": [{"enum": list(CONTRACTS)}, *kinds]}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "additionalProperties": False,
        "required": ["task", "stages"],
        "properties": {
            "base": BaseSpec.model_json_schema(),
            "seed": {"type": "integer", "minimum": 0},
            "task": {"type": "string", "description": f"one of {', '.join(tasks.names())}, or a YAML file"},
            "sweep": {
                "type": "object",
                "description": "one run per combination of the values of these places",
                "additionalProperties": {"type": "array"},
            },
            "stages": stages,
            "rounds": {"type": "integer", "minimum": 0, "maximum": MOST_ROUNDS, "description": "how often each_round is repeated"},
            "each_round": stages | {"description": "the stages of a round; `previous` is the model that the round before gave"},
            "finally": stages | {"description": "the stages after the last round"},
        },
        "$defs": shared,
    }
