"""YAML and overrides -> Recipe: frozen, checked and wired. All the problems of a recipe are told at once.

    base: {model: tiny}
    seed: 17
    task: helpful
    stages:
      - prompts: {train: 600}
      - contrast
      - reward:
      - ppo: {steps: 20, as: long, from: {reward: reward}}

A stage's id is its kind unless ``as`` names it. Its inputs are the latest artifacts of the types that its contract asks for,
unless ``from`` names others. An override ``long.steps=40`` addresses a stage by its id. With ``rounds``, ``each_round`` and
``finally`` some stages are repeated (``lite.unroll``): ``r2.dpo.lr=1e-4`` changes one round, ``each_round.dpo.lr=1e-4`` all of them.
A stage that only writes may do so with a base of its own, ``- contrast: {base: {model: huggyllama/llama-30b}}``.
``track: tensorboard`` (or wandb, trackio) shows the figures there too; it changes no result.
``sweep: {seed: [17, 18]}``, or ``sweep.seed=[17,18]`` on the command line, asks for one run per combination of its values; a loaded recipe is one of them.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, ValidationError

from lite import tasks
from lite.contracts import CONTRACTS, Contract
from lite.errors import RecipeError
from lite.knobs import BaseSpec, OwnBase, Spec
from lite.runs import trackers
from lite.unroll import MOST_ROUNDS, PREVIOUS, Entry, resolve, unroll
from lite.wiring import Wire, wire
from lite.yamltext import hint, near, parse, shown

SWEEP = "sweep."
TOP = ("base", "seed", "task", "stages", "rounds", "each_round", "finally", "sweep", "track")
SECTIONS = ("stages", "each_round", "finally")
ID = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}(\.[A-Za-z0-9_-]{1,40})?")
RESERVED = (*(key for key in TOP if key != "seed"), *PREVIOUS, "p_plus")  # `seed.ift=9` is a stage's knob, `seed=9` the recipe's
AnySpec = TypeVar("AnySpec", bound=Spec)
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[\w.-]{1,96})?")


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Stage(Frozen):
    id: str
    kind: str
    spec: SerializeAsAny[Spec]
    inputs: Mapping[str, Wire]

    @property
    def contract(self) -> Contract:
        return CONTRACTS[self.kind]


class Recipe(Frozen):
    name: str
    base: BaseSpec
    seed: int
    task: str
    stages: tuple[Stage, ...]
    track: trackers.Name | None = None
    rounds: int = Field(default=0, exclude=True)
    """How many rounds an override of ``each_round`` changes; 0 where they are written out, or one has overrides of its own."""

    def to_yaml(self) -> str:
        """The recipe with every knob and every input written out; reading it again gives the same recipe."""
        stages = []
        for stage in self.stages:
            wired = {param: list(w) if isinstance(w, tuple) else w for param, w in stage.inputs.items() if w is not None}
            body = {"as": stage.id, **({"from": wired} if wired else {}), **stage.spec.model_dump(mode="json")}
            stages.append({stage.kind: body})
        whole = {
            "base": self.base.model_dump(mode="json"),
            "seed": self.seed,
            "task": self.task,
            **({"track": self.track} if self.track else {}),
            "stages": stages,
        }
        return yaml.safe_dump(whole, sort_keys=False, allow_unicode=True, width=140)


def load(path: Path, overrides: Iterable[str] = (), *, name: str | None = None) -> Recipe:
    """The recipe of a file. ``name`` is the file's stem unless given."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise RecipeError(str(path), [f"cannot be read: {e}"]) from e
    return loads(text, overrides, where=str(path), name=name or path.stem)


def loads(text: str, overrides: Iterable[str] = (), *, where: str = "recipe", name: str = "recipe") -> Recipe:
    raw = parse(text, where)
    if not isinstance(raw, dict):
        raise RecipeError(where, [f"a recipe is a mapping with the keys {', '.join(TOP)} (got {shown(raw)})"])
    problems: list[str] = []
    overrides = list(overrides)
    entries = _stages(raw, overrides, problems)
    problems += [f"{key}: no such key{hint(str(key), TOP)}" for key in raw if key not in TOP]
    base = _base(raw.get("base", {}), problems)
    seed = raw.get("seed", 17)
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        problems.append(f"seed: a whole number from 0 up is needed (got {shown(seed)})")
    task = _task(raw.get("task"), problems)
    track = raw.get("track")
    if track is not None and track not in trackers.NAMES:
        problems.append(f"track: {', '.join(trackers.NAMES)} are known (got {shown(track)}){near(str(track), trackers.NAMES)}")
    for entry in entries:
        if entry.kind in CONTRACTS:
            _complete_own_base(entry, base)
            entry.spec = _validate(CONTRACTS[entry.kind].spec, entry.knobs, entry.place, problems)
            if isinstance(entry.spec, OwnBase) and entry.spec.base:
                _check_model(entry.spec.base, entry.place("base", "model"), problems)
    inputs = wire(entries, problems)
    if problems:
        raise RecipeError(where, _each_once(problems))
    stages = [Stage(id=e.id, kind=e.kind, spec=e.spec, inputs=i) for e, i in zip(entries, inputs, strict=True) if e.spec]
    base, rounds = base or BaseSpec.model_validate({}), _alike(entries, overrides)
    return Recipe(name=name, base=base, seed=seed, task=task, stages=tuple(stages), track=track, rounds=rounds)


