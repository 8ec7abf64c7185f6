"""The estimate of a plan, stage by stage, and what to turn where a card is too small."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, NamedTuple

from lite.errors import PreconditionError
from lite.fit import cards, sizes
from lite.fit.demand import Moment, Site
from lite.fit.loop import DEMANDS, demand
from lite.fit.shape import Shape, Unknown, known_models, shape_of
from lite.knobs import Spec, base_of, served
from lite.plan import Node
from lite.recipe import Recipe

SLACK = 0.05
"""Share of what comes and goes that the allocator cannot use again."""
MOVING = ("gradients", "activations", "kv", "logits")
MOST = {"batch_rows": 512, "judging.batch_rows": 512, "rollout_rows": 512, "micro_tokens": 65536}
GRAIN = {"micro_tokens": 64, "max_tokens": 64}
"""Knobs that decide how much is done at once, without changing a result: their largest values worth naming, and their grain."""
SHORTEST = 512
"""Tokens that a text may be cut to before another base is the better advice."""
CARD_SIZES = (8, 12, 16, 24, 32, 48, 80, 96, 141)


@dataclass(frozen=True)
class StageFit:
    """One stage on one card.

    ``largest``: the highest values that fit of the knobs that only cost memory; 0: none fits. ``otherwise``: the update with
    checkpointing turned the other way.
    """

    id: str
    kind: str
    moments: tuple[Moment, ...]
    usable: int
    largest: Mapping[str, int]
    seconds: tuple[float, float]
    disk: int
    otherwise: Moment | None = None
    unknown: str | None = None

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
        moments = {m.name: {"peak_gib": _gib(m.bytes), "parts_gib": {k: _gib(v) for k, v in m.parts.items()}} for m in self.moments}
        return {
            "id": self.id,
            "fits": None if self.unknown else self.fits,
            "unknown": self.unknown,
            "peak_gib": None if self.unknown else _gib(self.peak),
            "moments": moments,
            "largest": dict(self.largest),
            "seconds": None if self.unknown else [round(s) for s in self.seconds],
            "disk_gib": _gib(self.disk),
        }


class Way(NamedTuple):
    """A way to make a recipe fit: overrides, and the highest peak with them."""

    overrides: tuple[str, ...]
    peak: int


def estimate(recipe: Recipe, nodes: Sequence[Node], *, card_gib: float) -> list[StageFit]:
    """Every stage of a plan on a card of so many GiB. Where a base's shape is unknown, every stage that uses it says so."""
    usable, card = cards.usable(card_gib), cards.class_of(card_gib)
    found = []
    for node, site in _sites(recipe, nodes):
        if served(node.spec):
            found.append(_baseless(node, usable))
        elif isinstance(site, Site):
            found.append(_stage(node, site, usable, card))
        else:
            found.append(_unknown(node, usable, site.reason) if node.contract.uses_base else _baseless(node, usable))
    return found


def _sites(recipe: Recipe, nodes: Sequence[Node]) -> list[tuple[Node, Site | Unknown]]:
    """Every stage on its own base."""
    shapes = {base: shape_of(base) for base in dict.fromkeys(base_of(node.spec, recipe.base) for node in nodes)}
    by_id = {node.id: node for node in nodes}
    found: list[tuple[Node, Site | Unknown]] = []
    for node in nodes:
        base = base_of(node.spec, recipe.base)
        shape = Unknown("a server writes") if served(node.spec) else shapes[base]
        found.append((node, shape if isinstance(shape, Unknown) else Site(shape, base, by_id)))
    return found


def _stage(node: Node, site: Site, usable: int, card: cards.Card) -> StageFit:
    if node.kind not in DEMANDS:
        return _unknown(node, usable, f"no estimate for stages of kind {node.kind}")
    settled = _settled(node, site, usable)
    asked = demand(settled, site)
    spent = [cards.seconds(work, site.shape, site.base, card) for work in asked.work]
    largest = {knob: _largest(node, site, node.spec, knob, usable, MOST[knob]) for knob in MOST if _has(node.spec, knob)}
    seconds = (sum(low for low, _ in spent), sum(high for _, high in spent))
    return StageFit(
        settled.id, settled.kind, _moments(settled, site, settled.spec), usable, largest, seconds, asked.disk, _otherwise(settled, site)
    )


