"""The knobs of the stages that train on pairs or examples: reward model, SFT and DPO. PPO's are in a file of their own."""

from typing import Literal

from pydantic import Field, model_validator

from lite.knobs import NO_EFFECT, LoraSpec, Spec
from lite.knobs.rounds import CompareSpec


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
    save_every: int = Field(default=50, ge=1, description="optimiser steps between checkpoints", json_schema_extra=NO_EFFECT)
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
    labels: Literal["hard", "soft"] = Field(
        default="hard",
        description="hard: the likelier response is the better one; soft: a pair's label is its weight, the rest goes to the opposite order",
    )
    compare: CompareSpec | None = Field(
        default=None,
        description="adapters on the way are compared by their replies to dev prompts, which the policy trained from judges; the best is kept",
    )
    epochs: int = Field(default=1, ge=1)
    lr: float = Field(default=5e-5, gt=0)
    batch_pairs: int = Field(default=16, ge=1, description="pairs per optimiser step")

    @model_validator(mode="after")
    def one_way_to_choose(self) -> "DpoSpec":
        if self.compare and self.keep == "best":
            raise ValueError("compare and keep: best are two ways to choose an adapter: take one")
        return self

    @model_validator(mode="after")
    def soft_labels_fit_the_loss(self) -> "DpoSpec":
        if self.labels == "soft" and (self.loss != "sigmoid" or self.ld_alpha is not None):
            raise ValueError("labels: soft is for the loss sigmoid without ld_alpha")
        return self

    @model_validator(mode="after")
    def smoothing_fits_the_loss(self) -> "DpoSpec":
        if self.label_smoothing and self.loss not in SMOOTHED:
            raise ValueError(f"label_smoothing does not act on the loss {self.loss}, only on {', '.join(SMOOTHED)}")
        if self.loss == "exo_pair" and not self.label_smoothing:
            raise ValueError("the loss exo_pair needs a label_smoothing above 0, such as 1e-3")
        return self