def combinations(path: Path, overrides: Sequence[str] = ()) -> list[tuple[str, ...]]:
    """The overrides of every run that a recipe's ``sweep`` asks for, the given ones among them; one run where there is no sweep.

        sweep: {task: [helpful, harmless], seed: [17, 18]}      four runs

    A place that is given on the command line is not swept, and one given as ``sweep.seed=[17,18]`` is.
    """
    return combinations_of(path.read_text(encoding="utf-8"), overrides, where=str(path))


def combinations_of(text: str, overrides: Sequence[str] = (), *, where: str = "recipe") -> list[tuple[str, ...]]:
    raw = parse(text, where)
    axes = raw.get("sweep") or {} if isinstance(raw, dict) else {}
    asked = [text for text in overrides if text.startswith(SWEEP)]
    overrides = [text for text in overrides if text not in asked]
    if asked and isinstance(axes, dict):
        axes = axes | {key.removeprefix(SWEEP): parse(value, text) for text in asked for key, _, value in [text.partition("=")]}
    if not isinstance(axes, dict) or not all(isinstance(values, list) and values for values in axes.values()):
        raise RecipeError(where, [f"sweep: lists of values by place are needed, such as {{seed: [17, 18]}} (got {shown(axes)})"])
    given = {text.partition("=")[0] for text in overrides}
    swept = [[f"{place}={json.dumps(value)}" for value in values] for place, values in axes.items() if place not in given]
    return [(*chosen, *overrides) for chosen in product(*swept)]


def _stages(raw: dict, overrides: list[str], problems: list[str]) -> list[Entry]:
    """All entries in the order in which they run, with the overrides in them and their inputs in ``source``.

    What addresses all rounds is written before they are unrolled, and what addresses one afterwards: so the latter wins.
    """
    before, each, after = (_entries(raw.get(section), section, problems) for section in SECTIONS)
    general = [text for text in overrides if text.startswith(("rounds=", "each_round."))]
    _override(raw, each, general, problems, prefix="each_round.")
    entries = unroll(before, each, _rounds(raw, each, problems), after)
    for n, entry in enumerate(entries):
        twin = next((e for e in entries[:n] if e.id == entry.id), None)
        if twin:
            problems.append(f"{entry.place()}: {twin.section}[{twin.index}] has the id {entry.id!r} too; name one of them with `as`")
    _override(raw, entries, [text for text in overrides if text not in general], problems, also=each)
    for entry in entries:
        entry.source = entry.knobs.pop("from", None)
    resolve(entries, problems)
    return entries


def _rounds(raw: dict, each: Sequence[Entry], problems: list[str]) -> int:
    rounds = raw.get("rounds", 0)
    if not isinstance(rounds, int) or isinstance(rounds, bool) or not 0 <= rounds <= MOST_ROUNDS:
        problems.append(f"rounds: a whole number from 0 to {MOST_ROUNDS} is needed (got {shown(rounds)})")
        return 1
    if "rounds" in raw and "each_round" not in raw:
        problems.append("rounds: there is no `each_round`, the list of stages that a round has")
    if "each_round" in raw and "rounds" not in raw:
        problems.append("each_round: say how often with `rounds: 2`")
        return 1
    return rounds if each else 0


def _alike(entries: Sequence[Entry], overrides: Sequence[str]) -> int:
    """How many rounds there are, if no override addresses one of them alone and no stage outside is called as if it lay in one."""
    own = any(text.startswith(f"{entry.id}.") for entry in entries if entry.round for text in overrides)
    own = own or any(re.match(r"r\d+\.", entry.id) for entry in entries if not entry.round)
    return 0 if own else max((entry.round for entry in entries), default=0)


def _each_once(problems: Iterable[str]) -> list[str]:
    """The problems without those that only say the same of a later round."""
    return list({re.sub(r"\br\d+\.", "", problem).partition(" (there are: ")[0]: problem for problem in reversed(list(problems))}.values())[
        ::-1
    ]