def settle(recipe: Recipe, nodes: Sequence[Node], card_gib: float | None) -> tuple[Node, ...]:
    """`checkpointing: auto` decided for a card: off where the stage fits without, or where there is no card. It changes no identity."""
    found = []
    for node, site in _sites(recipe, nodes):
        if card_gib is None or base_of(node.spec, recipe.base).device == "cpu":
            found.append(_with_checkpointing(node, False))
        else:
            fitted = _settled(node, site, cards.usable(card_gib)) if isinstance(site, Site) and node.kind in DEMANDS else node
            found.append(_with_checkpointing(fitted, True))  # what cannot be estimated takes the safe way
    return tuple(found)


def needs_settling(nodes: Iterable[Node]) -> bool:
    return any(getattr(node.spec, "checkpointing", None) == "auto" for node in nodes)


def _settled(node: Node, site: Site, usable: int) -> Node:
    off = _with_checkpointing(node, False)
    return off if _peak(off, site, off.spec, "checkpointing") <= usable else _with_checkpointing(node, True)


def _with_checkpointing(node: Node, on: bool) -> Node:
    """`auto` turned to a value; a recipe's own choice stays."""
    return replace(node, spec=node.spec.model_copy(update={"checkpointing": on})) if needs_settling([node]) else node


def _unknown(node: Node, usable: int, reason: str) -> StageFit:
    return StageFit(node.id, node.kind, (), usable, {}, (0.0, 0.0), 0, unknown=reason)


def _baseless(node: Node, usable: int) -> StageFit:
    return StageFit(node.id, node.kind, (), usable, {}, (0.0, 0.0), 0)


def _moments(node: Node, site: Site, spec: Spec) -> tuple[Moment, ...]:
    return tuple(_with_slack(moment) for moment in demand(node, site, spec).moments)


def _otherwise(node: Node, site: Site) -> Moment | None:
    on = getattr(node.spec, "checkpointing", None)
    if on is None:
        return None
    turned = _moments(node, site, node.spec.model_copy(update={"checkpointing": not on}))
    return next(m._replace(name=f"{m.name}, checkpointing={str(not on).lower()}") for m in turned if "checkpointing" in m.knobs)


def _with_slack(moment: Moment) -> Moment:
    slack = int(SLACK * sum(moment.parts.get(part, 0) for part in MOVING))
    return moment._replace(parts={**moment.parts, "slack": slack})


def _peak(node: Node, site: Site, spec: Spec, knob: str | None = None) -> int:
    """The highest moment, of all or of those that a knob moves."""
    return max((m.bytes for m in _moments(node, site, spec) if knob is None or knob in m.knobs), default=0)


def _has(spec: Spec, knob: str) -> bool:
    """``knob`` may lie in a group: ``judging.batch_rows``."""
    name, _, rest = knob.partition(".")
    return name in type(spec).model_fields and (not rest or _has(getattr(spec, name), rest))


def _value(spec: Spec, knob: str) -> Any:
    return reduce(getattr, knob.split("."), spec)


def _with(spec: Spec, knob: str, value: Any) -> Spec:
    name, _, rest = knob.partition(".")
    return spec.model_copy(update={name: _with(getattr(spec, name), rest, value) if rest else value})


def _largest(node: Node, site: Site, spec: Spec, knob: str, usable: int, most: int) -> int:
    """The highest value of a knob, up to ``most``, whose moments fit, by halving; 0 if the lowest does not."""
    grain = GRAIN.get(knob, 1)
    moved = knob if knob in MOST else None
    low, high = 0, most // grain
    while low < high:
        middle = (low + high + 1) // 2
        if _peak(node, site, _with(spec, knob, middle * grain), moved) <= usable:
            low = middle
        else:
            high = middle - 1
    return low * grain


