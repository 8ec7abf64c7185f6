"""What to turn where a card is too small: knobs that change no result first, then other values, other bases, another card."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from lite.fit import cards
from lite.fit.shape import Shape, known_models
from lite.fit.turn import estimated, has, longest_texts, memory_knobs, peak, seconds, settled, slimmed, total, value_of, with_value
from lite.fit.words import gib, said_once, span
from lite.plan import Node
from lite.recipe import Recipe

SHORTEST = 512
"""Tokens that a text may be cut to before another base is the better advice."""
LAST_RESORT = 256
"""And if nothing else makes a recipe fit."""
CARD_SIZES = (8, 12, 16, 24, 32, 48, 80, 96, 141)


class Way(NamedTuple):
    """A way to make a recipe fit: overrides, and with them the highest peak and the time from roofline to pessimist."""

    overrides: tuple[str, ...]
    peak: int
    seconds: tuple[float, float]


def way_to_fit(recipe: Recipe, nodes: Sequence[Node], card_gib: float) -> Way | None:
    """The overrides of knobs that change no result with which every stage fits; none are needed where it fits as it is."""
    usable, card = cards.usable(card_gib), cards.class_of(card_gib)
    found: list[str] = []
    peaks: list[int] = []
    times: list[tuple[float, float]] = []
    for node, site in estimated(recipe, nodes):
        spec = slimmed(node, site, usable)
        if spec is None:
            return None
        knobs = [*memory_knobs(node, site), *(["checkpointing"] if has(spec, "checkpointing") else [])]
        changed = [knob for knob in knobs if value_of(spec, knob) != value_of(node.spec, knob)]
        found += [f"{node.id}.{knob}={str(value_of(spec, knob)).lower()}" for knob in changed]
        turned = settled(replace(node, spec=spec), site, usable)
        peaks.append(peak(turned, site, turned.spec))
        times.append(seconds(turned, site, turned.spec, card))
    return Way(tuple(found), max(peaks, default=0), total(times))


def ways(recipe: Recipe, nodes: Sequence[Node], card_gib: float) -> list[str]:
    """Concrete things to do about a card that is too small, the best first: each makes the whole recipe fit."""
    found = []
    way = way_to_fit(recipe, nodes, card_gib)
    if way:
        found.append(_told(recipe, way, "the results stay the same"))
    else:
        found += _other_values(recipe, nodes, card_gib)
    for smaller in _smaller_bases(recipe, nodes, card_gib):
        way = smaller.way(card_gib)
        if way:
            found.append(_told(recipe, way))
        if len(found) == 3:
            break
    for size in CARD_SIZES:
        way = way_to_fit(recipe, nodes, size) if size > card_gib else None
        if way:
            words = f" and {said_once(recipe, way.overrides)}" if way.overrides else ""
            found.append(f"a card with {size} GB{words}   ({span(way.seconds)})")
            break
    return found


def _told(recipe: Recipe, way: Way, *notes: str) -> str:
    return f"{said_once(recipe, way.overrides)}   ({'; '.join((f'peak {gib(way.peak)} GiB', span(way.seconds), *notes))})"


class Smaller(NamedTuple):
    """A plan on a smaller base, and the overrides that name it."""

    named: tuple[str, ...]
    recipe: Recipe
    nodes: tuple[Node, ...]

    def way(self, card_gib: float) -> Way | None:
        return self._with_base(way_to_fit(self.recipe, self.nodes, card_gib))

    def way_with_shorter_texts(self, card_gib: float, shortest: int) -> Way | None:
        return self._with_base(_shorter_texts(self.recipe, self.nodes, card_gib, shortest))

    def _with_base(self, way: Way | None) -> Way | None:
        return way and way._replace(overrides=(*self.named, *way.overrides))


def _smaller_bases(recipe: Recipe, nodes: Sequence[Node], card_gib: float) -> Iterator[Smaller]:
    """Smaller well-known bases for the stages that do not fit."""
    usable = cards.usable(card_gib)
    short = [(node, site) for node, site in estimated(recipe, nodes) if peak(node, site, node.spec) > usable]
    if not short:
        return
    widest = max((site for _, site in short), key=lambda site: site.shape.parameters)
    for name, shape in _smaller(widest.base.model, widest.shape):
        turned = {node.id: site.base for node, site in short if site.shape.parameters > shape.parameters}
        change = {"model": name, "revision": None}
        own = {id: base.model_copy(update=change) for id, base in turned.items() if base != recipe.base}
        shared = recipe.base.model_copy(update=change) if recipe.base in turned.values() else recipe.base
        places = (*(("base",) if shared != recipe.base else ()), *(f"{id}.base" for id in own))
        changed = tuple(replace(n, spec=n.spec.model_copy(update={"base": own[n.id]})) if n.id in own else n for n in nodes)
        yield Smaller(tuple(f"{place}.model={name}" for place in places), recipe.model_copy(update={"base": shared}), changed)


def _other_values(recipe: Recipe, nodes: Sequence[Node], card_gib: float) -> list[str]:
    """What makes room and changes the results: an adapter less, the longest texts cut, or, with them cut, the largest base that fits."""
    found = []
    if way := _joint_value(recipe, nodes, card_gib):
        found.append(_told(recipe, way, "another method"))
    if (way := _shorter_texts(recipe, nodes, card_gib, SHORTEST)) or (way := _smaller_and_shorter(recipe, nodes, card_gib)):
        found.append(_told(recipe, way, "longer texts are cut"))
    return found


def _smaller_and_shorter(recipe: Recipe, nodes: Sequence[Node], card_gib: float) -> Way | None:
    """The largest base that fits with its longest texts cut, where none as large fits without; to the very shortest if nothing else helps."""
    bases = list(_smaller_bases(recipe, nodes, card_gib))
    whole = next((n for n, base in enumerate(bases) if base.way(card_gib)), None)
    for base in bases[:whole]:
        if way := base.way_with_shorter_texts(card_gib, SHORTEST):
            return way
    if whole is not None:
        return None
    last = (base.way_with_shorter_texts(card_gib, LAST_RESORT) for base in bases)
    return _shorter_texts(recipe, nodes, card_gib, LAST_RESORT) or next((way for way in last if way), None)


def _shorter_texts(recipe: Recipe, nodes: Sequence[Node], card_gib: float, shortest: int) -> Way | None:
    """The longest texts cut, to no less than ``shortest`` tokens, in the stages that no other knob makes fit."""
    usable = cards.usable(card_gib)
    cut: dict[str, Node] = {}
    for node, site in estimated(recipe, nodes):
        if slimmed(node, site, usable) or not has(node.spec, "max_tokens"):
            continue
        tokens = longest_texts(node, site, usable)
        if tokens < shortest:
            return None
        cut[node.id] = replace(node, spec=with_value(node.spec, "max_tokens", tokens))
    way = way_to_fit(recipe, [cut.get(node.id, node) for node in nodes], card_gib) if cut else None
    lengths = tuple(f"{id}.max_tokens={value_of(node.spec, 'max_tokens')}" for id, node in cut.items())
    return way and way._replace(overrides=(*lengths, *way.overrides))


def _joint_value(recipe: Recipe, nodes: Sequence[Node], card_gib: float) -> Way | None:
    """One adapter less: the value head on the policy's trunk, which Hydra-RLHF found worse."""
    joint = [n for n in nodes if getattr(n.spec, "value", None) == "separate"]
    changed = [replace(n, spec=n.spec.model_copy(update={"value": "joint"})) if n in joint else n for n in nodes]
    way = way_to_fit(recipe, changed, card_gib) if joint else None
    return way and way._replace(overrides=(*(f"{n.id}.value=joint" for n in joint), *way.overrides))


def _smaller(model: str, shape: Shape) -> list[tuple[str, Shape]]:
    """Well-known bases with fewer weights, those of the same name first, the largest first."""
    stem = re.split(r"[-\d]", model.lower(), maxsplit=1)[0]
    fewer = [(name, other) for name, other in known_models().items() if other.parameters < 0.97 * shape.parameters]
    return sorted(fewer, key=lambda item: (not item[0].lower().startswith(stem), -item[1].parameters))
