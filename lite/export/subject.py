"""What of a run is taken out: one finished stage, with the base, the task and the decoding that belong to it. Torch-free."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lite import recipe, tasks
from lite.artifacts import Artifact, Pairs, Policy, Reward
from lite.contracts import CONTRACTS
from lite.errors import LiteError, RecipeError
from lite.knobs import BaseSpec, base_of
from lite.knobs.judging import EvaluateSpec
from lite.plan import tiny_folder
from lite.recipe import HUB_ID, Recipe, Stage
from lite.runs.read import Run, StageRecord
from lite.yamltext import hint, near


@dataclass(frozen=True)
class Subject:
    run: Run
    recipe: Recipe
    stage: Stage
    artifact: Artifact

    @property
    def base(self) -> BaseSpec:
        """The base that the stage ran on; of one that ran on none, the run's."""
        return base_of(self.stage.spec, self.recipe.base)

    @property
    def base_name(self) -> str:
        """As a reader elsewhere knows it: a Hub id, or a folder's last name, never a place on this machine."""
        if self.base.model == "tiny":
            return "lite's embedded tiny base"
        return self.base.model if self.base_on_hub else Path(self.base.model).expanduser().name

    @property
    def base_on_hub(self) -> bool:
        folder = Path(self.base.model).expanduser()
        return self.base.model != "tiny" and not folder.is_dir() and HUB_ID.fullmatch(self.base.model) is not None

    @property
    def base_place(self) -> str:
        """What PEFT and transformers load the base by on this machine: its Hub id or its folder."""
        folder = tiny_folder() if self.base.model == "tiny" else Path(self.base.model).expanduser()
        return self.base.model if self.base_on_hub else str(folder.resolve())

    @property
    def base_word(self) -> str:
        """What is written down for others to load the base by: its Hub id, lite's own name for its tiny base, or a folder beside them."""
        return self.base.model if self.base_on_hub or self.base.model == "tiny" else f"./{self.base_name}"

    @cached_property
    def lead(self) -> str:
        return tasks.load(self.recipe.task).lead

    @property
    def decoding(self) -> EvaluateSpec:
        return decoding_of(self.recipe)

    @cached_property
    def history(self) -> tuple[Stage, ...]:
        """The stages that this one came from, directly or not, and itself, in their order."""
        wanted: set[str] = {self.stage.id}
        for stage in reversed(self.recipe.stages):
            if stage.id in wanted:
                for wire in stage.inputs.values():
                    wanted.update((wire,) if isinstance(wire, str) else wire or ())
        return tuple(stage for stage in self.recipe.stages if stage.id in wanted)

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(stage.kind for stage in self.history))

    @property
    def sources(self) -> Sequence[str]:
        """Where prompts and labels are from: a name that lite knows, or a place on disk; each once."""
        found = (str(source) for stage in self.history if (source := getattr(stage.spec, "source", None)))
        return tuple(dict.fromkeys(found))

    def record(self, id: str) -> StageRecord | None:
        return next((record for record in self.run.stages() if record.id == id and record.done), None)

    def report(self, id: str | None = None) -> Mapping[str, Any]:
        """What a stage reported of itself; nothing where it did not."""
        from lite.runs.read import read_json

        record = self.record(id or self.stage.id)
        return read_json(record.folder.out / "report.json") if record else {}


WANTED: Mapping[str, tuple[type[Artifact], ...]] = {
    "adapter": (Policy, Reward),
    "merged": (Policy,),
    "ollama": (Policy,),
    "dataset": (Pairs,),
    "job": (Pairs,),
}
"""What can be exported, and the artifacts that it is made of: the first is what is taken where no stage is named."""


def decoding_of(recipe: Recipe) -> EvaluateSpec:
    """How the recipe's evaluation draws replies."""
    specs = [stage.spec for stage in recipe.stages if isinstance(stage.spec, EvaluateSpec)]
    return specs[-1] if specs else EvaluateSpec()


def choose(run: Run, what: str, stage: str | None = None) -> Subject:
    """The finished stage of that id, or the latest one that gives what ``what`` is made of."""
    if what not in WANTED:
        raise RecipeError("--what", [f"nothing is called {what!r}{hint(what, WANTED)}"])
    loaded = recipe.load(run.folder.resolved, name=run.recipe)
    stages = {s.id: s for s in loaded.stages}
    done = {r.id: r for r in run.stages() if r.done and r.id in stages and CONTRACTS[stages[r.id].kind].gives in WANTED[what]}
    if stage is None:
        usual = [id for id in done if stages[id].contract.gives is WANTED[what][0]]
        if not usual:
            kinds = ", ".join(kind for kind, contract in CONTRACTS.items() if contract.gives is WANTED[what][0])
            raise RecipeError(run.name, [f"no finished stage gives what {what} is made of (stages that do: {kinds})"])
        stage = usual[-1]
    elif stage not in done:
        there = ", ".join(done) or "none"
        raise RecipeError("--stage", [f"{what} cannot be made of {stage!r}{near(stage, done)} (finished stages that fit: {there})"])
    return Subject(run, loaded, stages[stage], stages[stage].contract.gives(done[stage].folder.out))


def gives(run: Run, what: str, stage: str | None = None) -> bool:
    """Whether there is a stage to choose."""
    try:
        choose(run, what, stage)
    except LiteError:
        return False
    return True