def way_to_fit(recipe: Recipe, nodes: Sequence[Node], card_gib: float) -> Way | None:
    """The overrides of knobs that change no result with which every stage fits; none are needed where it fits as it is."""
    usable = cards.usable(card_gib)
    found: list[str] = []
    peak = 0
    for node, site in _sites(recipe, nodes):
        if node.kind not in DEMANDS or isinstance(site, Unknown):
            continue
        spec = _slimmed(node, site, usable)
        if spec is None:
            return None
        changed = [k for k in (*MOST, "checkpointing") if _has(spec, k) and _value(spec, k) != _value(node.spec, k)]
        found += [f"{node.id}.{knob}={str(_value(spec, knob)).lower()}" for knob in changed]
        peak = max(peak, _peak(node, site, spec))
    return Way(tuple(found), peak)


def _slimmed(node: Node, site: Site, usable: int) -> Spec | None:
    """The spec with as little at once as fits: fewer rows, shorter passes, and checkpointing before passes of under 1,024 tokens."""
    spec = node.spec
    for knob in [knob for knob in MOST if _has(spec, knob)]:
        if _peak(node, site, spec, knob) <= usable:
            continue
        value = _largest(node, site, spec, knob, usable, MOST[knob])
        if value < 1024 and knob == "micro_tokens" and not getattr(spec, "checkpointing", True):
            spec = spec.model_copy(update={"checkpointing": True})
            value = min(getattr(spec, knob), _largest(node, site, spec, knob, usable, MOST[knob]))
        if value == 0:
            return None
        spec = _with(spec, knob, value)
    return spec if _peak(node, site, spec) <= usable else None


def ways(recipe: Recipe, nodes: Sequence[Node], card_gib: float) -> list[str]:
    """Concrete things to do about a card that is too small, the best first: each makes the whole recipe fit."""
    found = []
    way = way_to_fit(recipe, nodes, card_gib)
    if way:
        found.append(f"{' '.join(way.overrides)}   (peak {_gib(way.peak):.1f} GiB; the results stay the same)")
    else:
        found += _other_values(recipe, nodes, card_gib)
    for name, places, smaller, changed in _smaller_bases(recipe, nodes, card_gib):
        way = way_to_fit(smaller, changed, card_gib)
        if way:
            words = " ".join((*(f"{place}.model={name}" for place in places), *way.overrides))
            found.append(f"{words}   (peak {_gib(way.peak):.1f} GiB)")
        if len(found) == 3:
            break
    for size in CARD_SIZES:
        way = way_to_fit(recipe, nodes, size) if size > card_gib else None
        if way:
            found.append(f"a card with {size} GB" + (f" and {' '.join(way.overrides)}" if way.overrides else ""))
            break
    return found


def _smaller_bases(
    recipe: Recipe, nodes: Sequence[Node], card_gib: float
) -> Iterator[tuple[str, tuple[str, ...], Recipe, tuple[Node, ...]]]:
    """Smaller well-known bases for the stages that do not fit: the base, the places that name it, and the plan with it."""
    usable = cards.usable(card_gib)
    known = [(n, s) for n, s in _sites(recipe, nodes) if isinstance(s, Site) and n.kind in DEMANDS]
    short = [(node, site) for node, site in known if _peak(node, site, node.spec) > usable]
    if not short:
        return
    largest = max((site for _, site in short), key=lambda site: site.shape.parameters)
    for name, shape in _smaller(largest.base.model, largest.shape):
        turned = {node.id: site.base for node, site in short if site.shape.parameters > shape.parameters}
        change = {"model": name, "revision": None}
        own = {id: base.model_copy(update=change) for id, base in turned.items() if base != recipe.base}
        shared = recipe.base.model_copy(update=change) if recipe.base in turned.values() else recipe.base
        places = (*(("base",) if shared != recipe.base else ()), *(f"{id}.base" for id in own))
        changed = tuple(replace(n, spec=n.spec.model_copy(update={"base": own[n.id]})) if n.id in own else n for n in nodes)
        yield name, places, recipe.model_copy(update={"base": shared}), changed


def _other_values(recipe: Recipe, nodes: Sequence[Node], card_gib: float) -> list[str]:
    """What makes room and changes the results: an adapter less, or the longest texts cut."""
    return [*_joint_value(recipe, nodes, card_gib), *_shorter_texts(recipe, nodes, card_gib)]


