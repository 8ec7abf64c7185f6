"""What the stages of the self-rewarding loop ask for, and the table of all kinds."""

from collections.abc import Callable, Mapping
from typing import Any

from lite.fit import demand as rlcd
from lite.fit import sizes
from lite.fit.demand import BYTES_PER_TOKEN, MEAN_RESPONSE, Decode, Demand, Moment, Site, rank
from lite.knobs import Spec
from lite.knobs.rounds import BestSpec, EftSpec, GateSpec, InstructSpec, JudgingSpec, PairSpec, SeedSpec
from lite.knobs.training import DpoSpec
from lite.knobs.writing import RespondSpec
from lite.plan import Node

RUBRIC = 420
"""Tokens of a judge's prompt without the question and the response."""
SHOT = 40
"""Tokens of one example in the writer's prompt."""
KEPT = 0.7
"""Share of the written prompts that pass the filters."""


def seed(spec: SeedSpec, node: Node, site: Site) -> Demand:
    return Demand(disk=(spec.ift + (spec.ranked + spec.judged) * spec.responses) * 450 * BYTES_PER_TOKEN)


def instruct(spec: InstructSpec, node: Node, site: Site) -> Demand:
    prompt = (spec.seed_shots + spec.own_shots) * SHOT + RUBRIC // 8
    return _written(spec, node, site, int(spec.prompts / KEPT), 2 * prompt, prompt)


def eft(spec: EftSpec, node: Node, site: Site) -> Demand:
    planted = _seed(node, site)
    half = -(-spec.draws // 2)  # about half of the draws are needed before the order is the people's
    return _judged(spec, node, site, planted.ranked * planted.responses * half)


def judge(spec: JudgingSpec, node: Node, site: Site) -> Demand:
    written = site.input(node, "candidates")
    n = written.spec.n if written is not None and isinstance(written.spec, RespondSpec) else 1
    return _judged(spec, node, site, site.prompts(node).train * n * spec.draws)


def pair(spec: PairSpec, node: Node, site: Site) -> Demand:
    return Demand(disk=site.prompts(node).train * 3 * site.mean(node) * BYTES_PER_TOKEN)


def best(spec: BestSpec, node: Node, site: Site) -> Demand:
    """One example of a prompt at most."""
    return Demand(disk=site.prompts(node).train * 2 * site.mean(node) * BYTES_PER_TOKEN)


def gate(spec: GateSpec, node: Node, site: Site) -> Demand:
    others = 0 if node.inputs.get("rounds") else sum(node.inputs.get(param) is not None for param in ("before", "baseline"))
    models = 1 + others  # an earlier gate has measured the others
    planted = _seed(node, site)
    replies = _written(spec, node, site, models * spec.prompts, site.longest(node), site.mean(node))
    verdicts = _judged(spec.judging, node, site, models * planted.judged * planted.responses * (spec.judging.draws + 1))
    return Demand((*replies.moments, *_inside("judging", verdicts)), (*replies.work, *verdicts.work), replies.disk + verdicts.disk)


def dpo(spec: DpoSpec, node: Node, site: Site) -> Demand:
    learning = rlcd.dpo(spec, node, site)
    if spec.compare is None:
        return learning
    steps = spec.epochs * -(-site.prompts(node).train // spec.batch_pairs)
    asked = (steps // spec.compare.every + 1) * spec.compare.prompts
    replies = _written(spec.compare, node, site, asked, site.longest(node), site.mean(node))
    verdicts = _judged(spec.compare.judging, node, site, asked * spec.compare.judging.draws)
    moments = (*learning.moments, *_inside("compare", replies), *_inside("compare.judging", verdicts))
    return Demand(moments, (*learning.work, *replies.work, *verdicts.work), learning.disk + replies.disk + verdicts.disk)


def _seed(node: Node, site: Site) -> SeedSpec:
    found = site.input(node, "seed")
    return found.spec if found is not None and isinstance(found.spec, SeedSpec) else SeedSpec()


def _inside(place: str, part: Demand) -> list[Moment]:
    """The moments of a part of a stage, whose knobs lie under ``place``."""
    return [m._replace(name=f"{place}: {m.name}", knobs=tuple(f"{place}.{knob}" for knob in m.knobs)) for m in part.moments]


def _judged(spec: JudgingSpec, node: Node, site: Site, judgements: int) -> Demand:
    response = 300
    return _written(spec, node, site, judgements, RUBRIC + site.longest(node) + response, RUBRIC + int(MEAN_RESPONSE * response) + SHOT)


def _written(spec: Any, node: Node, site: Site, responses: int, longest: int, mean: int) -> Demand:
    """So many texts of the base, or of the policy that is named."""
    r = rank(node, site)
    resident = site.resident([sizes.lora(site.shape, r)] if r else [], [])
    moments = site.writing(
        resident, spec.batch_rows, longest, spec.max_new_tokens, adapter=r > 0, nucleus=spec.top_p < 1, knob="batch_rows"
    )  # fmt: skip
    work = Decode(responses, spec.batch_rows, mean, spec.max_new_tokens, adapter=r > 0)
    return Demand(tuple(moments), (work,), responses * int(MEAN_RESPONSE * spec.max_new_tokens) * BYTES_PER_TOKEN)


DEMANDS: Mapping[str, Callable[[Any, Node, Site], Demand]] = {
    **rlcd.DEMANDS,
    "seed": seed,
    "instruct": instruct,
    "eft": eft,
    "judge": judge,
    "pair": pair,
    "best": best,
    "gate": gate,
    "dpo": dpo,
}


def demand(node: Node, site: Site, spec: Spec | None = None) -> Demand:
    """What a stage asks for, with its own spec or another one."""
    return DEMANDS[node.kind](spec or node.spec, node, site)
