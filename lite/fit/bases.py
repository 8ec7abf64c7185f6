"""The bases of a recipe: which stages run on which, and what they take on disk besides the run."""

from collections.abc import Iterable
from pathlib import Path

from lite.fit import sizes
from lite.fit.shape import Unknown, cached_config, shape_of
from lite.knobs import BaseSpec, base_of, served
from lite.plan import tiny_folder
from lite.recipe import Recipe
from lite.runs import env


def bases(recipe: Recipe, only: Iterable[str] | None = None) -> dict[BaseSpec, list[str]]:
    """The bases that the stages run on, each with the ids of its stages; ``only``: the ids of the stages that will run."""
    wanted = None if only is None else set(only)
    found: dict[BaseSpec, list[str]] = {}
    for stage in recipe.stages:
        if stage.contract.uses_base and not served(stage.spec) and (wanted is None or stage.id in wanted):
            found.setdefault(base_of(stage.spec, recipe.base), []).append(stage.id)
    return found


def download(recipe: Recipe, only: Iterable[str] | None = None) -> int:
    """Bytes that the bases still have to be fetched with: 16-bit weights, unless they lie in a folder or in the cache."""
    return sum(_to_fetch(model, revision) for model, revision in {(base.model, base.revision) for base in bases(recipe, only)})


def _to_fetch(model: str, revision: str | None) -> int:
    shape = shape_of(BaseSpec(model=model, revision=revision))
    here = model == "tiny" or Path(model).expanduser().is_dir()
    if isinstance(shape, Unknown) or here:
        return 0
    config = cached_config(model, revision)
    return 0 if config and any(config.parent.glob("*.safetensors")) else 2 * shape.parameters


def copies(recipe: Recipe, only: Iterable[str] | None = None) -> int:
    """Bytes of the 4-bit copies that the bases will leave (``cache_4bit``), those aside that are there."""
    there = env.copies().values()
    wanted = [base for base in bases(recipe, only) if base.cache_4bit and base.quantize == "nf4"]
    return sum(_copy(base) for base in wanted if not any(_is_of(base.model, place) for place in there))


def _is_of(model: str, place: str) -> bool:
    """Whether a base that was read from ``place`` is the one that a recipe calls ``model``."""
    own = tiny_folder() if model == "tiny" else Path(model).expanduser()
    return str(own) == place or f"models--{model.replace('/', '--')}" in Path(place).parts


def _copy(base: BaseSpec) -> int:
    shape = shape_of(base)
    return 0 if isinstance(shape, Unknown) else sizes.base_weights(shape, base) + sizes.embeddings(shape, base)
