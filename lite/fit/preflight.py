"""What a run asks of this machine, checked before anything is loaded: its backend, the GPU's memory, free space, and offline all that is of the Hub."""

import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from lite.errors import PreconditionError
from lite.fit import cards, online, sizes, together
from lite.fit.backend import refuse_backend
from lite.fit.estimate import estimate, refuse
from lite.fit.shape import Shape, hub_cache, shape_of
from lite.knobs import base_of, served
from lite.plan import Node
from lite.recipe import Recipe
from lite.runs import env
from lite.sources import reach

MARGIN = 1.2
"""Free space asked for over the estimate."""
ANY_CARD = 8.0
CPU_WEIGHTS = 1e9
"""A base with more is not begun on a processor unless the recipe asks for it."""


def preflight(recipe: Recipe, nodes: Sequence[Node], *, runs: Path, only: Collection[str]) -> None:
    """Raise :class:`PreconditionError` if the stages named in ``only`` cannot be run here. What cannot be estimated is let through."""
    on_card = [node.id for node in nodes if node.id in only and base_of(node.spec, recipe.base).device != "cpu"]
    refuse_backend(recipe, only)
    if reach.offline():
        online.refuse_offline(recipe, nodes, only=only)
    card = cards.this_card() if on_card else None
    if card is not None:
        refuse(recipe, nodes, card_gib=card, only=on_card)
    elif not cards.any_gpu():
        refuse_cpu(recipe, nodes, only=only)
    refuse_disk(recipe, nodes, runs=runs, only=only)
    online.refuse_unreachable(recipe, only=only)


def refuse_cpu(recipe: Recipe, nodes: Sequence[Node], *, only: Collection[str]) -> None:
    """Refuse a base that a processor would take weeks for."""
    for node in nodes:
        if node.id not in only or not node.contract.uses_base or served(node.spec):
            continue
        base = base_of(node.spec, recipe.base)
        shape = shape_of(base)
        if base.device == "auto" and isinstance(shape, Shape) and shape.linear_weights > CPU_WEIGHTS:
            raise PreconditionError(
                f"no GPU here, and {base.model} has {shape.linear_weights / 1e9:.1f} billion weights: take a machine with one "
                "(`lite doctor` says what it sees), base.model=tiny, or base.device=cpu to wait for it all the same"
            )


def shortage(recipe: Recipe, nodes: Sequence[Node], id: str, folder: Path) -> str:
    """What a stage found no more space for, and how much there is."""
    need = sum(fit.disk for fit in estimate(recipe, nodes, card_gib=ANY_CARD) if fit.id == id)
    return f"{shutil.disk_usage(folder).free / sizes.GIB:.2f} GiB are free under {folder}, {id} writes about {need / sizes.GIB:.2f} GiB"


class Need(NamedTuple):
    folder: Path
    bytes: int
    moved_by: str

    @property
    def there(self) -> Path:
        """The folder, or what there is of the way to it."""
        return next(place for place in (self.folder.resolve(), *self.folder.resolve().parents) if place.exists())


def refuse_disk(recipe: Recipe, nodes: Sequence[Node], *, runs: Path, only: Collection[str]) -> None:
    """Refuse what a disk has too little free space for; what goes to the same disk is added up."""
    refuse_disk_of([together.Asked(recipe.name, recipe, nodes, only)], runs=runs)


def refuse_disk_of(wanted: Sequence[together.Asked], *, runs: Path) -> None:
    """The same for all runs of a sweep, which leave their files one after the other."""
    written = [fit.disk for it in wanted for fit in estimate(it.recipe, it.nodes, card_gib=ANY_CARD) if fit.id in it.only]
    needs = [
        Need(runs, sum(written), "--runs"),
        Need(hub_cache(), together.download(wanted), "HF_HOME"),
        Need(env.copies_folder(), together.copies(wanted), "LITE_CACHE"),
    ]
    by_disk: dict[int, list[Need]] = {}
    for need in needs:
        if need.bytes:
            by_disk.setdefault(need.there.stat().st_dev, []).append(need)
    who = wanted[0].recipe.name + (f" with its {len(wanted)} runs" if len(wanted) > 1 else "")
    for group in by_disk.values():
        total, free = sum(need.bytes for need in group), shutil.disk_usage(group[0].there).free
        if free < MARGIN * total:
            what = " and ".join(f"{need.bytes / sizes.GIB:.1f} GiB under {need.folder}" for need in group)
            raise PreconditionError(
                f"{who} writes about {what}, where {free / sizes.GIB:.1f} GiB are free ({MARGIN:g} times the estimate is asked for): "
                f"free some space, or choose another disk ({', '.join(need.moved_by for need in group)})"
            )
