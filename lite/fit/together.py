"""What the runs of a sweep ask for: each judged by itself, time and disk of all added up. Bases that several use are fetched once."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from lite import tables
from lite.errors import PreconditionError
from lite.fit import bases, show
from lite.fit.estimate import StageFit, estimate, refuse, refuse_unknown
from lite.fit.turn import total
from lite.fit.words import gib, gib_number, span, whole, whose
from lite.knobs import BaseSpec
from lite.plan import Node
from lite.recipe import Recipe


class Asked(NamedTuple):
    """One run: its overrides as its name, its plan, and the ids of the stages that will run."""

    name: str
    recipe: Recipe
    nodes: Sequence[Node]
    only: Collection[str]


class RunFit(NamedTuple):
    name: str
    fits: bool | None  # None: cannot be told
    peak: int
    seconds: tuple[float, float]
    disk: int

    def to_json(self) -> dict[str, Any]:
        return {
            "run": self.name,
            "fits": self.fits,
            "peak_gib": gib_number(self.peak),
            "seconds": whole(self.seconds),
            "disk_gib": gib_number(self.disk),
        }


def shown(runs: Sequence[Asked], card_gib: float, *, as_json: bool) -> dict[str, Any]:
    """What `lite plan` tells of a card: of the first run all; of a sweep besides a row for each run."""
    first = runs[0].recipe
    fits = estimate(first, runs[0].nodes, card_gib=card_gib)
    found = {"fit": show.to_json(first, fits, card_gib) if as_json else show.text(first, fits, card_gib)}
    return found | ({"sweep": to_json(runs, card_gib) if as_json else text(runs, card_gib)} if len(runs) > 1 else {})


def judge(runs: Sequence[Asked], card_gib: float) -> list[RunFit]:
    return [_judged(run.name, estimate(run.recipe, run.nodes, card_gib=card_gib)) for run in runs]


def _judged(name: str, fits: Sequence[StageFit]) -> RunFit:
    verdict = False if not all(fit.fits for fit in fits) else None if any(fit.unknown for fit in fits) else True
    return RunFit(
        name, verdict, max((fit.peak for fit in fits), default=0), total(fit.seconds for fit in fits), sum(fit.disk for fit in fits)
    )


def text(runs: Sequence[Asked], card_gib: float) -> str:
    """A row per run, and their sum."""
    found, fetched = judge(runs, card_gib), download(runs)
    verdicts = {True: "yes", False: "NO", None: "not known"}
    rows = [(fit.name, gib(fit.peak), verdicts[fit.fits], span(fit.seconds), gib(fit.disk)) for fit in found]
    peak, disk = max(fit.peak for fit in found), sum(fit.disk for fit in found)
    rows.append(("all", gib(peak), verdicts[_all(found)], span(total(fit.seconds for fit in found)), gib(disk)))
    time = f"time on one {whose(card_gib)}"
    told = f", and {gib(fetched)} GiB to fetch their bases" if fetched else ""
    return f"{tables.text(('run of the sweep', 'peak GiB', 'fits', time, 'disk GiB'), rows)}\n\ndisk: {gib(disk)} GiB for all runs{told}"


def to_json(runs: Sequence[Asked], card_gib: float) -> dict[str, Any]:
    found = judge(runs, card_gib)
    return {
        "fits": _all(found),
        "seconds": whole(total(fit.seconds for fit in found)),
        "disk_gib": gib_number(sum(fit.disk for fit in found)),
        "download_gib": gib_number(download(runs)),
        "copies_gib": gib_number(copies(runs)),
        "runs": [fit.to_json() for fit in found],
    }


def refuse_any(runs: Sequence[Asked], card_gib: float) -> None:
    """Raise :class:`PreconditionError` with the name of the first run that does not fit, or of which that cannot be told."""
    for run in runs:
        with named(run.name):
            refuse(run.recipe, run.nodes, card_gib=card_gib, only=run.only)
    for run in runs:
        with named(run.name):
            refuse_unknown(estimate(run.recipe, run.nodes, card_gib=card_gib))


@contextmanager
def named(name: str) -> Iterator[None]:
    """A refusal of one run of a sweep says of which. A run of its own has no name."""
    try:
        yield
    except PreconditionError as e:
        if not name:
            raise
        raise PreconditionError(f"{name}: {e}") from e


def download(runs: Sequence[Asked]) -> int:
    return sum(bases.download(run.recipe, ids) for run, ids in _new(runs, lambda base: (base.model, base.revision)))


def copies(runs: Sequence[Asked]) -> int:
    return sum(bases.copies(run.recipe, ids) for run, ids in _new(runs, lambda base: base))


def _new(runs: Sequence[Asked], key: Callable[[BaseSpec], object]) -> Iterator[tuple[Asked, list[str]]]:
    """Each run with those of its stages whose base no run before it has."""
    seen = set[object]()
    for run in runs:
        found = {base: ids for base, ids in bases.bases(run.recipe, run.only).items() if key(base) not in seen}
        seen |= {key(base) for base in found}
        yield run, [id for ids in found.values() for id in ids]


def _all(found: Sequence[RunFit]) -> bool | None:
    verdicts = {fit.fits for fit in found}
    return False if False in verdicts else None if None in verdicts else True
