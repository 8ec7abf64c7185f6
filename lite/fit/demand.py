"""What each kind of stage asks for: memory moment by moment, tokens through the base, bytes on disk. One function per kind.

The moments of a stage follow its code: adapters and optimiser stay for the whole stage, activations and the cache of keys and values
never live together. `checkpointing: auto` counts as on, the least that a stage can do with. Lengths that only a tokenizer knows are assumed, and the assumptions stand at the top.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from lite.fit import sizes
from lite.fit.shape import Shape
from lite.knobs import BaseSpec
from lite.knobs.judging import EvaluateSpec, ScoreSpec
from lite.knobs.ppo import PpoSpec
from lite.knobs.rounds import InstructSpec, SeedSpec
from lite.knobs.training import DpoSpec, RewardSpec, SftSpec, TuneSpec
from lite.knobs.writing import ContrastSpec, MixSpec, PreferencesSpec, PromptsSpec, RespondSpec
from lite.plan import Node

MEAN_PROMPT = 150
"""Tokens of a dialogue of hh-rlhf, about; shorter where a stage or the recipe cuts."""
MEAN_RESPONSE = 0.4
"""Mean length of a response as a share of max_new_tokens: 42 to 118 of 300 in Yang et al. 2023, and longer before training."""
LONGEST_PROMPT = 512
"""Tokens of the longest prompt where no knob bounds it."""
TOKENS_PER_WORD = 1.5
DIRECTION = 40
"""Tokens that speaker tags and the phrases of RLCD add to a prompt."""
ACCEPTED = 0.57
"""Share of draws that a side of a pair keeps, such that 97% of pairs survive five attempts (Yang et al. 2023)."""
SCORING_TOKENS = 4096
"""Tokens per forward pass of the evaluation, as in ``lite.stages.evaluate``."""
CHECKPOINTS = 3  # of a training: the newest two, and the one that is being written
BYTES_PER_TOKEN = 5  # of text on disk, JSON included

Parts = Mapping[str, int]


class Moment(NamedTuple):
    """The parts that lie on the card together, in bytes, and the knobs that move them."""

    name: str
    parts: Parts
    knobs: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        return sum(self.parts.values())


class Decode(NamedTuple):
    """Responses written ``rows`` at a time."""

    responses: int
    rows: int
    prompt: int
    new: int
    adapter: bool


class Pass(NamedTuple):
    """Tokens through the base in one direction or both: ``products`` FLOPs per weight and token, ``unpacked`` times the 4-bit weights."""

    tokens: int
    micro_tokens: int
    products: int
    unpacked: int


@dataclass(frozen=True)
class Demand:
    moments: tuple[Moment, ...] = ()
    work: tuple[Decode | Pass, ...] = ()
    disk: int = 0


@dataclass(frozen=True)
class Site:
    """Where a stage stands: the base, and the stages before it by id."""

    shape: Shape
    base: BaseSpec
    nodes: Mapping[str, Node]

    @property
    def wide(self) -> int:
        return sizes.wide(self.base)

    def input(self, node: Node, param: str) -> Node | None:
        """The stage of an input; of several, the last."""
        wire = node.inputs.get(param)
        last = wire[-1] if isinstance(wire, tuple) and wire else wire
        return self.nodes.get(last) if isinstance(last, str) else None

    def prompts(self, node: Node) -> PromptsSpec:
        """The spec of the prompts that a stage reads, itself or through its pairs."""
        found: Node | None = node
        while found is not None and not isinstance(found.spec, PromptsSpec):
            if found is not node and isinstance(found.spec, InstructSpec):
                return self.prompts(found).model_copy(update={"train": found.spec.prompts, "max_words": found.spec.max_words})
            params = ["prompts", "pairs", "candidates", "seed"]
            if isinstance(found.spec, DpoSpec):  # it learns from the pairs; its own prompts are those that checkpoints answer
                params.remove("prompts")
            sources = [self.first(found, param) for param in params]
            found = next((source for source in sources if source is not None), None)
        return found.spec if found is not None and isinstance(found.spec, PromptsSpec) else PromptsSpec.model_validate({})

    def first(self, node: Node, param: str) -> Node | None:
        """The input of a name; of many the first."""
        wire = node.inputs.get(param)
        return self.nodes.get(wire[0]) if isinstance(wire, tuple) and wire else self.input(node, param)

    def examples(self, node: Node) -> int:
        """How many examples a stage is given to learn: instructions of a seed, reviews of its ranked responses."""
        wire = node.inputs.get("examples")
        specs = [self.nodes[id].spec for id in (wire if isinstance(wire, tuple) else ()) if id in self.nodes]
        seeds = [node.spec for node in self.nodes.values() if isinstance(node.spec, SeedSpec)]
        reviews = sum(spec.ranked * spec.responses for spec in seeds)
        return sum(spec.ift if isinstance(spec, SeedSpec) else reviews for spec in specs)

    def longest(self, node: Node) -> int:
        """Tokens of the longest prompt, as far as a knob bounds it."""
        words = self.prompts(node).max_words
        return int(words * TOKENS_PER_WORD) + DIRECTION if words else LONGEST_PROMPT

    def mean(self, node: Node) -> int:
        return min(MEAN_PROMPT, self.longest(node) * 2 // 3)

    def resident(self, adapters: list[list[int]], trained: list[list[int]]) -> dict[str, int]:
        """What stays for a whole stage: the base, adapters and heads in fp32, the states of the trained ones."""
        return {
            "base": sizes.base_weights(self.shape, self.base),
            "embeddings": sizes.embeddings(self.shape, self.base),
            "adapters": sum(map(sizes.fp32, adapters)),
            "optimiser": sum(map(sizes.adam_8bit, trained)),
            "context": sizes.CONTEXT,
        }

    def writing(self, resident: Parts, rows: int, prompt: int, new: int, *, adapter: bool, nucleus: bool, knob: str) -> list[Moment]:
        """Generation: the prompts go through at once, then the cache grows to its full length."""
        shape, wide = self.shape, self.wide
        unpacked = sizes.dequantised(shape, self.base)
        start = {
            "activations": sizes.inference(shape, rows * prompt, wide, adapter=adapter) + unpacked,
            "kv": rows * sizes.kv_cache(shape, prompt + sizes.ROOM, wide),
        }
        whole = prompt + new
        end = {
            "activations": sizes.inference(shape, rows, wide, adapter=adapter) + unpacked,
            "kv": rows * (sizes.kv_cache(shape, whole + sizes.ROOM, wide) + sizes.attention_over_cache(shape, whole, wide)),
            "logits": sizes.drawing(shape, rows, nucleus=nucleus),
        }
        return [Moment("read prompts", {**resident, **start}, (knob,)), Moment("write", {**resident, **end}, (knob,))]

    def scoring(self, resident: Parts, tokens: int, *, logits: bool, knobs: tuple[str, ...] = ()) -> Moment:
        shape, wide = self.shape, self.wide
        activations = sizes.inference(shape, tokens, wide, adapter=True) + sizes.dequantised(shape, self.base)
        return Moment("score", {**resident, "activations": activations, "logits": sizes.head_logits(shape, wide) if logits else 0}, knobs)

    def updating(
        self, resident: Parts, tokens: int, trained: list[list[int]], spec: RewardSpec | PpoSpec | TuneSpec, *, r: int, logits: int
    ) -> Moment:
        shape, wide = self.shape, self.wide
        activations = sizes.training(shape, tokens, r, wide, checkpointing=bool(spec.checkpointing), dropout=spec.lora.dropout > 0)
        parts = {
            "gradients": sum(map(sizes.fp32, trained)),
            "activations": activations + sizes.dequantised(shape, self.base),
            "logits": logits,
        }
        return Moment("update", {**resident, **parts}, ("micro_tokens", "checkpointing"))


def prompts(spec: PromptsSpec, node: Node, site: Site) -> Demand:
    return Demand(disk=(spec.train + spec.dev + spec.test) * MEAN_PROMPT * BYTES_PER_TOKEN)


def preferences(spec: PreferencesSpec, node: Node, site: Site) -> Demand:
    return Demand(disk=spec.pairs * _pair_text(site.mean(node), 300))


def mix(spec: MixSpec, node: Node, site: Site) -> Demand:
    return Demand(disk=site.prompts(node).train * _pair_text(site.mean(node), 300))


def _pair_text(prompt: int, new: int) -> int:
    """Bytes of a pair on disk: the prompt stands there three times, as it is and as each side was asked."""
    return (3 * prompt + 2 * int(MEAN_RESPONSE * new)) * BYTES_PER_TOKEN


def contrast(spec: ContrastSpec, node: Node, site: Site) -> Demand:
    pairs, mean = site.prompts(node).train, site.mean(node) + DIRECTION
    draws = sum((1 - ACCEPTED) ** k for k in range(spec.attempts))
    moments = site.writing(
        site.resident([], []),
        spec.batch_rows,
        site.longest(node) + DIRECTION,
        spec.max_new_tokens,
        adapter=False,
        nucleus=spec.top_p < 1,
        knob="batch_rows",
    )
    work = Decode(int(2 * pairs * draws), spec.batch_rows, mean, spec.max_new_tokens, adapter=False)
    return Demand(tuple(moments), (work,), pairs * _pair_text(mean, spec.max_new_tokens))


def respond(spec: RespondSpec, node: Node, site: Site) -> Demand:
    asked, mean = getattr(site.prompts(node), spec.split) * spec.n, site.mean(node)
    draws = sum((1 - ACCEPTED) ** k for k in range(spec.attempts))
    r = rank(node, site)
    moments = site.writing(
        site.resident([sizes.lora(site.shape, r)] if r else [], []),
        spec.batch_rows,
        site.longest(node),
        spec.max_new_tokens,
        adapter=r > 0,
        nucleus=spec.top_p < 1,
        knob="batch_rows",
    )
    work = Decode(int(asked * draws), spec.batch_rows, mean, spec.max_new_tokens, adapter=r > 0)
    return Demand(tuple(moments), (work,), asked * (mean + int(MEAN_RESPONSE * spec.max_new_tokens)) * BYTES_PER_TOKEN)


def score(spec: ScoreSpec, node: Node, site: Site) -> Demand:
    if spec.by != "base":
        return Demand()
    pairs, asked = site.prompts(node).train, min(spec.max_tokens, (1 + spec.shots) * (site.mean(node) + 2 * int(MEAN_RESPONSE * 300)))
    moment = site.scoring(site.resident([], []), max(spec.micro_tokens, spec.max_tokens), logits=True, knobs=("micro_tokens",))
    questions = pairs * (2 if spec.order == "both" else 1) + (0 if spec.order == "both" else spec.probe)
    return Demand((moment,), (Pass(questions * asked, spec.micro_tokens, 2, 1),), pairs * asked * BYTES_PER_TOKEN)


def reward(spec: RewardSpec, node: Node, site: Site) -> Demand:
    own = sizes.lora(site.shape, spec.lora.r) + sizes.head(site.shape)
    resident = site.resident([own], [own])
    pairs = site.prompts(node).train
    tokens = 2 * pairs * min(spec.max_tokens, site.mean(node) + int(MEAN_RESPONSE * 300))
    learnt = int(tokens * (1 - spec.held_out) * spec.epochs)
    passes = (
        Pass(learnt, spec.micro_tokens, *_both_ways(bool(spec.checkpointing))),
        Pass(tokens - learnt // spec.epochs, spec.micro_tokens, 2, 1),
    )
    moments = (
        site.updating(resident, max(spec.micro_tokens, 2 * spec.max_tokens), [own], spec, r=spec.lora.r, logits=0),
        site.scoring(resident, max(spec.micro_tokens, spec.max_tokens), logits=False, knobs=("micro_tokens",)),
    )
    return Demand(moments, passes, sizes.fp32(own) + CHECKPOINTS * _state([own]))


def ppo(spec: PpoSpec, node: Node, site: Site) -> Demand:
    judge = site.input(node, "reward")
    r = judge.spec.lora.r if judge is not None and isinstance(judge.spec, RewardSpec) else spec.lora.r
    own, start = rank(node, site), site.input(node, "policy")
    policy, rewards, head = sizes.lora(site.shape, own), sizes.lora(site.shape, r), sizes.head(site.shape)
    value = rewards + head if spec.value == "separate" else head
    trained = [policy, value]
    resident = site.resident([policy, value, rewards + head, *([policy] if start else [])], trained)  # the reference is a copy
    longest, roles = spec.max_prompt_tokens + spec.max_new_tokens, 3 if spec.value == "separate" else 2
    moments = (
        *site.writing(
            resident, spec.rollout_rows, spec.max_prompt_tokens, spec.max_new_tokens, adapter=True, nucleus=False, knob="rollout_rows"
        ),
        site.scoring(resident, roles * max(spec.micro_tokens, longest), logits=True, knobs=("micro_tokens",)),  # the roles side by side
        site.updating(
            resident, max(spec.micro_tokens, longest), trained, spec, r=max(r, own), logits=sizes.head_logits(site.shape, site.wide)
        ),
    )
    prompt, response = min(site.mean(node), spec.max_prompt_tokens), int(MEAN_RESPONSE * spec.max_new_tokens)
    tokens = spec.rollouts * (prompt + response)
    one_step = (
        Decode(spec.rollouts, spec.rollout_rows, prompt, spec.max_new_tokens, adapter=True),
        Pass(roles * tokens, roles * spec.micro_tokens, 2, 1),
        Pass(tokens, spec.micro_tokens, 2, 1),
        Pass(spec.epochs * (2 if spec.value == "separate" else 1) * tokens, spec.micro_tokens, *_both_ways(bool(spec.checkpointing))),
    )
    kept = -(-spec.steps // spec.save_every)
    choosing = (
        Decode(spec.dev_prompts, spec.rollout_rows, prompt, spec.max_new_tokens, adapter=True),
        Pass((roles + 1) * spec.dev_prompts * (prompt + response), spec.micro_tokens, 2, 1),
    )
    work = (*one_step * spec.steps, *(choosing * kept if spec.dev_prompts else ()))
    state = _state(trained) + 2 * sizes.fp32(policy)  # the last good and the best adapter are part of it
    return Demand(moments, work, sizes.fp32(policy) + CHECKPOINTS * state)


def sft(spec: SftSpec, node: Node, site: Site) -> Demand:
    mean = min(spec.max_tokens, site.mean(node) + int(MEAN_RESPONSE * 300))
    longest = max(spec.micro_tokens, spec.max_tokens)
    rows = site.examples(node) if spec.targets == "examples" else site.prompts(node).train
    return _tuned(spec, node, site, rows * mean, longest, sizes.head_logits(site.shape, site.wide), reference=0)


def dpo(spec: DpoSpec, node: Node, site: Site) -> Demand:
    tokens = 2 * site.prompts(node).train * min(spec.max_tokens, site.mean(node) + int(MEAN_RESPONSE * 300))
    longest = max(spec.micro_tokens, 2 * spec.max_tokens)
    return _tuned(spec, node, site, tokens, longest, sizes.all_logits(site.shape, longest, site.wide), reference=tokens)


def _tuned(spec: SftSpec | DpoSpec, node: Node, site: Site, tokens: int, longest: int, logits: int, *, reference: int) -> Demand:
    """One adapter is trained; what it is compared with is read once, before, under the same adapter."""
    r = rank(node, site)
    own = sizes.lora(site.shape, r)
    learnt = int(tokens * (1 - spec.held_out) * spec.epochs)
    work = (
        Pass(learnt, spec.micro_tokens, *_both_ways(bool(spec.checkpointing))),
        Pass(reference + tokens - learnt // spec.epochs, spec.micro_tokens, 2, 1),
    )
    moment = site.updating(site.resident([own], [own]), longest, [own], spec, r=r, logits=logits)
    state = _state([own]) + (2 if spec.keep == "best" else 1) * sizes.fp32(own)  # the last good adapter, and the best, are part of it
    return Demand((moment,), work, sizes.fp32(own) + CHECKPOINTS * state)


def rank(node: Node, site: Site) -> int:
    """The rank of the adapter that a stage gives: its own, or that of the policy from which it goes on."""
    start = site.input(node, "policy")
    if start is not None:
        return rank(start, site)
    return node.spec.lora.r if isinstance(node.spec, PpoSpec | TuneSpec) else 0


def evaluate(spec: EvaluateSpec, node: Node, site: Site) -> Demand:
    wire = node.inputs.get("policies")
    policies = [p for p in (site.nodes.get(id) for id in (wire if isinstance(wire, tuple) else ())) if p is not None]
    ranks = [rank(policy, site) for policy in policies]
    judge = site.input(node, "reward")
    ranks += [judge.spec.lora.r] if judge is not None and isinstance(judge.spec, RewardSpec) else []
    largest = [sizes.lora(site.shape, max(ranks)) + sizes.head(site.shape)] if ranks else []
    resident = site.resident(largest, [])
    models = len({"base", *spec.against, *(p.id for p in policies)})
    asked = min(spec.prompts or site.prompts(node).test, site.prompts(node).test)
    replies, mean = models * spec.draws * asked, site.mean(node)
    moments = site.writing(
        resident,
        spec.batch_rows,
        site.longest(node) + DIRECTION,
        spec.max_new_tokens,
        adapter=bool(policies),
        nucleus=spec.top_p < 1,
        knob="batch_rows",
    )
    tokens = replies * (mean + int(MEAN_RESPONSE * spec.max_new_tokens))
    work = (Decode(replies, spec.batch_rows, mean, spec.max_new_tokens, adapter=bool(policies)), Pass(tokens, SCORING_TOKENS, 2, 1))
    longest = max(SCORING_TOKENS, site.longest(node) + spec.max_new_tokens)
    return Demand((*moments, site.scoring(resident, longest, logits=True)), work, 2 * tokens * BYTES_PER_TOKEN)


def _state(trained: Sequence[Iterable[int]]) -> int:
    """Bytes of a checkpoint: weights in 32 bits, two moments in 8."""
    return sum(map(sizes.fp32, trained)) * 3 // 2


def _both_ways(checkpointing: bool) -> tuple[int, int]:
    """FLOPs per weight and token of a training pass over a frozen base, and how often it unpacks the weights."""
    return (6, 3) if checkpointing else (4, 2)


DEMANDS: Mapping[str, Callable[[Any, Node, Site], Demand]] = {
    "prompts": prompts,
    "preferences": preferences,
    "mix": mix,
    "contrast": contrast,
    "respond": respond,
    "score": score,
    "reward": reward,
    "ppo": ppo,
    "sft": sft,
    "dpo": dpo,
    "evaluate": evaluate,
}
