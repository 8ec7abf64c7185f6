"""The estimate of a plan, stage by stage, and the refusal of what does not fit."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple

from lite.errors import PreconditionError
from lite.fit import cards
from lite.fit.demand import Moment, Site
from lite.fit.loop import DEMANDS, demand
from lite.fit.shape import Unknown
from lite.fit.turn import (
    ROWS,
    auto,
    largest,
    last,
    memory_knobs,
    moments,
    peak,
    seconds,
    settled,
    sites,
    value_of,
    with_checkpointing,
    with_value,
)
from lite.fit.ways import ways
from lite.fit.words import columns, gib, gib_number, whole
from lite.knobs import base_of, served
from lite.plan import Node
from lite.recipe import Recipe

WORTH = 0.9
"""Share of a stage's longest time, under which more rows at once are worth naming."""


class Faster(NamedTuple):
    rows: Mapping[str, int]
    seconds: tuple[float, float]


@dataclass(frozen=True)
class StageFit:
    """One stage on one card.

    ``largest``: the highest values that fit of the knobs that only cost memory; 0: none fits. ``checkpointed``: the highest
    ``micro_tokens``, where more fit once checkpointing, off by itself, is on. ``otherwise``: the update with checkpointing turned the
    other way. ``faster``: more rows at once than the recipe has, and what the stage takes with them. ``unknown``: why there is no
    estimate, ``advice``: how there could be one.
    """

    id: str
    kind: str
    moments: tuple[Moment, ...]
    usable: int
    largest: Mapping[str, int]
    seconds: tuple[float, float]
    disk: int
    otherwise: Moment | None = None
    checkpointed: int = 0
    faster: Faster | None = None
    unknown: str | None = None
    advice: str = ""

    @property
    def height(self) -> Moment | None:
        """The moment at which the stage needs most."""
        return max(self.moments, key=lambda moment: moment.bytes, default=None)

    @property
    def peak(self) -> int:
        return self.height.bytes if self.height else 0

    @property
    def fits(self) -> bool:
        return self.peak <= self.usable

    def to_json(self) -> dict[str, Any]:
        moments = {
            m.name: {"peak_gib": gib_number(m.bytes), "parts_gib": {k: gib_number(v) for k, v in m.parts.items()}} for m in self.moments
        }
        return {
            "id": self.id,
            "fits": None if self.unknown else self.fits,
            "unknown": self.unknown,
            "peak_gib": None if self.unknown else gib_number(self.peak),
            "moments": moments,
            "largest": dict(self.largest),
            "largest_checkpointed": {"micro_tokens": self.checkpointed} if self.checkpointed else {},
            "faster": {"rows": dict(self.faster.rows), "seconds": whole(self.faster.seconds)} if self.faster else None,
            "seconds": None if self.unknown else whole(self.seconds),
            "disk_gib": gib_number(self.disk),
        }


def estimate(recipe: Recipe, nodes: Sequence[Node], *, card_gib: float) -> list[StageFit]:
    """Every stage of a plan on a card of so many GiB. Where a base's shape is unknown, every stage that uses it says so."""
    usable, card = cards.usable(card_gib), cards.class_of(card_gib)
    found = []
    for node, site in sites(recipe, nodes):
        if served(node.spec):
            found.append(_baseless(node, usable))
        elif isinstance(site, Site):
            found.append(_stage(node, site, usable, card))
        else:
            found.append(_unknown(node, usable, site) if node.contract.uses_base else _baseless(node, usable))
    return found


def _stage(node: Node, site: Site, usable: int, card: cards.Card) -> StageFit:
    if node.kind not in DEMANDS:
        return _unknown(node, usable, Unknown(f"no estimate for stages of kind {node.kind}"))
    found = settled(node, site, usable)
    knobs = memory_knobs(found, site)
    most = {knob: largest(found, site, found.spec, knob, usable) for knob in knobs}
    on = largest(node, site, node.spec, "micro_tokens", usable) if auto(node) else 0  # counted with checkpointing
    return StageFit(
        found.id,
        found.kind,
        moments(found, site, found.spec),
        usable,
        most,
        seconds(found, site, found.spec, card),
        demand(found, site).disk,
        _otherwise(found, site),
        on if on > most.get("micro_tokens", 0) else 0,
        _faster(found, site, most, usable, card),
    )


