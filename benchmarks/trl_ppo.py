"""TRL 1.12's experimental PPOTrainer, set up for the same step: the last release that has PPO.

It needs three models where ours needs one: a policy with an adapter (the reference is the policy with its adapter off), a
sequence classifier as reward model and another as value model, each with a base of its own, here all in NF4 with the same LoRA
rank; the value model's adapter and head are trained. Everything else is the trainer's own way of working: generation keeps the scores
of every step, log-probs come from full logits, policy and value loss are summed.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    TrainerCallback,
)
from trl.experimental.ppo import PPOConfig, PPOTrainer

from lite.knobs import LoraSpec
from lite.model.bank import TARGETS
from lite.model.base import stop_cpu_repacking


class Ticks(TrainerCallback):
    """Tells the end of each PPO step."""

    def __init__(self, tick: Callable[[], None]):
        self._tick = tick

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self._tick()


def build(folder: Path, size: Any, *, steps: int, out: Path, tick: Callable[[], None]) -> PPOTrainer:
    """``size``: a ``benchmarks.ppo_sides.Size``."""
    stop_cpu_repacking()
    torch.manual_seed(17)
    spec = size.spec()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token = tokenizer.bos_token  # it looks for one in every response; nothing stops there
    policy = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, quantization_config=_nf4())
    value = _scorer(folder)
    value.add_adapter(_lora(spec.lora, "SEQ_CLS"))
    for name, p in value.named_parameters():
        p.requires_grad_("lora_" in name or name.startswith("score."))
    config = PPOConfig(
        output_dir=str(out),
        total_episodes=steps * size.rollouts,
        per_device_train_batch_size=size.rollouts,  # with num_mini_batches: passes and updates of ``size.minibatch`` rows
        gradient_accumulation_steps=1,
        num_mini_batches=size.rollouts // size.minibatch,
        num_ppo_epochs=size.epochs,
        local_rollout_forward_batch_size=size.rollouts,
        response_length=size.response_tokens,
        temperature=spec.temperature,
        learning_rate=spec.lr,
        kl_coef=spec.kl_coef,
        whiten_rewards=spec.whiten_rewards,
        num_sample_generations=0,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    return PPOTrainer(
        args=config,
        processing_class=tokenizer,
        model=policy,
        ref_model=None,
        reward_model=_scorer(folder).requires_grad_(False),
        value_model=value,
        train_dataset=Dataset.from_dict({"input_ids": [list(p) for p in size.prompts()]}),
        peft_config=_lora(spec.lora, "CAUSAL_LM"),
        callbacks=[Ticks(tick)],
    )


def _scorer(folder: Path) -> PreTrainedModel:
    return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=torch.float32, quantization_config=_nf4())


def _nf4() -> BitsAndBytesConfig:
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32
    )


def _lora(lora: LoraSpec, kind: str) -> LoraConfig:
    return LoraConfig(r=lora.r, lora_alpha=lora.alpha, target_modules=list(TARGETS), task_type=kind)
