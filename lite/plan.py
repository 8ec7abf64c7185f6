"""Recipe -> nodes with fingerprints; which of them are done already, and why the others will run.

A node's fingerprint is the hash of everything that can change its result: its identity. The identity is kept beside the result,
so that a later plan can say what changed.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from lite import tasks, templates
from lite.contracts import CONTRACTS, Contract
from lite.errors import RecipeError
from lite.knobs import BaseSpec, OwnBase, Spec, base_of, served
from lite.micro.grammar import FAMILIES
from lite.recipe import Recipe, Stage
from lite.runs.publish import file_digest, plain
from lite.runs.read import StageRecord
from lite.sources.files import row_files
from lite.wiring import Wire
from lite.yamltext import hint


@dataclass(frozen=True)
class Node:
    """One stage to run. ``number`` counts from 1."""

    number: int
    id: str
    kind: str
    spec: Spec
    inputs: Mapping[str, Wire]
    identity: Mapping[str, Any]
    fingerprint: str

    @property
    def contract(self) -> Contract:
        return CONTRACTS[self.kind]

    def input_ids(self) -> list[str]:
        """The stages that this one reads, each once."""
        wires = [(wire,) if isinstance(wire, str) else wire or () for wire in self.inputs.values()]
        return list(dict.fromkeys(id for wire in wires for id in wire))

    def to_json(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "id": self.id,
            "kind": self.kind,
            "inputs": plain(self.inputs),
            "spec": plain(self.spec),
            "fingerprint": self.fingerprint,
        }


def plan(recipe: Recipe) -> tuple[Node, ...]:
    _refuse_what_the_world_cannot_ask(recipe)
    task = task_identity(recipe.task)
    bases = {base: base_identity(base) for base in dict.fromkeys(base_of(stage.spec, recipe.base) for stage in recipe.stages)}
    nodes: list[Node] = []
    for number, stage in enumerate(recipe.stages, 1):
        fingerprints = {node.id: node.fingerprint for node in nodes}
        identity = _identity(recipe, stage, task, bases[base_of(stage.spec, recipe.base)], fingerprints)
        nodes.append(Node(number, stage.id, stage.kind, stage.spec, stage.inputs, identity, fingerprint_of(identity)))
    return tuple(nodes)


def _refuse_what_the_world_cannot_ask(recipe: Recipe) -> None:
    """The embedded world asks, and grades, for its own tasks only."""
    name = tasks.load(recipe.task).name
    asking = [stage.id for stage in recipe.stages if getattr(stage.spec, "source", None) == "micro"]
    if asking and name not in FAMILIES:
        problems = [
            f"{id}.source: the embedded world (micro) knows the tasks {', '.join(FAMILIES)}, not {name}; name a file: {id}.source=FILE"
            for id in asking
        ]
        raise RecipeError(recipe.name, problems)


def _identity(recipe: Recipe, stage: Stage, task: str, base: dict[str, Any], fingerprints: Mapping[str, str]) -> dict[str, Any]:
    """What the result of a stage hangs on. The id belongs to it, because the seeds of a stage are drawn under its id.

    The base that a stage runs on counts once, as its base: whether it is named by the stage or by the recipe changes no result.
    """
    wires = {param: (wire,) if isinstance(wire, str) else wire or () for param, wire in stage.inputs.items()}
    spec = {knob: value for knob, value in effective(stage.spec).items() if knob not in OwnBase.model_fields}
    return {
        "id": stage.id,
        "kind": stage.kind,
        "version": stage.contract.version,
        "seed": recipe.seed,
        "task": task,
        "base": base if stage.contract.uses_base and not served(stage.spec) else None,
        "spec": spec,
        "files": _files_named_in(spec),
        "templates": {name: templates.load(name).hash for name in stage.contract.templates},
        "inputs": {param: {id: fingerprints[id] for id in ids} for param, ids in wires.items()},
    }


def fingerprint_of(identity: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plain(identity), sort_keys=True).encode()).hexdigest()


def effective(spec: BaseModel) -> dict[str, Any]:
    """The knobs of a spec without those that cannot change a result."""
    kept = {}
    for name, info in type(spec).model_fields.items():
        extra = info.json_schema_extra
        if isinstance(extra, dict) and extra.get("no_effect"):
            continue
        kept[name] = _effective(getattr(spec, name))
    return kept


def _effective(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return effective(value)
    return [_effective(one) for one in value] if isinstance(value, tuple) else plain(value)


def _files_named_in(spec: Mapping[str, Any]) -> dict[str, str]:
    """Hashes of the files that knobs name, so that a changed file counts as a change: templates by their text, row files by their rows
    (of a folder, the files of its splits)."""
    found: dict[str, str] = {}
    for knob, value in spec.items():
        if isinstance(value, Mapping):
            found |= {f"{knob}.{inner}": digest for inner, digest in _files_named_in(value).items()}
        elif knob == "template":
            found[knob] = templates.load(value).hash
        elif isinstance(value, str) and (files := row_files(value)):
            found[knob] = _digest_of(files)
    return found


def _digest_of(files: Mapping[str, Path]) -> str:
    """By content and split, not by place."""
    digests = {split: file_digest(file) for split, file in files.items()}
    return digests["all"] if "all" in digests else hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def task_identity(name: str) -> str:
    """Hash of what a task says, comments and its description for readers aside."""
    task = tasks.load(name)
    return hashlib.sha256(task.model_dump_json(exclude={"about"}).encode()).hexdigest()


def tiny_folder() -> Path:
    return Path(__file__).parent / "micro" / "base"


def base_identity(spec: BaseSpec) -> dict[str, Any]:
    """Which weights a base is, and how they are held in memory."""
    how_held = {name: value for name, value in effective(spec).items() if name not in ("model", "revision")}
    return {"weights": _weights(spec), **how_held}


def _weights(spec: BaseSpec) -> str:
    """The embedded base by its content; a folder by its config, names and sizes (not by its place); a Hub id by its revision."""
    if spec.model == "tiny":
        folder, whole = tiny_folder(), True
    else:
        folder, whole = Path(spec.model).expanduser(), False
    if not folder.is_dir():
        return f"{spec.model}@{spec.revision or 'main'}"
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")):
        content = file_digest(file) if whole or file.name == "config.json" else ""
        digest.update(f"{file.name}\0{file.stat().st_size}\0{content}\n".encode())
    return f"{'tiny' if whole else 'folder'}:{digest.hexdigest()[:16]}"


@dataclass(frozen=True)
class Status:
    """What will become of a node: ``cached`` (``record`` has its result) or ``run``, and why."""

    node: Node
    state: Literal["cached", "run"]
    record: StageRecord | None
    why: str


def compare(nodes: Iterable[Node], records: Iterable[StageRecord]) -> tuple[Status, ...]:
    """The nodes beside what earlier runs left; the records' order is the order in which they are preferred."""
    records = list(records)
    found = []
    for node in nodes:
        done = next((r for r in records if r.done and r.fingerprint == node.fingerprint), None)
        if done:
            found.append(Status(node, "cached", done, f"done in {done.folder.path.parent.parent.name}"))
            continue
        before = next((r for r in records if r.id == node.id and r.identity), None)
        found.append(Status(node, "run", None, why(node, before)))
    return tuple(found)