def _shorter_texts(recipe: Recipe, nodes: Sequence[Node], card_gib: float) -> list[str]:
    """The longest texts cut in the stages that no other knob makes fit."""
    usable = cards.usable(card_gib)
    cut: dict[str, Node] = {}
    for node, site in _sites(recipe, nodes):
        if isinstance(site, Unknown) or node.kind not in DEMANDS or _slimmed(node, site, usable) or not _has(node.spec, "max_tokens"):
            continue
        lowest = _with(node.spec, "micro_tokens", GRAIN["micro_tokens"])
        tokens = _largest(node, site, lowest, "max_tokens", usable, _value(node.spec, "max_tokens") - 1)
        if tokens < SHORTEST:
            return []
        cut[node.id] = replace(node, spec=_with(node.spec, "max_tokens", tokens))
    way = way_to_fit(recipe, [cut.get(node.id, node) for node in nodes], card_gib) if cut else None
    if way is None:
        return []
    words = " ".join((*(f"{id}.max_tokens={_value(node.spec, 'max_tokens')}" for id, node in cut.items()), *way.overrides))
    return [f"{words}   (peak {_gib(way.peak):.1f} GiB; longer texts are cut)"]


def _joint_value(recipe: Recipe, nodes: Sequence[Node], card_gib: float) -> list[str]:
    """One adapter less: the value head on the policy's trunk, which Hydra-RLHF found worse."""
    joint = [n for n in nodes if getattr(n.spec, "value", None) == "separate"]
    changed = [replace(n, spec=n.spec.model_copy(update={"value": "joint"})) if n in joint else n for n in nodes]
    way = way_to_fit(recipe, changed, card_gib) if joint else None
    if way is None:
        return []
    words = " ".join((*(f"{n.id}.value=joint" for n in joint), *way.overrides))
    return [f"{words}   (peak {_gib(way.peak):.1f} GiB; another method)"]


def _smaller(model: str, shape: Shape) -> list[tuple[str, Shape]]:
    """Well-known bases with fewer weights, those of the same name first, the largest first."""
    stem = re.split(r"[-\d]", model.lower(), maxsplit=1)[0]
    fewer = [(name, other) for name, other in known_models().items() if other.parameters < 0.97 * shape.parameters]
    return sorted(fewer, key=lambda item: (not item[0].lower().startswith(stem), -item[1].parameters))


def refuse(recipe: Recipe, nodes: Sequence[Node], *, card_gib: float, only: Iterable[str] | None = None) -> None:
    """Raise :class:`PreconditionError` if a stage cannot fit a card of so many GiB; ``only``: the ids of the stages that will run."""
    wanted = None if only is None else set(only)
    fits = [fit for fit in estimate(recipe, nodes, card_gib=card_gib) if wanted is None or fit.id in wanted]
    short = [fit for fit in fits if not fit.fits]
    if not short:
        return
    own = {node.id: f" on {base.model}" for node in nodes if (base := base_of(node.spec, recipe.base)) != recipe.base}
    lines = [
        f"{recipe.name} does not fit a card with {card_gib:.4g} GiB ({_gib(fits[0].usable):.1f} of it usable); estimated, nothing was loaded"
    ]
    for fit in short:
        height = fit.height
        assert height is not None
        most = sorted(height.parts.items(), key=lambda part: -part[1])[:3]
        lines.append(
            f"  {fit.id}{own.get(fit.id, '')} ({height.name}): {_gib(fit.peak):.1f} GiB, of it "
            + ", ".join(f"{k} {_gib(v):.1f}" for k, v in most)
        )
    lines += ["turn one of these:", *(f"  {way}" for way in ways(recipe, nodes, card_gib))]
    raise PreconditionError("\n".join(lines))


def refuse_unknown(fits: Iterable[StageFit]) -> None:
    """Raise :class:`PreconditionError` where the question whether a recipe fits cannot be answered."""
    unknown: dict[str, list[str]] = {}
    for fit in fits:
        if fit.unknown:
            unknown.setdefault(fit.unknown, []).append(fit.id)
    if unknown:
        told = "; ".join(f"{', '.join(ids)}: {reason}" for reason, ids in unknown.items())
        raise PreconditionError(f"whether it fits cannot be told. {told}. `hf download ID config.json` fetches a config alone")


def _gib(n: int) -> float:
    return round(n / sizes.GIB, 2)
