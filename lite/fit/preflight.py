"""What a run asks of this machine, checked before anything is loaded: the GPU's memory, and free space for the run and the base."""

import shutil
from collections.abc import Collection, Sequence
from pathlib import Path

from lite.errors import PreconditionError
from lite.fit import cards, sizes
from lite.fit.estimate import download, estimate, refuse
from lite.fit.shape import Shape, hub_cache, shape_of
from lite.knobs import base_of
from lite.plan import Node
from lite.recipe import Recipe

MARGIN = 1.2
"""Free space asked for over the estimate."""
ANY_CARD = 8.0
CPU_WEIGHTS = 1e9
"""A base with more is not begun on a processor unless the recipe asks for it."""


def preflight(recipe: Recipe, nodes: Sequence[Node], *, runs: Path, only: Collection[str]) -> None:
    """Raise :class:`PreconditionError` if the stages named in ``only`` cannot be run here. What cannot be estimated is let through."""
    on_card = [node.id for node in nodes if node.id in only and base_of(node.spec, recipe.base).device != "cpu"]
    card = cards.this_card() if on_card else None
    if card is not None:
        refuse(recipe, nodes, card_gib=card, only=on_card)
    elif not cards.any_gpu():
        refuse_cpu(recipe, nodes, only=only)
    refuse_disk(recipe, nodes, runs=runs, only=only)


def refuse_cpu(recipe: Recipe, nodes: Sequence[Node], *, only: Collection[str]) -> None:
    """Refuse a base that a processor would take weeks for."""
    for node in nodes:
        if node.id not in only or not node.contract.uses_base:
            continue
        base = base_of(node.spec, recipe.base)
        shape = shape_of(base)
        if base.device == "auto" and isinstance(shape, Shape) and shape.linear_weights > CPU_WEIGHTS:
            raise PreconditionError(
                f"no GPU here, and {base.model} has {shape.linear_weights / 1e9:.1f} billion weights: take a machine with one "
                "(`lite doctor` says what it sees), base.model=tiny, or base.device=cpu to wait for it all the same"
            )


def refuse_disk(recipe: Recipe, nodes: Sequence[Node], *, runs: Path, only: Collection[str]) -> None:
    fits = [fit for fit in estimate(recipe, nodes, card_gib=ANY_CARD) if fit.id in only]
    needs = {runs: sum(fit.disk for fit in fits), hub_cache(): download(recipe, only)}
    for folder, need in needs.items():
        there = next(place for place in (folder.resolve(), *folder.resolve().parents) if place.exists())
        free = shutil.disk_usage(there).free
        if need and free < MARGIN * need:
            raise PreconditionError(
                f"{recipe.name} writes about {need / sizes.GIB:.1f} GiB under {folder}, where {free / sizes.GIB:.1f} GiB are free "
                f"({MARGIN:g} times the estimate is asked for): free some space, or choose another disk "
                f"({'--runs' if folder == runs else 'HF_HOME'})"
            )