def select(statuses: Sequence[Status], begin: str | None, until: str | None) -> tuple[Status, ...]:
    """The stages up to ``until``; those before ``begin`` must be done already."""
    ids = [status.node.id for status in statuses]
    if unknown := [name for name in (begin, until) if name and name not in ids]:
        raise RecipeError("lite run", [f"no stage {name!r}{hint(name, ids)}" for name in unknown])
    if begin and until and ids.index(begin) > ids.index(until):
        raise RecipeError("lite run", [f"--from {begin} lies behind --until {until}"])
    missing = [status for status in statuses[: ids.index(begin)] if status.state == "run"] if begin else []
    if missing:
        left_out = [f"{status.node.id} is not done ({status.why}), and --from {begin} leaves it out" for status in missing]
        raise RecipeError("lite run", [*left_out, "go on with a run that has them (--resume, --from-run), or leave --from out"])
    return tuple(statuses[: ids.index(until) + 1 if until else None])


def why(node: Node, before: StageRecord | None) -> str:
    """What a node differs in from the record of its last run."""
    if before is None:
        return "never run"
    if before.fingerprint == node.fingerprint:
        return f"was not finished; {before.left_off}"
    old, new = before.identity, plain(node.identity)
    reasons = []
    if old.get("kind") != new["kind"]:
        reasons.append(f"{node.id} is now of kind {new['kind']}, was {old.get('kind')}")
    if old.get("seed") != new["seed"]:
        reasons.append(f"seed changed {old.get('seed')} -> {new['seed']}")
    if old.get("version") != new["version"]:
        reasons.append(f"the code of {node.kind} changed (version {old.get('version')} -> {new['version']})")
    if old.get("task") != new["task"]:
        reasons.append("the task changed")
    if new["base"] != old.get("base"):
        place = f"{node.id}.base" if isinstance(node.spec, OwnBase) and node.spec.base else "base"
        reasons += changes(place, old.get("base") or {}, new["base"] or {}) or ["the base changed"]
    reasons += changes(node.id, old.get("spec") or {}, new["spec"])
    reasons += [
        f"the file of {node.id}.{knob} changed" for knob in new["files"] if (old.get("files") or {}).get(knob) != new["files"][knob]
    ]
    reasons += [f"the template {name} changed" for name, now in new["templates"].items() if (old.get("templates") or {}).get(name) != now]
    for param, ids in new["inputs"].items():
        was = (old.get("inputs") or {}).get(param, {})
        if list(was) != list(ids):
            reasons.append(f"{param} is now {', '.join(ids) or 'nothing'}, was {', '.join(was) or 'nothing'}")
        else:
            reasons += [f"input {id} changed" for id in ids if was[id] != ids[id]]
    return "; ".join(dict.fromkeys(reasons)) or "something that its identity does not name changed"


def changes(place: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """``ppo.kl_coef changed 0.004 -> 0.002`` for every key that differs."""
    reasons = []
    for key in dict.fromkeys([*new, *old]):
        was, now = old.get(key), new.get(key)
        if was == now:
            continue
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            reasons += changes(f"{place}.{key}", was, now)
        else:
            reasons.append(f"{place}.{key} changed {_short(was)} -> {_short(now)}")
    return reasons


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