def _entries(raw: Any, section: str, problems: list[str]) -> list[Entry]:
    if raw is None and section != "stages":
        return []
    if not isinstance(raw, list) or not raw:
        problems.append(f"{section}: a list of stages is needed, such as `- prompts: {{train: 600}}` (got {shown(raw)})")
        return []
    entries: list[Entry] = []
    for index, item in enumerate(raw):
        if isinstance(item, str):
            item = {item: None}
        if not isinstance(item, dict) or len(item) != 1:
            problems.append(f"{section}[{index}]: a stage is one kind with its knobs, `- kind: {{knob: value}}` (got {shown(item)})")
            continue
        (kind, knobs), kind_known = next(iter(item.items())), next(iter(item)) in CONTRACTS
        if not kind_known:
            problems.append(f"{section}[{index}]: no stage kind {shown(kind)}{hint(str(kind), CONTRACTS)}")
        if knobs is not None and not isinstance(knobs, dict):
            problems.append(f"{section}[{index}] ({kind}): the knobs are a mapping, `{kind}: {{knob: value}}` (got {shown(knobs)})")
            knobs = None
        knobs = dict(knobs or {})
        entry = Entry(section, index, str(kind), str(knobs.pop("as", kind)), knobs)
        if kind_known and not ID.fullmatch(entry.id):
            problems.append(f"{entry.place('as')}: an id is letters, digits, - and _, with one dot at most (got {shown(entry.id)})")
        if section == "each_round" and "." in entry.id:
            problems.append(f"{entry.place('as')}: an id in a round has no dot, since the round puts one into it (got {shown(entry.id)})")
        if entry.id in RESERVED:
            problems.append(f"{entry.place('as')}: {entry.id!r} means something else in recipes; take another id")
        entries.append(entry)
    return entries


def _override(
    raw: dict, entries: Sequence[Entry], overrides: Iterable[str], problems: list[str], *, prefix: str = "", also: Sequence[Entry] = ()
) -> None:
    """Write the overrides into the raw recipe, the last one winning. ``prefix`` stands before the ids of these entries."""
    for text in overrides:
        key, equals, value_text = text.partition("=")
        try:
            value = parse(value_text, text)
        except RecipeError as e:
            problems.append(f"override {text}: {e.problems[0]}")
            continue
        target, path = _address(raw, entries, key.removeprefix(prefix))
        if not equals or target is None or not all(path):
            places = [*_places(entries, prefix), *_places(also, "each_round.")]
            problems.append(f"override {text}: {'no such place' + hint(key, places) if equals else 'write it as id.knob=value'}")
            continue
        for step in path[:-1]:
            if not isinstance(target.get(step), dict):
                target[step] = {}
            target = target[step]
        target[path[-1]] = value


def _address(raw: dict, entries: Sequence[Entry], key: str) -> tuple[dict | None, list[str]]:
    """Which mapping an override writes to, and the keys inside it."""
    if key in ("seed", "task", "rounds", "track"):
        return raw, [key]
    if key.startswith("base."):
        if not isinstance(raw.get("base"), dict):
            raw["base"] = {}
        return raw["base"], key.removeprefix("base.").split(".")
    for entry in sorted(entries, key=lambda e: -len(e.id)):
        if key.startswith(entry.id + "."):
            return entry.knobs, key.removeprefix(entry.id + ".").split(".")
    return None, []


def _places(entries: Sequence[Entry], prefix: str = "") -> list[str]:
    knobs = [f"{prefix}{e.id}.{knob}" for e in entries if e.kind in CONTRACTS for knob in CONTRACTS[e.kind].spec.model_fields]
    return ["seed", "task", "rounds", "track", *(f"base.{name}" for name in BaseSpec.model_fields), *knobs]


def _base(raw: Any, problems: list[str]) -> BaseSpec | None:
    if not isinstance(raw, dict):
        problems.append(f"base: a mapping such as {{model: tiny}} is needed (got {shown(raw)})")
        return None
    found = _validate(BaseSpec, raw, lambda *path: ".".join(("base", *map(str, path))), problems)
    if isinstance(found, BaseSpec):
        _check_model(found, "base.model", problems)
        return found
    return None


def _check_model(base: BaseSpec, place: str, problems: list[str]) -> None:
    model = base.model
    if not Path(model).expanduser().is_dir() and not HUB_ID.fullmatch(model):
        problems.append(f"{place}: neither `tiny`, nor a folder that exists, nor a Hub id such as Qwen/Qwen2.5-7B (got {shown(model)})")


