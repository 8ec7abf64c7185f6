"""The baseline: one PPO step in the loop shape of TRL 0.9 and of what was built on it, in our own words.

What makes the shape, and what this file keeps of it:
1. mini-batches of 2, one after the other, also where nothing needs a gradient;
2. a scoring pass of its own over every row for each role, by ``set_adapter``: policy, reference (adapter off), value, reward;
3. every pass goes through the causal language model, so full logits (B, T, V) are made, for prompt tokens and padding too, and by
   the value and reward passes, which do not look at them; log-probs are a log-softmax over all of them;
4. rollouts come from ``transformers``' generate, a mini-batch at a time as well
   (https://github.com/hiyouga/LLaMA-Factory/blob/000526908ae92cc1567130559f04a3436855e0cd/src/llamafactory/train/ppo/trainer.py).

``Choices`` names what can be had faster without leaving the shape. Besides, this file takes the faster way everywhere: entropy is
taken without a graph, the optimiser knows adapters and heads only, figures for logging are left out. Roles, losses, rewards and advantages are those of ``lite``'s step (``value: separate``, or
``joint``, which is what TRL 0.9 had; sums over the minibatch's kept tokens), so that both sides compute the same numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel

from lite.knobs import LoraSpec
from lite.knobs.ppo import PpoSpec
from lite.model.bank import TARGETS, AdapterBank
from lite.model.base import stop_cpu_repacking
from lite.model.encoding import Row
from lite.model.heads import ScalarHead
from lite.stages.rollouts import POLICY, REWARD, VALUE, Advantages, Rollouts, appraise

PIECE = 2
"""Rows per forward pass: TRL 0.9's ``mini_batch_size`` where memory was short."""


@dataclass
class Pieces:
    """Rows padded on the right to the width of the whole batch."""

    ids: Tensor  # (B, T)
    attend: Tensor  # (B, T)
    keep: Tensor  # (B, T - 1) True where the next token is a response token
    last: Tensor  # (B,)


def pad(rows: Sequence[Row], width: int, device: torch.device) -> Pieces:
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    attend, keep = torch.zeros_like(ids), torch.zeros(len(rows), width - 1, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row.prompt + row.response)
        attend[i, : len(row)] = 1
        keep[i, len(row.prompt) - 1 : len(row) - 1] = True
    return Pieces(ids.to(device), attend.to(device), keep.to(device), (attend.sum(1) - 1).to(device))


@dataclass(frozen=True)
class Choices:
    """What the shape leaves open. The defaults are how it was run; the other values are faster."""

    rollout_rows: int = PIECE  # responses decoded at once: LLaMA-Factory wrote a mini-batch at a time
    value_logits: bool = True  # the value pass goes through the language model's head too, as every wrapped model did
    update_rows: int | None = None  # rows per optimiser update; None: those of ``spec``, by accumulation


AS_RUN = Choices()


