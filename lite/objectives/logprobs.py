"""Log-probabilities of chosen tokens without the (N, V) table.

512 positions of a 128k vocabulary are 250 MiB in fp32, and the usual route (logits, log-softmax, its gradient) holds three of them.
Here the head runs over ``chunk`` positions at a time, forward and backward.

An autograd function rather than ``torch.utils.checkpoint`` per chunk, for three reasons:
1. buffers are reused in place: two tables of (chunk, V) live at once, against nearly five under checkpointing (counted);
2. with a frozen head (every LoRA run) the slope of a row does not depend on the gradient that will come, so it is taken in the
   forward, where the distribution is at hand, and kept in place of the hidden state: the backward computes no logits at all;
3. nothing depends on the state at backward time (random state, autocast, active adapter).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lite.objectives.masks import wide


class LogProbs(NamedTuple):
    logp: Tensor  # (N,) fp32, carries the gradient
    entropy: Tensor  # (N,) fp32, detached; nats, of the same (tempered) distribution; (0,) unless asked for


def token_logprobs(
    hidden: Tensor,
    head_weight: Tensor,
    targets: Tensor,
    *,
    temperature: float = 1.0,
    chunk: int = 256,
    bias: Tensor | None = None,
    entropy: bool = True,
) -> LogProbs:
    """Log-probability of each target, and the entropy of the distribution that it was drawn from.

        logp_i = log_softmax((W h_i + b) / temperature)[target_i]

    The product runs in the dtype of ``head_weight``, everything after it in fp32. The gradient reaches ``hidden``, and ``head_weight``
    and ``bias`` where they require it. Ratios are exactly 1 only between calls that cut the same rows into the same chunks.

    hidden: (N, D), the states that predict the targets     head_weight: (V, D)     targets: (N,) int     bias: (V,)
    entropy: False leaves it out, and where no gradient is wanted three walks over every (chunk, V) table with it
    """
    if temperature <= 0 or chunk < 1:
        raise ValueError(f"temperature must be above 0 and chunk at least 1, not {temperature} and {chunk}")
    if targets.shape != hidden.shape[:1]:
        raise ValueError(f"targets have shape {tuple(targets.shape)}, hidden states {tuple(hidden.shape)}")
    head_learns = head_weight.requires_grad or (bias is not None and bias.requires_grad)
    slope_now = torch.is_grad_enabled() and hidden.requires_grad and not head_learns
    return LogProbs(*_ChunkedHead.apply(hidden, head_weight, bias, targets, temperature, chunk, slope_now, entropy))


def _log_softmax(hidden: Tensor, head_weight: Tensor, bias: Tensor | None, temperature: float) -> Tensor:
    """(c, D) -> (c, V) fp32."""
    with torch.autocast(hidden.device.type, enabled=False):
        logits = wide(torch.nn.functional.linear(hidden.to(head_weight.dtype), head_weight, bias))
        return torch.log_softmax(logits if temperature == 1.0 else logits.div_(temperature), dim=-1)


def _slope(probs: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """d logp_target / d logits = (onehot(target) - probs) / temperature, in the memory of ``probs``. (c, V) -> (c, V)

    Subtracted in fp32 before any cast: in bf16 the slope of a token of probability 0.999 would be mostly rounding.
    """
    slope = probs.neg_()
    slope[torch.arange(len(targets), device=targets.device), targets] += 1.0
    return slope.div_(temperature)


class _ChunkedHead(torch.autograd.Function):
    """With ``slope_now`` the forward leaves d logp / d hidden (N, D) to the backward; else the backward computes each chunk again."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head_weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperature: float,
        chunk: int,
        slope_now: bool,
        with_entropy: bool,
    ) -> tuple[Tensor, Tensor]:
        logp = torch.empty(len(hidden), dtype=wide(hidden[:0]).dtype, device=hidden.device)
        entropy = torch.empty_like(logp if with_entropy else logp[:0])
        slope = torch.empty_like(hidden) if slope_now else None
        for at in range(0, len(hidden), chunk):
            rows = slice(at, at + chunk)
            log_probs = _log_softmax(hidden[rows], head_weight, bias, temperature)
            logp[rows] = log_probs.gather(1, targets[rows, None])[:, 0]
            probs = None
            if with_entropy:
                probs = log_probs.exp()
                entropy[rows] = -log_probs.clamp_(min=torch.finfo(log_probs.dtype).min).mul_(probs).sum(dim=-1)  # 0 log 0 = 0
            if slope is not None:
                probs = log_probs.exp_() if probs is None else probs
                slope[rows] = _slope(probs, targets[rows], temperature).to(head_weight.dtype) @ head_weight
            del log_probs, probs  # else a third table: they would outlive the next chunk's logits
        if slope is None:
            ctx.save_for_backward(hidden, head_weight, bias, targets)
        else:
            ctx.save_for_backward(slope)
        ctx.temperature, ctx.chunk, ctx.slope_now = temperature, chunk, slope_now
        ctx.mark_non_differentiable(entropy)
        return logp, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride] (decorated)
        grad = grads[0]
        if ctx.slope_now:
            (slope,) = ctx.saved_tensors
            return (grad[:, None] * slope).to(slope.dtype), None, None, None, None, None, None, None
        hidden, head_weight, bias, targets = ctx.saved_tensors
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        to_hidden = torch.empty_like(hidden) if wants_hidden else None
        to_weight = torch.zeros_like(head_weight, dtype=grad.dtype) if wants_weight else None
        to_bias = torch.zeros_like(bias, dtype=grad.dtype) if wants_bias else None
        for at in range(0, len(hidden), ctx.chunk):
            rows = slice(at, at + ctx.chunk)
            probs = _log_softmax(hidden[rows], head_weight, bias, ctx.temperature).exp_()
            to_logits = _slope(probs, targets[rows], ctx.temperature).mul_(grad[rows, None])
            if to_bias is not None:
                to_bias += to_logits.sum(dim=0)
            to_logits = to_logits.to(head_weight.dtype)
            if to_hidden is not None:
                to_hidden[rows] = to_logits @ head_weight
            if to_weight is not None:
                to_weight += to_logits.T @ hidden[rows].to(head_weight.dtype)
            del probs, to_logits
        to_weight = None if to_weight is None else to_weight.to(head_weight.dtype)
        to_bias = None if to_bias is None else to_bias.to(bias.dtype)
        return to_hidden, to_weight, to_bias, None, None, None, None, None
