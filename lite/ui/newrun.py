"""What the New run page knows: recipes as cards, the settings that matter, and what a choice would cost before anything is loaded."""

import os
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lite import recipe
from lite.errors import PreconditionError, RecipeError
from lite.fit import cards as gpus
from lite.fit import together
from lite.fit.bases import bases
from lite.fit.estimate import StageFit, estimate, refuse
from lite.fit.preflight import MARGIN, refuse_cpu, refuse_disk_of
from lite.fit.shape import hub_cache, known_models
from lite.fit.together import Asked, named
from lite.fit.turn import total
from lite.plan import Status, compare, plan
from lite.recipe import Recipe
from lite.runs import read
from lite.runs.read import Run
from lite.ui.places import check_recipe

CARD_SIZES = (8, 12, 16, 24, 32, 48, 80, 141)
LONGEST_TITLE = 34
GATED = ("meta-llama/", "google/gemma")
"""Bases whose makers want their licence accepted on the Hub first."""


@dataclass(frozen=True)
class RecipeCard:
    name: str
    title: str
    about: str
    needs: str
    file: Path

    @property
    def on_tiny(self) -> bool:
        return self.needs.startswith("none")


@dataclass(frozen=True)
class Setting:
    """A knob with a field of its own on the page."""

    kind: str
    knob: str
    label: str
    about: str
    whole: bool = True

    @property
    def key(self) -> str:
        return f"{self.kind}.{self.knob}"


SETTINGS = (
    Setting("prompts", "train", "Training prompts", "More prompts: better results, more time."),
    Setting("prompts", "test", "Test prompts", "Held out, and answered once at the end by every model."),
    Setting("ppo", "steps", "PPO steps", "How long the model is trained against the reward model."),
    Setting(
        "ppo", "kl_coef", "KL weight", "How strongly the model is held near the base. Higher is safer, lower learns faster.", whole=False
    ),
    Setting("ppo", "lr", "PPO learning rate", "Step size of the training.", whole=False),
    Setting("dpo", "beta", "DPO beta", "How strongly the model is held near its start.", whole=False),
    Setting("dpo", "lr", "DPO learning rate", "Step size of the training.", whole=False),
    Setting("evaluate", "draws", "Replies per test prompt", "More replies: narrower intervals."),
)


@dataclass(frozen=True)
class Choice:
    """What stands in the form. ``values``: by the settings' keys; None where the field is empty."""

    text: str
    name: str
    base: str
    values: Mapping[str, float | None]
    seed: float | None = None
    label: str = ""
    take_over: bool = True


@dataclass(frozen=True)
class Preview:
    """What would happen. With ``problems`` it cannot be started; with ``refusals`` this machine would refuse it.

    ``wanted``: the overrides of every run that would be started, several for a sweep; ``names``: what tells them apart; ``each``: the
    stages that they would run, in the same order. Recipe and statuses are the first one's; ``models``, the bases, and ``disk`` and
    ``fetched``, in bytes, are those of all.
    """

    overrides: tuple[str, ...] = ()
    wanted: tuple[tuple[str, ...], ...] = ()
    names: tuple[str, ...] = ()
    command: str = ""
    problems: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()
    recipe: Recipe | None = None
    each: tuple[tuple[StageFit, ...], ...] = ()
    models: tuple[str, ...] = ()
    statuses: tuple[Status, ...] = ()
    old: Run | None = None
    card: float | None = None
    disk: int = 0
    disk_free: int = 0
    fetched: int = 0

    @property
    def cached(self) -> list[str]:
        return [status.node.id for status in self.statuses if status.state == "cached"]

    @property
    def neediest(self) -> int:
        """Which of the runs needs most memory."""
        return max(range(len(self.each)), key=lambda i: max((fit.peak for fit in self.each[i]), default=0), default=0)

    @property
    def fits(self) -> tuple[StageFit, ...]:
        """The stages of the run that needs most memory."""
        return self.each[self.neediest] if self.each else ()

    @property
    def seconds(self) -> tuple[float, float]:
        """Of all runs, one after the other."""
        return total(fit.seconds for fits in self.each for fit in fits)


def recipe_cards() -> list[RecipeCard]:
    """Built-in recipes: those that need no card first, RLCD before self-rewarding before the rest, and sweeps last."""
    found = [_card(name, path) for name, path in recipe.built_in().items()]
    order = ("rlcd_helpful", "rlcd", "self_rewarding", "")
    return sorted(found, key=lambda c: (not c.on_tiny, "table" in c.name, [part in c.name for part in order].index(True), c.name))


def _card(name: str, path: Path) -> RecipeCard:
    """From the recipe's header: what stands before the colon is the title, as far as it fits on one line."""
    title, _, about = recipe.summary(path).partition(": ")
    title = re.sub(r"(,[^,]*)?,? on the embedded tiny base", "", title).replace(", an open base", "")
    short = title if len(title) <= LONGEST_TITLE else re.split(r", | (?=with)", title)[0]
    rest = title.removeprefix(short).strip(" ,")
    about = re.sub(r",? with no human label", "", f"{rest}: {about}" if rest else about)
    found = re.search(r"^# Card:\s*([^.\n]+)", path.read_text(encoding="utf-8"), re.M)
    return RecipeCard(name, short, about[:1].upper() + about[1:], found.group(1).strip() if found else "", path)


