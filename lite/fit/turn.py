"""A stage on a card with its memory knobs turned: what it asks for with a spec, which knobs move that, and how far they can go."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

from lite.fit import cards
from lite.fit.demand import Moment, Site
from lite.fit.loop import DEMANDS, demand
from lite.fit.shape import Shape, Unknown, shape_of
from lite.knobs import Spec, base_of, served
from lite.plan import Node
from lite.recipe import Recipe

SLACK = 0.05
"""Share of what comes and goes that the allocator cannot use again."""
MOVING = ("gradients", "activations", "kv", "logits")
MOST = {"batch_rows": 512, "rollout_rows": 512, "micro_tokens": 65536}
ROWS = ("batch_rows", "rollout_rows")
GRAIN = {"micro_tokens": 64, "max_tokens": 64}
"""Knobs that decide how much is done at once, without changing a result, in whatever group they lie: their largest values worth naming,
and their grain."""


def sites(recipe: Recipe, nodes: Sequence[Node]) -> list[tuple[Node, Site | Unknown]]:
    """Every stage on its own base."""
    shapes = {base: shape_of(base) for base in dict.fromkeys(base_of(node.spec, recipe.base) for node in nodes)}
    by_id = {node.id: node for node in nodes}
    found: list[tuple[Node, Site | Unknown]] = []
    for node in nodes:
        base = base_of(node.spec, recipe.base)
        shape: Shape | Unknown = Unknown("a server writes") if served(node.spec) else shapes[base]
        found.append((node, shape if isinstance(shape, Unknown) else Site(shape, base, by_id)))
    return found


def estimated(recipe: Recipe, nodes: Sequence[Node]) -> list[tuple[Node, Site]]:
    """The stages of which there is an estimate."""
    return [(node, site) for node, site in sites(recipe, nodes) if isinstance(site, Site) and node.kind in DEMANDS]


def moments(node: Node, site: Site, spec: Spec) -> tuple[Moment, ...]:
    return tuple(with_slack(moment) for moment in demand(node, site, spec).moments)


def with_slack(moment: Moment) -> Moment:
    slack = int(SLACK * sum(moment.parts.get(part, 0) for part in MOVING))
    return moment._replace(parts={**moment.parts, "slack": slack})


def peak(node: Node, site: Site, spec: Spec, knob: str | None = None) -> int:
    """The highest moment, of all or of those that a knob moves."""
    return max((m.bytes for m in moments(node, site, spec) if knob is None or knob in m.knobs), default=0)


def seconds(node: Node, site: Site, spec: Spec, card: cards.Card) -> tuple[float, float]:
    """From roofline to pessimist."""
    return total(cards.seconds(work, site.shape, site.base, card) for work in demand(node, site, spec).work)


def total(times: Iterable[tuple[float, float]]) -> tuple[float, float]:
    found = list(times)
    return sum(low for low, _ in found), sum(high for _, high in found)


def auto(node: Node) -> bool:
    return getattr(node.spec, "checkpointing", None) == "auto"


def settled(node: Node, site: Site, usable: int) -> Node:
    """`checkpointing: auto` decided: off where the stage fits without."""
    off = with_checkpointing(node, False)
    return off if peak(off, site, off.spec, "checkpointing") <= usable else with_checkpointing(node, True)


def with_checkpointing(node: Node, on: bool) -> Node:
    """`auto` turned to a value; a recipe's own choice stays."""
    return replace(node, spec=with_value(node.spec, "checkpointing", on)) if auto(node) else node


def memory_knobs(node: Node, site: Site) -> list[str]:
    """Every knob, in its group (``compare.judging.batch_rows``), that moves a moment of the stage and has a largest value."""
    knobs = dict.fromkeys(knob for moment in demand(node, site).moments for knob in moment.knobs)
    return [knob for knob in knobs if last(knob) in MOST]


def last(knob: str) -> str:
    return knob.rpartition(".")[2]


def has(spec: Spec, knob: str) -> bool:
    return knob in type(spec).model_fields


def value_of(spec: Spec, knob: str) -> Any:
    return reduce(getattr, knob.split("."), spec)


def with_value(spec: Spec, knob: str, value: Any) -> Spec:
    name, _, rest = knob.partition(".")
    return spec.model_copy(update={name: with_value(getattr(spec, name), rest, value) if rest else value})


def largest(node: Node, site: Site, spec: Spec, knob: str, usable: int) -> int:
    """The highest value of a knob whose moments fit; 0 if the lowest does not."""
    return _highest(node, site, spec, knob, MOST[last(knob)], usable, knob)


def longest_texts(node: Node, site: Site, usable: int) -> int:
    """To how many tokens a stage's texts have to be cut for its training to fit, in the shortest passes; 0 if nothing helps."""
    spec = with_value(node.spec, "micro_tokens", GRAIN["micro_tokens"])
    return _highest(node, site, spec, "max_tokens", value_of(spec, "max_tokens") - 1, usable, "micro_tokens")


def _highest(node: Node, site: Site, spec: Spec, knob: str, most: int, usable: int, moves: str) -> int:
    """The highest value of a knob up to ``most`` with which the moments that ``moves`` moves fit, by halving."""
    grain = GRAIN.get(last(knob), 1)
    low, high = 0, most // grain
    while low < high:
        middle = (low + high + 1) // 2
        if peak(node, site, with_value(spec, knob, middle * grain), moves) <= usable:
            low = middle
        else:
            high = middle - 1
    return low * grain


def slimmed(node: Node, site: Site, usable: int) -> Spec | None:
    """The spec with as little at once as fits: fewer rows, shorter passes, and checkpointing before passes of under 1,024 tokens."""
    spec = node.spec
    for knob in memory_knobs(node, site):
        if peak(node, site, spec, knob) <= usable:
            continue
        value = largest(node, site, spec, knob, usable)
        if value < 1024 and knob == "micro_tokens" and not getattr(spec, "checkpointing", True):
            spec = spec.model_copy(update={"checkpointing": True})
            value = min(getattr(spec, knob), largest(node, site, spec, knob, usable))
        if value == 0:
            return None
        spec = with_value(spec, knob, value)
    return spec if peak(node, site, spec) <= usable else None