def _faster(node: Node, site: Site, most: Mapping[str, int], usable: int, card: cards.Card) -> Faster | None:
    """As many rows at once as fit, where that shortens the stage and all else fits as it is."""
    rows = {knob: value for knob, value in most.items() if last(knob) in ROWS and value > value_of(node.spec, knob)}
    spec = reduce(lambda spec, knob: with_value(spec, knob, rows[knob]), rows, node.spec)
    found, now = seconds(node, site, spec, card), seconds(node, site, node.spec, card)
    return Faster(rows, found) if found[1] < WORTH * now[1] and peak(node, site, spec) <= usable else None


def settle(recipe: Recipe, nodes: Sequence[Node], card_gib: float | None) -> tuple[Node, ...]:
    """`checkpointing: auto` decided for a card: off where the stage fits without, or where there is no card. It changes no identity."""
    found = []
    for node, site in sites(recipe, nodes):
        if card_gib is None or base_of(node.spec, recipe.base).device == "cpu":
            found.append(with_checkpointing(node, False))
        else:
            fitted = settled(node, site, cards.usable(card_gib)) if isinstance(site, Site) and node.kind in DEMANDS else node
            found.append(with_checkpointing(fitted, True))  # what cannot be estimated takes the safe way
    return tuple(found)


def needs_settling(nodes: Iterable[Node]) -> bool:
    return any(map(auto, nodes))


def _unknown(node: Node, usable: int, found: Unknown) -> StageFit:
    return StageFit(node.id, node.kind, (), usable, {}, (0.0, 0.0), 0, unknown=found.reason, advice=found.advice)


def _baseless(node: Node, usable: int) -> StageFit:
    return StageFit(node.id, node.kind, (), usable, {}, (0.0, 0.0), 0)


def _otherwise(node: Node, site: Site) -> Moment | None:
    on = getattr(node.spec, "checkpointing", None)
    if on is None:
        return None
    turned = moments(node, site, node.spec.model_copy(update={"checkpointing": not on}))
    return next(m._replace(name=f"{m.name}, checkpointing={str(not on).lower()}") for m in turned if "checkpointing" in m.knobs)


def refuse(recipe: Recipe, nodes: Sequence[Node], *, card_gib: float, only: Iterable[str] | None = None) -> None:
    """Raise :class:`PreconditionError` if a stage cannot fit a card of so many GiB; ``only``: the ids of the stages that will run."""
    wanted = None if only is None else set(only)
    fits = [fit for fit in estimate(recipe, nodes, card_gib=card_gib) if wanted is None or fit.id in wanted]
    short = [fit for fit in fits if not fit.fits]
    if not short:
        return
    own = {node.id: f" on {base.model}" for node in nodes if (base := base_of(node.spec, recipe.base)) != recipe.base}
    lines: dict[str, list[str]] = {}
    for fit in short:
        lines.setdefault(f"{own.get(fit.id, '')} {_need(fit)}", []).append(fit.id)
    told = [
        f"{recipe.name} does not fit a card with {card_gib:.4g} GiB ({gib(short[0].usable)} of it usable); estimated, nothing was loaded",
        *(f"  {', '.join(ids)}{words}" for words, ids in lines.items()),
        "turn one of these:",
        *(f"  {way}" for way in ways(recipe, nodes, card_gib)),
    ]
    raise PreconditionError("\n".join(told))


def _need(fit: StageFit) -> str:
    """Where a stage needs most, and of what."""
    height = fit.height
    assert height is not None
    most = sorted(columns(height).items(), key=lambda part: -part[1])[:3]
    return f"({height.name}): {gib(fit.peak)} GiB, of it {', '.join(f'{part} {gib(size)}' for part, size in most)}"


def refuse_unknown(fits: Iterable[StageFit]) -> None:
    """Raise :class:`PreconditionError` where the question whether a recipe fits cannot be answered: what to do, or, if nothing, why."""
    unknown = [fit for fit in fits if fit.unknown]
    if unknown:
        advice = "".join(f"\n  {words}" for words in dict.fromkeys(fit.advice or fit.unknown for fit in unknown))
        raise PreconditionError(f"whether it fits cannot be told: no estimate for {', '.join(fit.id for fit in unknown)}{advice}")
