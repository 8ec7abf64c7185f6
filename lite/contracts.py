"""The whole system on one page: every kind of stage, its knobs, what it reads and what it gives. Torch-free.

A stage of kind ``k`` is the function ``lite.stages.k.k(spec, *, <reads>, out, bench)``; a test holds function and table together.
Inputs are found by type: the latest artifact of that type before the stage, unless ``from:`` names another stage.
A knob marked NO_EFFECT cannot change the result (speed and memory only) and is left out of the stage's fingerprint.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field, field_validator, model_validator

from lite.artifacts import Artifact, Candidates, Evaluation, Examples, Judgements, Pairs, Policy, Prompts, Reward, Round, Seed
from lite.judge_knobs import PairwiseJudge, ScoreSpec
from lite.ppo_knobs import PpoSpec
from lite.rounds import BestSpec, EftSpec, GateSpec, InstructSpec, JudgeSpec, PairSpec, SeedSpec
from lite.spec import NAMES_STAGES, NO_EFFECT, LoraSpec, OwnBase, Spec
from lite.spec import BaseSpec as BaseSpec  # others take it from here
from lite.spec import base_of as base_of


class PromptsSpec(Spec):
    source: str = Field(
        default="micro",
        description="`micro` (the embedded world), `hh-rlhf`, `oasst1` or `oasst2` (the Hub), a .jsonl, .csv or .txt file, "
        "or a folder with train and test files",
    )
    subset: Literal["harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled"] | None = Field(
        default=None, description="part of hh-rlhf; none: harmless-base or helpful-base, whichever the task is"
    )
    revision: str | None = Field(default=None, description="branch, tag or commit of a source on the Hub")
    train: int = Field(default=600, ge=1, description="prompts for pairs and rollouts")
    dev: int = Field(default=100, ge=0, description="prompts for choices such as the best checkpoint")
    test: int = Field(default=300, ge=1, description="prompts of the final evaluation, touched once")
    min_words: int | None = Field(
        default=None, ge=1, description="shorter prompts are left out, and counted; words of the premise, else of all turns"
    )
    max_words: int | None = Field(
        default=None, ge=1, description="longer prompts are left out, and counted; PPO leaves out by tokens besides"
    )

    @model_validator(mode="after")
    def knobs_fit_the_source(self) -> "PromptsSpec":
        if self.source != "hh-rlhf" and self.subset:
            raise ValueError(f"subset belongs to the source hh-rlhf, not to {self.source}")
        if self.source not in ("hh-rlhf", "oasst1", "oasst2") and self.revision:
            raise ValueError(f"revision belongs to the sources hh-rlhf, oasst1 and oasst2, not to {self.source}")
        if self.source == "micro" and (self.min_words or self.max_words):
            raise ValueError("min_words and max_words do not act on the embedded world (source: micro)")
        if self.min_words and self.max_words and self.min_words > self.max_words:
            raise ValueError(f"min_words ({self.min_words}) is larger than max_words ({self.max_words})")
        return self


class ContrastSpec(OwnBase):
    temperature: float = Field(default=1.0, ge=0, description="0 is greedy")
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_new_tokens: int = Field(default=300, ge=1, description="a response that has not ended by then is rejected")
    attempts: int = Field(default=5, ge=1, description="draws per side before the pair is dropped")
    shared_prefix: bool = Field(default=True, description="prefill what p+ and p- share once", json_schema_extra=NO_EFFECT)
    batch_rows: int = Field(default=64, ge=1, description="responses decoded at once", json_schema_extra=NO_EFFECT)


class PreferencesSpec(Spec):
    source: str = Field(
        default="micro",
        description="`micro` (the embedded world's oracle), `hh-rlhf` (people, from the Hub), a .jsonl or .csv file of labelled pairs, "
        "or a folder with a train file",
    )
    subset: Literal["harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled"] | None = Field(
        default=None, description="part of hh-rlhf; none: harmless-base or helpful-base, whichever the task is"
    )
    revision: str | None = Field(default=None, description="branch, tag or commit of hh-rlhf")
    pairs: int = Field(default=600, ge=2, description="pairs wanted; of the embedded world: train prompts asked, ties are dropped")
    max_words: int | None = Field(default=None, ge=1, description="pairs with a longer prompt are left out, and counted")

    @model_validator(mode="after")
    def knobs_fit_the_source(self) -> "PreferencesSpec":
        if self.source != "hh-rlhf" and (self.subset or self.revision):
            raise ValueError(f"subset and revision belong to the source hh-rlhf, not to {self.source}")
        if self.source == "micro" and self.max_words:
            raise ValueError("max_words does not act on the embedded world (source: micro)")
        return self


class MixSpec(Spec):
    share: float = Field(default=0.2, gt=0, lt=1, description="share of the result that the pairs named by `from: {human: ID}` make up")


class RespondSpec(OwnBase):
    n: int = Field(default=2, ge=1, description="candidates per prompt; two for RLAIF, four for self-rewarding")
    split: Literal["train", "dev", "test"] = Field(default="train", description="which prompts are answered")
    temperature: float = Field(default=1.0, ge=0, description="0 is greedy")
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_new_tokens: int = Field(default=300, ge=1, description="a response that has not ended by then is rejected")
    attempts: int = Field(default=5, ge=1, description="draws before a candidate is left out")
    shared_prefix: bool = Field(default=True, description="prefill the prompt once for its candidates", json_schema_extra=NO_EFFECT)
    batch_rows: int = Field(default=64, ge=1, description="responses decoded at once", json_schema_extra=NO_EFFECT)


class RewardSpec(Spec):
    lora: LoraSpec = LoraSpec()
    epochs: int = Field(default=1, ge=1)
    lr: float = Field(default=1e-4, gt=0)
    batch_pairs: int = Field(default=16, ge=1, description="pairs per optimiser step")
    warmup: float = Field(default=0.03, ge=0, lt=1, description="share of the steps with a rising learning rate; cosine decay after")
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    max_tokens: int = Field(default=512, ge=8, description="prompt + response; the prompt's beginning is cut, the response is kept")
    held_out: float = Field(default=0.1, gt=0, lt=0.5, description="share of the pairs kept for the reported accuracy")
    pool: Literal["last", "mean"] = Field(
        default="last", description="the reward is read at the last token (Yang et al. 2023), or as the mean over the response tokens"
    )
    center: float = Field(default=0.0, ge=0, description="weight of (chosen + rejected)^2 in the loss: keeps rewards near 0")
    save_every: int = Field(default=50, ge=1, description="optimiser steps between checkpoints", json_schema_extra=NO_EFFECT)
    micro_tokens: int = Field(default=4096, ge=64, description="tokens per forward pass", json_schema_extra=NO_EFFECT)
    checkpointing: Literal["auto", True, False] = Field(
        default=False,
        description="recompute activations in the backward pass; auto: where the estimate says that they do not fit this card",
        json_schema_extra=NO_EFFECT,
    )


class TuneSpec(Spec):
    """What SFT and DPO have in common."""

    lora: LoraSpec = Field(default=LoraSpec(), description="of a fresh adapter; one that is trained on keeps its r and alpha")
    warmup: float = Field(default=0.03, ge=0, lt=1, description="share of the steps with a rising learning rate; cosine decay after")
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    max_tokens: int = Field(
        default=512, ge=8, description="prompt + response; the prompt's beginning is cut, a longer response is left out and counted"
    )
    held_out: float = Field(default=0.05, ge=0, lt=0.5, description="share that is not trained on but measured")
    eval_every: int = Field(default=0, ge=0, description="steps between two measurements of what is held out; 0: once, at the end")
    keep: Literal["last", "best"] = Field(default="last", description="best: the adapter with the lowest held-out loss of those measured")
    micro_tokens: int = Field(default=4096, ge=64, description="tokens per forward pass", json_schema_extra=NO_EFFECT)
    checkpointing: Literal["auto", True, False] = Field(
        default=False,
        description="recompute activations in the backward pass; auto: where the estimate says that they do not fit this card",
        json_schema_extra=NO_EFFECT,
    )

    @model_validator(mode="after")
    def best_of_something(self) -> "TuneSpec":
        if self.keep == "best" and not (self.held_out and self.eval_every):
            raise ValueError("keep: best compares adapters on what is held out: give eval_every, and held_out above 0")
        return self


class SftSpec(TuneSpec):
    targets: Literal["chosen", "examples"] = Field(
        default="chosen", description="chosen: the preferred responses of pairs, after the plain prompt (context distillation); or examples"
    )
    epochs: int = Field(default=3, ge=1)
    lr: float = Field(default=2e-4, gt=0)
    batch_examples: int = Field(default=16, ge=1, description="examples per optimiser step")


DpoLoss = Literal[
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard",
    "aot", "aot_unpaired", "apo_zero", "apo_down", "discopop", "sigmoid_norm",
]  # fmt: skip
"""TRL's preference losses, by its names; its `sft` is the knob `nll` here. A test holds the list together with TRL's."""
SMOOTHED = ("robust", "exo_pair", "aot", "aot_unpaired")
"""Those that read label_smoothing."""


class DpoSpec(TuneSpec):
    beta: float = Field(default=0.1, gt=0, description="strength of the pull to the reference")
    loss: DpoLoss = Field(default="sigmoid", description="TRL's name of the preference loss; sigmoid is DPO (Rafailov et al. 2023)")
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5, description=f"probability that a label is wrong; {', '.join(SMOOTHED)} only")
    nll: float = Field(
        default=0.0, ge=0, description="weight of the chosen response's negative log-likelihood per token (Pang et al. 2024)"
    )
    ld_alpha: float | None = Field(
        default=None, ge=0, le=1, description="weight of the tokens by which one response is longer than the other (LD-DPO); none: 1"
    )
    min_gap: float = Field(
        default=0.0, ge=0, lt=0.5, description="pairs whose label is no further than this from 1/2 are left out, and counted"
    )
    epochs: int = Field(default=1, ge=1)
    lr: float = Field(default=5e-5, gt=0)
    batch_pairs: int = Field(default=16, ge=1, description="pairs per optimiser step")

    @model_validator(mode="after")
    def smoothing_fits_the_loss(self) -> "DpoSpec":
        if self.label_smoothing and self.loss not in SMOOTHED:
            raise ValueError(f"label_smoothing does not act on the loss {self.loss}, only on {', '.join(SMOOTHED)}")
        if self.loss == "exo_pair" and not self.label_smoothing:
            raise ValueError("the loss exo_pair needs a label_smoothing above 0, such as 1e-3")
        return self


class EvaluateSpec(Spec):
    against: tuple[str, ...] = Field(
        default=("base",),
        description="other models on the same prompts: base, p_plus, or the id of a stage that gives a policy",
        json_schema_extra=NAMES_STAGES,
    )
    draws: int = Field(default=3, ge=1, description="replies per prompt; each draw is one evaluation of the whole test split")
    prompts: int | None = Field(default=None, ge=1, description="test prompts used; none: all")
    temperature: float = Field(default=1.0, ge=0)
    top_p: float = Field(default=0.9, gt=0, le=1)
    max_new_tokens: int = Field(default=300, ge=1)
    judges: tuple[PairwiseJudge, ...] = Field(
        default=(), description="who compares replies head to head: base, reward, length, oracle, or {kind: endpoint, endpoint: ...}"
    )
    side_by_side: int = Field(default=8, ge=0, description="prompts whose replies the report shows")
    batch_rows: int = Field(default=64, ge=1, description="responses decoded at once", json_schema_extra=NO_EFFECT)

    @field_validator("against")
    @classmethod
    def named_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) != len(names):
            raise ValueError("a model is named twice")
        return names


@dataclass(frozen=True)
class Need:
    """One input of a stage. ``many``: all earlier artifacts of the type, as a mapping by stage id. ``optional``: None if there is none.

    ``named``: taken only where ``from`` names it, never because it happens to be the latest; such an input is optional.
    """

    type: type[Artifact]
    many: bool = False
    optional: bool = False
    named: bool = False

    def __post_init__(self) -> None:
        if self.named and not (self.optional or self.many):
            raise ValueError("a named input is optional")


@dataclass(frozen=True)
class Contract:
    kind: str
    spec: type[Spec]
    gives: type[Artifact]
    version: int
    reads: Mapping[str, Need] = field(default_factory=dict)
    uses_base: bool = True
    about: str = ""
    templates: tuple[str, ...] = ()
    """what its prompts are written with; their hashes are part of the stage's identity"""


