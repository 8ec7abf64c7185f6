"""The whole system on one page: every kind of stage, its knobs, what it reads and what it gives. Torch-free.

A stage of kind ``k`` is the function ``lite.stages.k.k(spec, *, <reads>, out, bench)``; a test holds function and table together.
Inputs are found by type: the latest artifact of that type before the stage, unless ``from:`` names another stage.
A knob marked NO_EFFECT cannot change the result (speed and memory only) and is left out of the stage's fingerprint.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from lite.artifacts import Artifact, Evaluation, Pairs, Policy, Prompts, Reward

NO_EFFECT: dict[str, Any] = {"no_effect": True}


class Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class BaseSpec(Spec):
    """The one base that every role of a run shares."""

    model: str = Field(default="tiny", description="a Hub id, a folder, or `tiny` (the embedded base)")
    revision: str | None = Field(default=None, description="branch, tag or commit of a Hub id")
    quantize: Literal["nf4", "none"] = Field(default="nf4", description="nf4: 4 bits, block 64, double quantisation; none: 16 or 32 bits")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(default="auto", description="compute type; auto: by device")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: the GPU where there is one")


class LoraSpec(Spec):
    r: int = Field(default=16, ge=1, description="rank")
    alpha: int = Field(default=32, ge=1, description="scale numerator: the update is multiplied by alpha / r")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="dropout on the adapter input while training")


class PromptsSpec(Spec):
    source: str = Field(
        default="micro",
        description="`micro` (the embedded world), `hh-rlhf` (the Hub), a .jsonl, .csv or .txt file, or a folder with train and test files",
    )
    subset: Literal["harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled"] | None = Field(
        default=None, description="part of hh-rlhf; none: harmless-base or helpful-base, whichever the task is"
    )
    revision: str | None = Field(default=None, description="branch, tag or commit of hh-rlhf")
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
        if self.source != "hh-rlhf" and (self.subset or self.revision):
            raise ValueError(f"subset and revision belong to the source hh-rlhf, not to {self.source}")
        if self.source == "micro" and (self.min_words or self.max_words):
            raise ValueError("min_words and max_words do not act on the embedded world (source: micro)")
        if self.min_words and self.max_words and self.min_words > self.max_words:
            raise ValueError(f"min_words ({self.min_words}) is larger than max_words ({self.max_words})")
        return self


class ContrastSpec(Spec):
    temperature: float = Field(default=1.0, ge=0, description="0 is greedy")
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_new_tokens: int = Field(default=300, ge=1, description="a response that has not ended by then is rejected")
    attempts: int = Field(default=5, ge=1, description="draws per side before the pair is dropped")
    shared_prefix: bool = Field(default=True, description="prefill what p+ and p- share once", json_schema_extra=NO_EFFECT)
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
    checkpointing: bool = Field(default=False, description="recompute activations in the backward pass", json_schema_extra=NO_EFFECT)


PPO_PRESETS: Mapping[str, dict[str, Any]] = {
    # Yang et al. 2023 on AlpacaFarm's PPO: facts of the released script; the learning rate is a LoRA one.
    "rlcd": {},
    # Huang et al. 2024, "The N+ implementation details of RLHF with PPO".
    "n_plus": {"lam": 0.95, "kl_coef": 0.05, "kl_estimator": "k1", "epochs": 4, "value_init": "reward", "whiten_rewards": False},
}


class PpoSpec(Spec):
    preset: Literal["rlcd", "n_plus"] = Field(
        default="rlcd", description="defaults of the other knobs: RLCD's script, or Huang et al. 2024"
    )
    lora: LoraSpec = LoraSpec()
    steps: int = Field(default=80, ge=1, description="PPO steps (one step: rollouts, scores, updates)")
    rollouts: int = Field(default=512, ge=1, description="responses per step")
    minibatch: int = Field(default=256, ge=1, description="responses per optimiser update")
    epochs: int = Field(default=2, ge=1, description="passes over the rollouts of a step")
    lr: float = Field(default=1e-4, gt=0)
    value_lr: float | None = Field(default=None, gt=0, description="learning rate of the value adapter and head; none: lr")
    warmup_steps: int = Field(default=5, ge=0, description="PPO steps with a rising learning rate; linear decay after")
    adam_eps: float = Field(default=1e-5, gt=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    clip: float = Field(default=0.2, gt=0, description="probability ratios outside 1 +- clip earn nothing more")
    value_clip: float = Field(default=0.2, gt=0)
    value_coef: float = Field(default=0.1, ge=0)
    gamma: float = Field(default=1.0, gt=0, le=1)
    lam: float = Field(default=1.0, ge=0, le=1, description="lambda of the generalised advantage estimate")
    whiten_rewards: bool = Field(default=True, description="unit variance of the shaped rewards, mean kept")
    whiten_advantages: bool = Field(default=True, description="zero mean and unit variance of the advantages")
    kl_coef: float = Field(default=0.004, ge=0, description="weight of the per-token KL to the reference")
    kl_estimator: Literal["clamped", "k1", "k3"] = Field(default="clamped", description="clamped: max(logp - ref, 0), as in AlpacaFarm")
    kl_control: Literal["fixed", "adaptive"] = Field(default="fixed", description="adaptive: towards kl_target (Ziegler et al. 2019)")
    kl_target: float = Field(default=6.0, gt=0, description="KL per response, in nats, of the adaptive control")
    kl_horizon: int = Field(default=10000, ge=1, description="responses over which the adaptive control acts")
    max_kl: float = Field(default=100.0, gt=0, description="KL per response, in nats, at which the run counts as runaway and stops")
    temperature: float = Field(default=1.0, gt=0)
    max_prompt_tokens: int = Field(default=192, ge=1, description="longer prompts are left out, and counted")
    max_new_tokens: int = Field(default=300, ge=1)
    no_stop_reward: float = Field(default=-1.0, description="the reward of a response that is empty or does not end with the stop string")
    scale_reward: bool = Field(
        default=False, description="rewards minus their mean, over their standard deviation, on the base's own replies in the first step"
    )
    value: Literal["separate", "joint"] = Field(
        default="separate", description="separate: an adapter of its own; joint: a head on the policy's trunk"
    )
    value_init: Literal["zero", "reward"] = Field(default="zero", description="the value head starts at zero or from the reward head")
    save_every: int = Field(
        default=20, ge=1, description="PPO steps between checkpoints, and between the adapters that dev_prompts compares"
    )
    dev_prompts: int = Field(
        default=0, ge=0, description="dev prompts on which the kept adapters are compared by the reward model; 0: keep the last"
    )
    rollout_rows: int = Field(default=64, ge=1, description="responses decoded at once", json_schema_extra=NO_EFFECT)
    micro_tokens: int = Field(default=4096, ge=64, description="tokens per forward pass", json_schema_extra=NO_EFFECT)
    checkpointing: bool = Field(default=False, description="recompute activations in the backward pass", json_schema_extra=NO_EFFECT)

    @model_validator(mode="before")
    @classmethod
    def fill_from_preset(cls, given: Any) -> Any:
        """Keys that the recipe gives win over the preset's; an unknown preset is left for the field to report."""
        if not isinstance(given, dict):
            return given
        preset = given.get("preset", "rlcd")
        return {**PPO_PRESETS.get(preset, {}), **given} if isinstance(preset, str) else given

    @model_validator(mode="after")
    def minibatch_fits(self) -> "PpoSpec":
        if self.minibatch > self.rollouts:
            raise ValueError(f"minibatch ({self.minibatch}) is larger than rollouts ({self.rollouts})")
        return self

    @property
    def updates_per_step(self) -> int:
        return self.epochs * -(-self.rollouts // self.minibatch)


class EvaluateSpec(Spec):
    against: tuple[str, ...] = Field(
        default=("base",), description="other models on the same prompts: base, p_plus, or the id of a stage that gives a policy"
    )
    draws: int = Field(default=3, ge=1, description="replies per prompt; each draw is one evaluation of the whole test split")
    prompts: int | None = Field(default=None, ge=1, description="test prompts used; none: all")
    temperature: float = Field(default=1.0, ge=0)
    top_p: float = Field(default=0.9, gt=0, le=1)
    max_new_tokens: int = Field(default=300, ge=1)
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


CONTRACTS: Mapping[str, Contract] = {
    c.kind: c
    for c in (
        Contract("prompts", PromptsSpec, Prompts, 1, uses_base=False, about="dialogues that wait for an answer, in three splits"),
        Contract("contrast", ContrastSpec, Pairs, 1, {"prompts": Need(Prompts)}, about="RLCD pairs: one answer under p+, one under p-"),
        Contract("reward", RewardSpec, Reward, 1, {"pairs": Need(Pairs)}, about="a reward adapter and scalar head from preference pairs"),
        Contract(
            "ppo", PpoSpec, Policy, 1, {"prompts": Need(Prompts), "reward": Need(Reward)}, about="PPO of the base against the reward model"
        ),
        Contract(
            "evaluate",
            EvaluateSpec,
            Evaluation,
            1,
            {
                "prompts": Need(Prompts),
                "pairs": Need(Pairs, optional=True),
                "reward": Need(Reward, optional=True),
                "policies": Need(Policy, many=True),
            },
            about="held-out replies of every model, judged and laid side by side",
        ),
    )
}