def _complete_own_base(entry: Entry, shared: BaseSpec | None) -> None:
    """What a stage's own base leaves out is as in the run's base; a revision belongs to its model."""
    given = entry.knobs.get("base")
    if shared and isinstance(given, dict) and issubclass(CONTRACTS[entry.kind].spec, OwnBase):
        entry.knobs["base"] = shared.model_dump(exclude={"model", "revision"} if "model" in given else None) | given


def _task(raw: Any, problems: list[str]) -> str:
    if not isinstance(raw, str):
        problems.append(f"task: a task's name or file is needed: {', '.join(tasks.names())} (got {shown(raw)})")
        return ""
    try:
        tasks.load(raw)
    except RecipeError as e:
        meant = near(raw, tasks.names()) if e.where == "task" else ""
        problems.extend(f"task: {p}{meant}" for p in e.problems)
    except (OSError, UnicodeDecodeError, ValueError) as e:
        problems.append(f"task: {shown(raw)} cannot be read: {e}")
    return raw


def spec_of(model: type[AnySpec], knobs: Mapping[str, Any], *, where: str) -> AnySpec:
    """The spec of knobs that a program gives; all that is wrong with them at once."""
    problems: list[str] = []
    found = _validate(model, knobs, lambda *path: ".".join(map(str, path)), problems)
    if problems or not isinstance(found, model):
        raise RecipeError(where, problems)
    return found


def _validate(model: type[Spec], knobs: Mapping, place: Any, problems: list[str]) -> Spec | None:
    """The spec of some knobs; types are taken strictly, so that neither `yes` nor "20" is a number."""
    for key in [k for k in knobs if not isinstance(k, str)]:
        problems.append(f"{place(str(key))}: a key is a word{hint(str(key), model.model_fields)}")
    try:
        return model.model_validate(_tuples({k: v for k, v in knobs.items() if isinstance(k, str)}), strict=True)
    except ValidationError as e:
        problems.extend(_problem(model, error, place) for error in e.errors(include_url=False))
    except RecursionError:
        problems.append(f"{place()}: nested too deeply")
    return None


def _problem(model: type[Spec], error: Any, place: Any) -> str:
    where = place(*error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{where}: no such key{hint(error['loc'][-1], _owner(model, error['loc'][:-1]))}"
    if error["type"] == "model_type":
        return f"{where}: a mapping such as {{knob: value}} is needed (got {shown(error['input'])})"
    message = error["msg"].removeprefix("Value error, ")
    if isinstance(error["input"], dict) or "base_url" in error["loc"]:  # an address may hold a key, and so may what stands beside it
        return f"{where}: {message}"
    if error["type"] == "literal_error" and isinstance(error["input"], str):
        meant = near(error["input"], re.findall(r"'([^']+)'", error["ctx"]["expected"]))
        return f"{where}: {message} (got {shown(error['input'])}){meant}"  # the choices stand there already
    return f"{where}: {message} (got {shown(error['input'])})" if error["loc"] else f"{where}: {message}"


def _owner(model: Any, path: Sequence[str | int]) -> Iterable[str]:
    """The knobs at a place inside a spec: optional specs and tuples of specs are looked through."""
    for step in path:
        found = model.model_fields[step].annotation if isinstance(step, str) else model
        model = next((kind for kind in (found, *get_args(found)) if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        if model is None:
            return ()
    return model.model_fields


def _tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_tuples(v) for v in value)
    return {k: _tuples(v) for k, v in value.items()} if isinstance(value, dict) else value


def folders() -> list[Path]:
    """Where built-in recipes lie: inside an installed package, or at the top of a checkout."""
    package = Path(__file__).parent
    checkout = package.parent / "recipes"
    found = [package / "recipes"]
    return [*found, checkout] if (package.parent / "pyproject.toml").is_file() else found


def built_in() -> dict[str, Path]:
    """The built-in recipes by name."""
    return {path.stem: path for folder in reversed(folders()) for path in sorted(folder.glob("*.yaml"))}


def find(name: str) -> Path:
    """The file of a recipe: a path, or a built-in name (``tiny_rlcd_helpful`` or ``recipes/tiny_rlcd_helpful.yaml``)."""
    path = Path(name)
    if path.is_file():
        return path
    known = built_in()
    stem = path.stem if path.suffix in (".yaml", ".yml") else path.name
    if path.parent in (Path("."), Path("recipes")) and stem in known:
        return known[stem]
    raise RecipeError(name, [f"no such file, and no built-in recipe{hint(stem, known)}"])


def summary(path: Path) -> str:
    """The first sentence of a recipe's header comment."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and line.strip("# "):
            return line.strip("# ")
    return ""