CONTRACTS: Mapping[str, Contract] = {
    c.kind: c
    for c in (
        Contract("prompts", PromptsSpec, Prompts, 1, uses_base=False, about="dialogues that wait for an answer, in three splits"),
        Contract("contrast", ContrastSpec, Pairs, 1, {"prompts": Need(Prompts)}, about="RLCD pairs: one answer under p+, one under p-"),
        Contract(
            "preferences",
            PreferencesSpec,
            Pairs,
            1,
            {"prompts": Need(Prompts)},
            uses_base=False,
            about="pairs that people labelled; in the embedded world the oracle",
        ),
        Contract(
            "mix",
            MixSpec,
            Pairs,
            1,
            {"pairs": Need(Pairs), "human": Need(Pairs, optional=True, named=True)},
            uses_base=False,
            about="a share of labelled pairs in place of as many others",
        ),
        Contract(
            "respond",
            RespondSpec,
            Candidates,
            1,
            {"prompts": Need(Prompts), "policy": Need(Policy, optional=True, named=True)},
            about="several answers of the base, or of a policy that is named, to each plain prompt",
        ),
        Contract(
            "score",
            ScoreSpec,
            Pairs,
            1,
            {"candidates": Need(Candidates, optional=True), "pairs": Need(Pairs, optional=True, named=True)},
            about="soft labels: the base chooses between two responses by the odds of A and B (RLAIF, and Rescore of named pairs)",
            templates=("choice",),
        ),
        Contract("reward", RewardSpec, Reward, 1, {"pairs": Need(Pairs)}, about="a reward adapter and scalar head from preference pairs"),
        Contract(
            "ppo", PpoSpec, Policy, 1, {"prompts": Need(Prompts), "reward": Need(Reward)}, about="PPO of the base against the reward model"
        ),
        Contract(
            "seed",
            SeedSpec,
            Seed,
            1,
            {"prompts": Need(Prompts)},
            uses_base=False,
            about="instructions with answers, and answers that people ranked; none of them is held out",
        ),
        Contract(
            "eft",
            EftSpec,
            Examples,
            1,
            {"seed": Need(Seed), "policy": Need(Policy)},
            about="judging to learn: reviews that rank as people do",
        ),
        Contract(
            "instruct",
            InstructSpec,
            Prompts,
            1,
            {"seed": Need(Seed), "prompts": Need(Prompts, many=True), "policy": Need(Policy, optional=True, named=True)},
            about="new prompts, written after examples and filtered",
        ),
        Contract(
            "judge",
            JudgeSpec,
            Judgements,
            1,
            {"candidates": Need(Candidates), "policy": Need(Policy)},
            about="scores from 0 to 5 for every candidate, several times each, with their reasons",
        ),
        Contract(
            "pair",
            PairSpec,
            Pairs,
            1,
            {
                "candidates": Need(Candidates),
                "judgements": Need(Judgements),
                "second": Need(Judgements, optional=True, named=True),
                "anchors": Need(Candidates, optional=True, named=True),
                "anchor_judgements": Need(Judgements, optional=True, named=True),
            },
            uses_base=False,
            about="the best candidate against the worst, by the mean of its judgements",
        ),
        Contract(
            "best",
            BestSpec,
            Examples,
            1,
            {"candidates": Need(Candidates), "judgements": Need(Judgements)},
            uses_base=False,
            about="examples of the candidates that the judge finds perfect, in place of pairs",
        ),
        Contract(
            "gate",
            GateSpec,
            Round,
            1,
            {
                "policy": Need(Policy),
                "before": Need(Policy, optional=True, named=True),
                "baseline": Need(Policy, optional=True, named=True),
                "seed": Need(Seed),
                "prompts": Need(Prompts),
                "pairs": Need(Pairs, optional=True),
                "judgements": Need(Judgements, optional=True),
            },
            about="a round's figures beside those of the model before it; a round that made it worse is refused",
        ),
        Contract(
            "sft",
            SftSpec,
            Policy,
            1,
            {
                "pairs": Need(Pairs, optional=True),
                "examples": Need(Examples, many=True),
                "policy": Need(Policy, optional=True, named=True),
            },
            about="supervised training on responses: of the base, or of the policy that is named",
        ),
        Contract(
            "dpo",
            DpoSpec,
            Policy,
            1,
            {"pairs": Need(Pairs), "policy": Need(Policy, optional=True, named=True)},
            about="DPO on preference pairs: start and reference are the base, or the policy that is named",
        ),
        Contract(
            "evaluate",
            EvaluateSpec,
            Evaluation,
            1,
            {
                "prompts": Need(Prompts),
                "pairs": Need(Pairs, many=True),
                "reward": Need(Reward, many=True),
                "policies": Need(Policy, many=True),
                "rounds": Need(Round, many=True),
            },
            about="held-out replies of every model, judged and laid side by side",
            templates=("choice", "pairwise", *(f"question_{form}" for form in ("harmless", "helpful", "helpful_on_harmless", "outline"))),
        ),
    )
}
