"""What a run needs of the Hub and the cache does not have: refused before a run is made of it, where nothing can be fetched."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from lite import tasks
from lite.errors import PreconditionError
from lite.fit.estimate import bases
from lite.plan import Node
from lite.recipe import Recipe
from lite.sources import hub, oasst, reach


def refuse_missing(recipe: Recipe, nodes: Sequence[Node], *, only: Collection[str]) -> None:
    """Raise :class:`PreconditionError` if the stages named in ``only`` need a base or rows of the Hub that are not in the cache."""
    missing = [*_bases(recipe, only), *_rows(recipe, nodes, only)]
    if missing:
        raise PreconditionError(
            "offline, and not in the cache:\n"
            + "\n".join(f"  {one}" for one in missing)
            + "\nrun once with the Hub in reach and without --offline, or name a folder in its place"
        )


def _bases(recipe: Recipe, only: Collection[str]) -> Iterator[str]:
    for base, ids in bases(recipe, only).items():
        here = base.model == "tiny" or Path(base.model).expanduser().exists()
        if not here and reach.model_folder(base.model, base.revision) is None:
            yield f"base.model={base.model}{_at(base.revision)}, for {', '.join(ids)}"


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
