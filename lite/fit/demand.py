"""What each kind of stage asks for: memory moment by moment, tokens through the base, bytes on disk. One function per kind.

The moments of a stage follow its code: adapters and optimiser stay for the whole stage, activations and the cache of keys and values
never live together. Lengths that only a tokenizer knows are assumed, and the assumptions stand at the top.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from lite.contracts import BaseSpec, ContrastSpec, EvaluateSpec, PpoSpec, PromptsSpec, RewardSpec, Spec
from lite.fit import sizes
from lite.fit.shape import Shape
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
        wire = node.inputs.get(param)
        return self.nodes.get(wire) if isinstance(wire, str) else None

    def prompts(self, node: Node) -> PromptsSpec:
        """The spec of the prompts that a stage reads, itself or through its pairs."""
        found = self.input(node, "prompts") or self.input(node, "pairs")
        while found is not None and not isinstance(found.spec, PromptsSpec):
            found = self.input(found, "prompts") or self.input(found, "pairs")
        return found.spec if found is not None and isinstance(found.spec, PromptsSpec) else PromptsSpec.model_validate({})

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
            "kv": rows * sizes.kv_cache(shape, prompt, wide),
        }
        whole = prompt + new
        end = {
            "activations": sizes.inference(shape, rows, wide, adapter=adapter) + unpacked,
            "kv": rows * (sizes.kv_cache(shape, whole, wide) + sizes.attention_over_cache(shape, whole, wide)),
            "logits": sizes.drawing(shape, rows, nucleus=nucleus),
        }
        return [Moment("read prompts", {**resident, **start}, (knob,)), Moment("write", {**resident, **end}, (knob,))]

    def scoring(self, resident: Parts, tokens: int, *, logits: bool, knobs: tuple[str, ...] = ()) -> Moment:
        shape, wide = self.shape, self.wide
        activations = sizes.inference(shape, tokens, wide, adapter=True) + sizes.dequantised(shape, self.base)
        return Moment("score", {**resident, "activations": activations, "logits": sizes.head_logits(shape, wide) if logits else 0}, knobs)

    def updating(
        self, resident: Parts, tokens: int, trained: list[list[int]], spec: RewardSpec | PpoSpec, *, r: int, logits: bool
    ) -> Moment:
        shape, wide = self.shape, self.wide
        activations = sizes.training(shape, tokens, r, wide, checkpointing=spec.checkpointing, dropout=spec.lora.dropout > 0)
        parts = {
            "gradients": sum(map(sizes.fp32, trained)),
            "activations": activations + sizes.dequantised(shape, self.base),
            "logits": sizes.head_logits(shape, wide) if logits else 0,
        }
        return Moment("update", {**resident, **parts}, ("micro_tokens", "checkpointing"))


def prompts(spec: PromptsSpec, node: Node, site: Site) -> Demand:
    return Demand(disk=(spec.train + spec.dev + spec.test) * MEAN_PROMPT * BYTES_PER_TOKEN)


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
    text = 3 * mean + 2 * int(MEAN_RESPONSE * spec.max_new_tokens)
    return Demand(tuple(moments), (work,), pairs * text * BYTES_PER_TOKEN)


def reward(spec: RewardSpec, node: Node, site: Site) -> Demand:
    own = sizes.lora(site.shape, spec.lora.r) + sizes.head(site.shape)
    resident = site.resident([own], [own])
    pairs = site.prompts(node).train
    tokens = 2 * pairs * min(spec.max_tokens, site.mean(node) + int(MEAN_RESPONSE * 300))
    learnt = int(tokens * (1 - spec.held_out) * spec.epochs)
    passes = (
        Pass(learnt, spec.micro_tokens, *_both_ways(spec.checkpointing)),
        Pass(tokens - learnt // spec.epochs, spec.micro_tokens, 2, 1),
    )
    moments = (
        site.updating(resident, max(spec.micro_tokens, 2 * spec.max_tokens), [own], spec, r=spec.lora.r, logits=False),
        site.scoring(resident, max(spec.micro_tokens, spec.max_tokens), logits=False, knobs=("micro_tokens",)),
    )
    return Demand(moments, passes, sizes.fp32(own) + CHECKPOINTS * _state([own]))


def ppo(spec: PpoSpec, node: Node, site: Site) -> Demand:
    judge = site.input(node, "reward")
    r = judge.spec.lora.r if judge is not None and isinstance(judge.spec, RewardSpec) else spec.lora.r
    policy, rewards, head = sizes.lora(site.shape, spec.lora.r), sizes.lora(site.shape, r), sizes.head(site.shape)
    value = rewards + head if spec.value == "separate" else head
    trained = [policy, value]
    resident = site.resident([policy, value, rewards + head], trained)
    longest, roles = spec.max_prompt_tokens + spec.max_new_tokens, 3 if spec.value == "separate" else 2
    moments = (
        *site.writing(
            resident, spec.rollout_rows, spec.max_prompt_tokens, spec.max_new_tokens, adapter=True, nucleus=False, knob="rollout_rows"
        ),
        site.scoring(resident, max(spec.micro_tokens, roles * longest), logits=True, knobs=("micro_tokens",)),
        site.updating(resident, max(spec.micro_tokens, longest), trained, spec, r=max(r, spec.lora.r), logits=True),
    )
    prompt, response = min(site.mean(node), spec.max_prompt_tokens), int(MEAN_RESPONSE * spec.max_new_tokens)
    tokens = spec.rollouts * (prompt + response)
    one_step = (
        Decode(spec.rollouts, spec.rollout_rows, prompt, spec.max_new_tokens, adapter=True),
        Pass(roles * tokens, spec.micro_tokens, 2, 1),
        Pass(tokens, spec.micro_tokens, 2, 1),
        Pass(spec.epochs * (2 if spec.value == "separate" else 1) * tokens, spec.micro_tokens, *_both_ways(spec.checkpointing)),
    )
    kept = -(-spec.steps // spec.save_every)
    choosing = (
        Decode(spec.dev_prompts, spec.rollout_rows, prompt, spec.max_new_tokens, adapter=True),
        Pass((roles + 1) * spec.dev_prompts * (prompt + response), spec.micro_tokens, 2, 1),
    )
    work = (*one_step * spec.steps, *(choosing * kept if spec.dev_prompts else ()))
    state = _state(trained) + 2 * sizes.fp32(policy)  # the last good and the best adapter are part of it
    return Demand(moments, work, sizes.fp32(policy) + CHECKPOINTS * state)


def evaluate(spec: EvaluateSpec, node: Node, site: Site) -> Demand:
    wire = node.inputs.get("policies")
    policies = [p for p in (site.nodes.get(id) for id in (wire if isinstance(wire, tuple) else ())) if p is not None]
    ranks = [p.spec.lora.r for p in policies if isinstance(p.spec, PpoSpec)]
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
    "contrast": contrast,
    "reward": reward,
    "ppo": ppo,
    "evaluate": evaluate,
}


def demand(node: Node, site: Site, spec: Spec | None = None) -> Demand:
    """What a stage asks for, with its own spec or another one."""
    return DEMANDS[node.kind](spec or node.spec, node, site)
