"""Which models a run lets one talk to, and what each is given to read. Torch-free."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lite import tasks
from lite.artifacts import Policy
from lite.contracts import CONTRACTS
from lite.errors import LiteError
from lite.knobs import BaseSpec
from lite.recipe import load
from lite.runs.read import Run
from lite.text import contrast, dialogue
from lite.text.dialogue import Turn

BASE, PROMPTED = "base", "p_plus"


@dataclass(frozen=True)
class Offer:
    """``adapter``: its folder, None for the base. ``prompted``: asked under the task's encouraging stage direction."""

    name: str
    about: str
    adapter: Path | None = None
    prompted: bool = False


@dataclass(frozen=True)
class Room:
    """A run's base, task and models."""

    base: BaseSpec
    task: str
    offers: tuple[Offer, ...]

    def offer(self, name: str) -> Offer | None:
        return next((offer for offer in self.offers if offer.name == name), None)

    def prompt(self, offer: Offer, turns: Sequence[Turn]) -> str:
        """What the model reads: the dialogue, under the stage direction if it is asked with one."""
        task = tasks.load(self.task)
        return contrast.contrast(turns, task, 0).p_plus if offer.prompted else dialogue.prompt(turns, lead=task.lead)


def room(run: Run) -> Room:
    """The base as it is, the base under p+, and every policy that the run has finished, in the order of its stages."""
    recipe = load(run.folder.resolved)
    found = [
        Offer(BASE, "the base model, untouched"),
        Offer(PROMPTED, "the base model, asked under the encouraging stage direction", prompted=True),
    ]
    for record in run.stages():
        kind = str(record.facts.get("kind", ""))
        if record.done and kind in CONTRACTS and CONTRACTS[kind].gives is Policy:
            found.append(Offer(record.id, f"after stage {record.id} ({kind})", Policy(record.folder.out).adapter))
    return Room(recipe.base, recipe.task, tuple(found))


def can_chat(run: Run, model: str | None = None) -> bool:
    """Whether there is a model of that name to talk to; none: a trained one."""
    try:
        return any(offer.adapter if model is None else offer.name == model for offer in room(run).offers)
    except LiteError:
        return False