class OldLoop:
    """Policy, value and reward adapters on one NF4 model, switched by PEFT; two scalar heads."""

    def __init__(self, spec: PpoSpec, base: Path | PreTrainedModel, choices: Choices = AS_RUN):
        """``base``: a folder, loaded in NF4 on the CPU, or a model without adapters, which this loop wraps."""
        base = _load(base) if isinstance(base, Path) else base
        self.spec, self.choices, self.joint, self.device = spec, choices, spec.value == "joint", base.device
        self.model: PeftModel = get_peft_model(base, _lora(spec.lora), adapter_name=POLICY)  # type: ignore[assignment]
        for name in (VALUE, REWARD):
            self.model.add_adapter(name, _lora(spec.lora))
        self.heads = {name: ScalarHead(base.config.hidden_size, self.device) for name in (VALUE, REWARD)}
        self.policy_parameters = self._adapter(POLICY)
        self.value_parameters = [*([] if self.joint else self._adapter(VALUE)), *self.heads[VALUE].parameters()]
        self.optimizer = torch.optim.AdamW(
            [{"params": self.policy_parameters, "lr": spec.lr}, {"params": self.value_parameters, "lr": spec.value_lr or spec.lr}],
            eps=spec.adam_eps,
            weight_decay=0.0,
        )

    def take_weights(self, bank: AdapterBank) -> None:
        """The adapters and heads of a bank, so that both sides start from the same numbers."""
        with torch.no_grad():
            for name in bank.names:
                for mine, theirs in zip(self._adapter(name), bank.parameters(name), strict=True):
                    mine.copy_(theirs)
            for name, head in self.heads.items():
                head.copy_from(bank.head(name))

    def step(self, prompts: Sequence[tuple[int, ...]], orders: Sequence[Sequence[int]], *, seed: int) -> None:
        """Roll out, score, update. ``orders``: the rows of each epoch."""
        responses = self.generate(prompts, seed=seed)
        rows = [Row(p, r) for p, r in zip(prompts, responses, strict=True)]
        rollouts = self.score(rows, finished=torch.zeros(len(rows), dtype=torch.bool, device=self.device))
        gains = appraise(self.spec, rollouts, kl_coef=self.spec.kl_coef, moments=None)
        size = self.choices.update_rows or self.spec.minibatch
        for order in orders:
            for at in range(0, len(order), size):
                self.accumulate(order[at : at + size], rollouts, gains)
                self.update()

    # -- the three parts of a step ------------------------------------------------------------------------------------------

    @torch.no_grad()
    def generate(self, prompts: Sequence[tuple[int, ...]], *, seed: int) -> list[tuple[int, ...]]:
        """Prompts of one length; exactly ``max_new_tokens`` each, since the model has no end-of-text token."""
        self.model.set_adapter(POLICY)
        self.model.eval()
        torch.manual_seed(seed)
        responses, rows = [], self.choices.rollout_rows
        for at in range(0, len(prompts), rows):
            ids = torch.tensor(prompts[at : at + rows], device=self.device)
            written = self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=True,
                temperature=self.spec.temperature,
                top_k=0,
                top_p=1.0,
                max_new_tokens=self.spec.max_new_tokens,
                pad_token_id=0,
            )
            responses += [tuple(row) for row in written[:, ids.shape[1] :].tolist()]
        return responses

    @torch.no_grad()
    def score(self, rows: Sequence[Row], *, finished: Tensor) -> Rollouts:
        self.model.eval()
        batch = pad(rows, max(len(r) for r in rows), self.device)
        parts = []
        for at in range(0, len(rows), PIECE):
            piece = _rows(batch, slice(at, at + PIECE))
            self.model.set_adapter(POLICY)
            logits, hidden = self._full(piece)
            logp = self._logprobs(logits, piece)
            with self.model.disable_adapter():
                reference = self._logprobs(self._full(piece)[0], piece)
            if not self.joint:
                self.model.set_adapter(VALUE)
                hidden = self._full(piece)[1] if self.choices.value_logits else self._trunk(piece)
            values = self.heads[VALUE](hidden)[:, :-1]
            self.model.set_adapter(REWARD)
            rewards = self.heads[REWARD](self._full(piece)[1]).gather(1, piece.last[:, None])[:, 0]
            parts.append((logp, reference, values, rewards))
        logp, reference, values, rewards = (torch.cat(part) for part in zip(*parts, strict=True))
        logp, reference, values = (torch.where(batch.keep, x, 0.0) for x in (logp, reference, values))
        return Rollouts(list(rows), [""] * len(rows), finished, batch.keep, logp, torch.zeros_like(logp), reference, values, rewards)

    def accumulate(self, minibatch: Sequence[int], rollouts: Rollouts, gains: Advantages) -> tuple[float, float]:
        """Gradients of one minibatch in pieces of 2; its policy loss and its value loss."""
        self.model.train()
        batch = pad(rollouts.rows, rollouts.keep.shape[1] + 1, self.device)
        total = rollouts.keep[torch.tensor(minibatch, device=self.device)].sum()
        policy_sum = value_sum = 0.0
        for at in range(0, len(minibatch), PIECE):
            index = torch.tensor(minibatch[at : at + PIECE], device=self.device)
            piece, clip, old = _rows(batch, index), self.spec.clip, rollouts.values[index]
            self.model.set_adapter(POLICY)
            logits, hidden = self._full(piece)
            logp = self._logprobs(logits, piece)
            with torch.no_grad():
                _entropy(logits)  # for the log; TRL 0.9 took it here
            ratio = torch.exp(torch.where(piece.keep, logp - rollouts.logp[index], 0.0))
            gain = gains.advantages[index]
            policy = (torch.maximum(-gain * ratio, -gain * ratio.clamp(1 - clip, 1 + clip)) * piece.keep).sum() / total
            if not self.joint:
                policy.backward()
                self.model.set_adapter(VALUE)
                hidden = self._full(piece)[1] if self.choices.value_logits else self._trunk(piece)
            values = self.heads[VALUE](hidden)[:, :-1]
            near = old + (values - old).clamp(-self.spec.value_clip, self.spec.value_clip)
            errors = torch.maximum((values - gains.returns[index]) ** 2, (near - gains.returns[index]) ** 2)
            value = (errors * piece.keep).sum() / total / 2
            loss = self.spec.value_coef * value
            (policy + loss if self.joint else loss).backward()
            policy_sum, value_sum = policy_sum + policy.item(), value_sum + value.item()
        return policy_sum, value_sum

    def update(self) -> None:
        for parameters in (self.policy_parameters, self.value_parameters):
            torch.nn.utils.clip_grad_norm_(parameters, self.spec.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    # -- inside -------------------------------------------------------------------------------------------------------------

    def _full(self, piece: Pieces) -> tuple[Tensor, Tensor]:
        """Tempered logits of all next tokens (B, T - 1, V), hidden states (B, T, D)."""
        output = self.model(input_ids=piece.ids, attention_mask=piece.attend, output_hidden_states=True, use_cache=False)
        logits = output.logits[:, :-1]
        return logits if self.spec.temperature == 1 else logits / self.spec.temperature, output.hidden_states[-1]

    def _trunk(self, piece: Pieces) -> Tensor:
        """Hidden states (B, T, D)."""
        trunk = self.model.get_base_model().get_decoder()  # type: ignore[operator]
        return trunk(input_ids=piece.ids, attention_mask=piece.attend, use_cache=False).last_hidden_state

    def _logprobs(self, logits: Tensor, piece: Pieces) -> Tensor:
        """(B, T - 1)"""
        return torch.log_softmax(logits, dim=-1).gather(2, piece.ids[:, 1:, None])[..., 0]

    def _adapter(self, role: str) -> list[torch.nn.Parameter]:
        return [p for name, p in self.model.named_parameters() if "lora_" in name and f".{role}." in name]


def _entropy(logits: Tensor) -> Tensor:
    """(B, T, V) -> (B, T)"""
    probs = torch.softmax(logits, dim=-1)
    return torch.logsumexp(logits, dim=-1) - (probs * logits).sum(-1)


def _rows(batch: Pieces, index: slice | Tensor) -> Pieces:
    return Pieces(batch.ids[index], batch.attend[index], batch.keep[index], batch.last[index])


def _load(folder: Path) -> PreTrainedModel:
    stop_cpu_repacking()
    quantization = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32
    )
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, quantization_config=quantization)


def _lora(lora: LoraSpec) -> LoraConfig:
    return LoraConfig(r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=list(TARGETS), task_type="CAUSAL_LM")
