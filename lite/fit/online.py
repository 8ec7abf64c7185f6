"""What a run needs of the Hub and the cache does not have: refused before a run is made of it, and before torch is imported."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from lite import tasks
from lite.errors import PreconditionError
from lite.fit.bases import bases
from lite.knobs import BaseSpec
from lite.plan import Node
from lite.recipe import Recipe
from lite.sources import hub, oasst, reach


def refuse_offline(recipe: Recipe, nodes: Sequence[Node], *, only: Collection[str]) -> None:
    """Raise :class:`PreconditionError` if the stages named in ``only`` need a base or rows that are not in the cache. Asks nobody."""
    missing = [f"base.model={base.model}{_at(base.revision)}, for {', '.join(ids)}" for base, ids in _uncached(recipe, only).items()]
    missing += _rows(recipe, nodes, only)
    if missing:
        raise PreconditionError(
            "offline, and not in the cache:\n"
            + "\n".join(f"  {one}" for one in missing)
            + "\nrun once with the Hub in reach and without --offline, or name a folder in its place"
        )


def refuse_unreachable(recipe: Recipe, *, only: Collection[str]) -> None:
    """Ask the Hub once for every base that has to be fetched; a :class:`PreconditionError` says why one cannot be had."""
    for base in _uncached(recipe, only):
        reach.ask(
            base.model,
            base.revision,
            f"base.model: {base.model!r} could not be loaded",
            "give a folder, or a Hub id that is cached or reachable",
        )


def _uncached(recipe: Recipe, only: Collection[str]) -> dict[BaseSpec, list[str]]:
    """Bases on the Hub that are not whole in the cache, each with its stages."""

    def away(base: BaseSpec) -> bool:
        if base.model == "tiny" or Path(base.model).expanduser().is_dir() or reach.looks_like_a_folder(base.model):
            return False
        return reach.model_folder(base.model, base.revision) is None

    return {base: ids for base, ids in bases(recipe, only).items() if away(base)}


def _rows(recipe: Recipe, nodes: Sequence[Node], only: Collection[str]) -> Iterator[str]:
    for node in nodes:
        source, revision = getattr(node.spec, "source", None), getattr(node.spec, "revision", None)
        if node.id not in only or source not in (*oasst.REPOS, "hh-rlhf"):
            continue
        if source == "hh-rlhf":
            subset = getattr(node.spec, "subset", None) or hub.subset_for(tasks.load(recipe.task))
            repo, files, part = hub.REPO, f"{subset}/*", f" ({subset})"
        else:
            repo, files, part = oasst.REPOS[source], oasst.FILES, ""
        here = reach.snapshot(repo, revision)
        if here is None or not any(here.glob(files)):
            yield f"{node.id}.source={source}, the dataset {repo}{part}{_at(revision)}"


def _at(revision: str | None) -> str:
    return f" at {revision}" if revision else ""
