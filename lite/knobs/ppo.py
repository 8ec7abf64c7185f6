"""The knobs of PPO, and their presets."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from lite.knobs import NO_EFFECT, LoraSpec, Spec, with_preset

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
    lora: LoraSpec = Field(default=LoraSpec(), description="of a fresh adapter; one that is trained on keeps its r and alpha")
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
    checkpointing: Literal["auto", True, False] = Field(
        default=False,
        description="recompute activations in the backward pass; auto: where the estimate says that they do not fit this card",
        json_schema_extra=NO_EFFECT,
    )

    @model_validator(mode="before")
    @classmethod
    def fill_from_preset(cls, given: Any) -> Any:
        return with_preset(PPO_PRESETS, "rlcd", given)

    @model_validator(mode="after")
    def minibatch_fits(self) -> "PpoSpec":
        if self.minibatch > self.rollouts:
            raise ValueError(f"minibatch ({self.minibatch}) is larger than rollouts ({self.rollouts})")
        return self

    @property
    def updates_per_step(self) -> int:
        return self.epochs * -(-self.rollouts // self.minibatch)