def offered() -> list[str]:
    """Bases to choose from: the embedded one, then those whose memory is known."""
    return ["tiny", *sorted(known_models())]


def recipe_values(text: str) -> dict[str, float | None]:
    """The settings' values in a recipe; only those that it has. Nothing for a recipe that cannot be read."""
    try:
        loaded = recipe.loads(text)
    except RecipeError:
        return {}
    found: dict[str, float | None] = {}
    for setting in SETTINGS:
        stage = next((s for s in loaded.stages if s.kind == setting.kind), None)
        if stage and setting.knob in type(stage.spec).model_fields:
            found[setting.key] = getattr(stage.spec, setting.knob)
    return found


def overrides_of(choice: Choice) -> tuple[str, ...]:
    """What differs from the recipe's text, in the words of the command line."""
    loaded = recipe.loads(choice.text)
    given: list[str] = []
    if choice.base and choice.base != loaded.base.model:
        given.append(f"base.model={choice.base}")
    for setting in SETTINGS:
        stage = next((s for s in loaded.stages if s.kind == setting.kind), None)
        value = choice.values.get(setting.key)
        if stage is None or value is None or setting.knob not in type(stage.spec).model_fields:
            continue
        if value != getattr(stage.spec, setting.knob):
            given.append(f"{stage.id}.{setting.knob}={_written(value, setting.whole)}")
    if choice.seed is not None and int(choice.seed) != loaded.seed:
        given.append(f"seed={int(choice.seed)}")
    return tuple(given)


def _written(value: float, whole: bool) -> str:
    return str(int(value)) if whole and float(value).is_integer() else f"{value:g}"


def preview(choice: Choice, *, runs: Path, roots: Sequence[Path], card_gib: float | None) -> Preview:
    """Everything that can be told without loading anything: problems, memory, disk, time, and what is done already."""
    try:
        check_recipe(choice.text, [f"base.model={choice.base}"] if choice.base else [], roots)
        overrides = overrides_of(choice)
        wanted = recipe.combinations_of(choice.text, overrides)
        loaded = [recipe.loads(choice.text, one, name=choice.name) for one in wanted]
    except RecipeError as e:
        return Preview(problems=tuple(e.problems))
    old = read.latest(runs, choice.name) if choice.take_over and len(wanted) == 1 else None
    compared = [compare(plan(one), old.stages() if old else ()) for one in loaded]
    names = [" ".join(word for word in one if word not in overrides).replace('"', "") for one in wanted]
    asked = [
        Asked(name, one, [s.node for s in all], [s.node.id for s in all if s.state == "run"])
        for name, one, all in zip(names, loaded, compared, strict=True)
    ]
    size = card_gib or CARD_SIZES[0]
    each = [tuple(fit for fit in estimate(run.recipe, run.nodes, card_gib=size) if fit.id in run.only) for run in asked]
    there = next(place for place in (runs.resolve(), *runs.resolve().parents) if place.exists())
    return Preview(
        overrides=overrides,
        wanted=tuple(wanted),
        names=tuple(names),
        command=command(choice, overrides, old.name if any(s.state == "cached" for s in compared[0]) and old else None),
        refusals=tuple(_refusals(asked, runs, card_gib)),
        recipe=loaded[0],
        each=tuple(each),
        models=tuple(dict.fromkeys(base.model for run in asked for base in bases(run.recipe, run.only))),
        statuses=compared[0],
        old=old,
        card=card_gib,
        disk=int(MARGIN * sum(fit.disk for fits in each for fit in fits)),
        disk_free=shutil.disk_usage(there).free,
        fetched=together.download(asked),
    )


def _refusals(asked: Sequence[Asked], runs: Path, card_gib: float | None) -> Iterator[str]:
    """What this machine would say of memory, of the first run that does not fit, and of the disk."""
    try:
        for run in asked:
            with named(run.name):
                if card_gib:
                    refuse(run.recipe, run.nodes, card_gib=card_gib, only=run.only)
                elif not gpus.any_gpu():
                    refuse_cpu(run.recipe, run.nodes, only=run.only)
    except PreconditionError as e:
        yield str(e)
    try:
        refuse_disk_of(asked, runs=runs)
    except PreconditionError as e:
        yield str(e)


def command(choice: Choice, overrides: Sequence[str], from_run: str | None) -> str:
    built_in = recipe.built_in().get(choice.name)
    file = (
        f"recipes/{choice.name}.yaml"
        if built_in and built_in.read_text(encoding="utf-8").strip() == choice.text.strip()
        else f"{choice.name}.yaml"
    )
    words = [
        "lite",
        "run",
        file,
        *overrides,
        *(["--name", choice.label] if choice.label else []),
        *(["--from-run", from_run] if from_run else []),
    ]
    return shlex.join(words)


def this_card() -> float | None:
    return gpus.this_card()


def gate(model: str) -> str | None:
    """What has to be done before a gated base can be fetched; None for others."""
    if not model.startswith(GATED):
        return None
    token = bool(os.environ.get("HF_TOKEN")) or (hub_cache().parent / "token").is_file()
    known = "A Hub login is there." if token else "No Hub login is there: run `hf auth login`, or set HF_TOKEN."
    return f"{model} is gated: accept its licence on its page of the Hub first. {known}"
