"""Optimisers and learning-rate schedules for adapters and heads."""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from lite.errors import DivergedError


def adamw(groups: list[tuple[list[nn.Parameter], float]], *, eps: float = 1e-8, weight_decay: float = 0.0) -> torch.optim.Optimizer:
    """AdamW over (parameters, learning rate) groups: 8-bit and paged on a GPU (Dettmers et al. 2022), torch's own on a CPU.

    bitsandbytes keeps the state of tensors under 4,096 values, the scalar heads among them, in 32 bits.
    """
    parameters = [{"params": ps, "lr": lr, "base_lr": lr} for ps, lr in groups]
    if groups[0][0][0].device.type == "cuda":
        from bitsandbytes.optim import PagedAdamW8bit

        return PagedAdamW8bit(parameters, eps=eps, weight_decay=weight_decay)
    return torch.optim.AdamW(parameters, eps=eps, weight_decay=weight_decay)


class LossScale:
    """Gradients that pass through a base in fp16 are multiplied on their way, or the small ones would become 0 (Micikevicius et al. 2018).

    fp16 ends at 6e-8, and a PPO token's share of a minibatch is below that. The scale begins at 2^16, is halved where a gradient overflows
    (that update is left out) and doubled after 1,000 updates without. With a base in any other type nothing is scaled.
    """

    FIRST, GROW_AFTER = 2.0**16, 1000

    def __init__(self, dtype: torch.dtype):
        self.on = dtype == torch.float16
        self.value = self.FIRST if self.on else 1.0
        self.good = 0  # updates since the last change

    def state_dict(self) -> dict[str, float]:
        return {"value": self.value, "good": self.good}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        self.value, self.good = state["value"], int(state["good"])

    def backward(self, loss: Tensor) -> None:
        (loss * self.value if self.on else loss).backward()

    def unscale(self, parameters: Iterable[nn.Parameter]) -> None:
        """Divide the gradients by the scale before they are clipped. After an overflow there are none: the optimiser leaves the weights alone.

        Once the scale is down to 1 a gradient that is not finite stays, for :func:`clip_and_check` to refuse.
        """
        if not self.on:
            return
        learning = [p for p in parameters if p.grad is not None]
        finite = all(bool(torch.isfinite(p.grad).all()) for p in learning if p.grad is not None)
        if not finite and self.value > 1:
            self.value, self.good = self.value / 2, 0
            for p in learning:
                p.grad = None
            return
        for p in learning:
            if p.grad is not None:
                p.grad.div_(self.value)
        self.good += 1
        if self.good == self.GROW_AFTER:
            self.value, self.good = self.value * 2, 0


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Every group's learning rate := its own base rate times ``factor``."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def warmup_cosine(step: int, total: int, warmup: int) -> float:
    """Linear rise over ``warmup`` steps, then half a cosine to 0; ``step`` counts from 0."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def warmup_linear(step: int, total: int, warmup: int) -> float:
    """Linear rise over ``warmup`` steps, then linear decay to 0 after the last; ``step`` counts from 0."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return (total - step) / max(1, total - warmup)


def clip_and_check(parameters: Iterable[nn.Parameter], max_norm: float, where: str) -> float:
    """Clip the gradient norm and return it; a norm that is not finite stops the run before the weights are touched."""
    norm = float(torch.nn.utils.clip_grad_norm_(list(parameters), max_norm))
    if not math.isfinite(norm):
        raise DivergedError(f"{where}: the gradient is {norm}; lower the learning rate or check the rewards")
    return norm
