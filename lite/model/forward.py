"""Forward passes over prompt + response rows: log-probs, values and rewards, at response positions only.

Everything response-shaped is (B, R): column j belongs to the j-th response token of its row. The hidden state that belongs to
token j is the one *before* it (the state in which the policy chose it); a reward is read at the last token, or over
all response tokens where its head says so.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn

from lite.model.bank import AdapterBank
from lite.model.encoding import Row
from lite.model.heads import ScalarHead
from lite.model.memory import SCORE
from lite.objectives.logprobs import token_logprobs
from lite.objectives.masks import row_sums, scatter_kept

Scorer = TypeVar("Scorer", bound=Callable[..., Any])

Pause = Callable[[], None]
"""Asked before every pass; what it raises ends the work."""

HEAD_CHUNK = 256
"""Positions per slice of the output head: 256 x 32k vocabulary x 4 bytes = 32 MiB."""


class Batch(NamedTuple):
    """Rows padded on the right."""

    ids: Tensor  # (B, T) long
    attend: Tensor  # (B, T) long, 1 = token
    before: Tensor  # (B, R) long, position of the hidden state that chose response token j
    targets: Tensor  # (B, R) long
    keep: Tensor  # (B, R) bool
    last: Tensor  # (B,) long, position of the last token


class ResponseLogProbs(NamedTuple):
    logp: Tensor  # (B, R) fp32, 0 off-mask
    entropy: Tensor  # (B, R) fp32, detached, 0 off-mask; (B, 0) unless asked for


class Scores(NamedTuple):
    """What one mixed pass tells of N rollouts."""

    reference: Tensor  # (N, R) log-probs of the response under the reference
    values: Tensor  # (N, R); empty if no value role took part
    rewards: Tensor  # (N,)


def collate(rows: Sequence[Row], *, pad_id: int, device: torch.device) -> Batch:
    if not rows:
        raise ValueError("no rows to collate")
    width, span = max(len(r) for r in rows), max(len(r.response) for r in rows)
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    attend = torch.zeros((len(rows), width), dtype=torch.long)
    before = torch.zeros((len(rows), span), dtype=torch.long)
    targets = torch.full((len(rows), span), pad_id, dtype=torch.long)
    keep = torch.zeros((len(rows), span), dtype=torch.bool)
    for i, row in enumerate(rows):
        if not row.prompt or not row.response:
            raise ValueError(f"row {i} has no {'prompt' if not row.prompt else 'response'}: both need at least one token")
        p, n = len(row.prompt), len(row.response)
        ids[i, : p + n] = torch.tensor(row.prompt + row.response)
        attend[i, : p + n] = 1
        before[i, :n] = torch.arange(p - 1, p + n - 1)
        targets[i, :n] = torch.tensor(row.response)
        keep[i, :n] = True
    last = attend.sum(1) - 1
    return Batch(*(t.to(device) for t in (ids, attend, before, targets, keep, last)))


def micro_batches(lengths: Sequence[int], *, tokens: int) -> list[list[int]]:
    """Positions grouped by length, so that rows x longest row <= ``tokens`` (or a single row)."""
    groups: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if groups and (len(groups[-1]) + 1) * lengths[groups[-1][0]] <= tokens:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def refine(groups: Sequence[Sequence[int]], lengths: Sequence[int], *, tokens: int) -> list[list[int]]:
    """The same micro-batches, those that are over ``tokens`` cut into smaller ones. ``lengths``: of all rows"""
    return [[group[j] for j in part] for group in groups for part in micro_batches([lengths[i] for i in group], tokens=tokens)]


def hidden_states(trunk: nn.Module, batch: Batch) -> Tensor:
    """(B, T, D)"""
    return trunk(input_ids=batch.ids, attention_mask=batch.attend, use_cache=False).last_hidden_state


def response_logprobs(
    hidden: Tensor, vocabulary: Tensor, batch: Batch, *, temperature: float = 1.0, entropy: bool = False
) -> ResponseLogProbs:
    """Log-probs of the response tokens under softmax(logits / temperature): the distribution that was sampled from."""
    chosen = _at(hidden, batch.before)[batch.keep]
    flat = token_logprobs(chosen, vocabulary, batch.targets[batch.keep], temperature=temperature, chunk=HEAD_CHUNK, entropy=entropy)
    spread = scatter_kept(flat.entropy, batch.keep) if entropy else flat.logp.new_empty(len(batch.keep), 0)
    return ResponseLogProbs(scatter_kept(flat.logp, batch.keep), spread)


def response_values(hidden: Tensor, head: ScalarHead, batch: Batch) -> Tensor:
    """(B, R) fp32, 0 off-mask"""
    return head(_at(hidden, batch.before)) * batch.keep


def response_rewards(hidden: Tensor, head: ScalarHead, batch: Batch) -> Tensor:
    """(B,) fp32: the head at the last token, never at padding; or the mean of the head over the response tokens, as its pool says"""
    if head.pool == "last":
        rows = torch.arange(len(batch.last), device=hidden.device)
        return head(hidden[rows, batch.last])
    own = (batch.before + 1).clamp_(max=hidden.shape[1] - 1)  # a token's own state; off-mask columns may point past the end
    return row_sums(head(_at(hidden, own)), batch.keep) / batch.keep.sum(-1)


def nothing() -> None: ...


def in_pieces_that_fit(score: Scorer) -> Scorer:
    """A scoring function of (bank, rows, micro_tokens=...) that begins again with shorter passes when memory runs out."""

    @wraps(score)
    def within(bank: AdapterBank, rows: Sequence[Row], *, micro_tokens: int, **rest: Any) -> Any:
        most = len(rows) * max((len(row) for row in rows), default=0)
        return bank.budget.spend(SCORE, min(micro_tokens, most), lambda tokens: score(bank, rows, micro_tokens=tokens, **rest))

    return cast(Scorer, within)


@in_pieces_that_fit
@torch.no_grad()
def score_rows(
    bank: AdapterBank,
    rows: Sequence[Row],
    *,
    reward: str | None,
    value: str | None,
    temperature: float,
    micro_tokens: int,
    reference: str | None = None,
) -> Scores:
    """Reference log-probs, values and rewards of finished rollouts in ONE pass over the 4-bit weights per micro-batch.

    Rows of the three roles lie side by side in a batch (PEFT's mixed adapters), so the base is dequantised once, not thrice.
    ``micro_tokens`` are those of one role: without a graph one layer's activations live at a time, so that three times the tokens
    of a training pass take about the memory of one. Equal to separate passes; a test holds both together.
    ``reference``: a frozen adapter, none: the base itself. Without a ``reward`` or a ``value`` role theirs are 0 and empty.
    """
    roles = [reference, *([reward] if reward else []), *([value] if value else [])]
    span = max((len(r.response) for r in rows), default=0)
    device = bank.base.device
    logp = torch.zeros(len(rows), span, device=device)
    values = torch.zeros(len(rows), span if value else 0, device=device)
    rewards = torch.zeros(len(rows), device=device)
    for group in micro_batches([len(r) for r in rows], tokens=micro_tokens):
        batch = collate([rows[i] for i in group], pad_id=bank.base.pad_id, device=device)
        n, r = batch.keep.shape
        index = torch.tensor(group, device=device)
        with bank.mixing([role for role in roles for _ in range(n)]) as trunk:
            stacked = batch._replace(ids=batch.ids.repeat(len(roles), 1), attend=batch.attend.repeat(len(roles), 1))
            hidden = hidden_states(trunk, stacked).split(n)
        logp[index, :r] = response_logprobs(hidden[0], bank.vocabulary, batch, temperature=temperature).logp
        if reward:
            rewards[index] = response_rewards(hidden[1], bank.head(reward), batch)
        if value:
            values[index, :r] = response_values(hidden[-1], bank.head(value), batch)
    return Scores(logp, values, rewards)


@in_pieces_that_fit
@torch.no_grad()
def reward_rows(bank: AdapterBank, rows: Sequence[Row], *, role: str, micro_tokens: int, pause: Pause = nothing) -> Tensor:
    """(N,) rewards of one adapter alone."""
    rewards = torch.zeros(len(rows), device=bank.base.device)
    for group in micro_batches([len(r) for r in rows], tokens=micro_tokens):
        pause()
        batch = collate([rows[i] for i in group], pad_id=bank.base.pad_id, device=bank.base.device)
        with bank.using(role) as trunk:
            rewards[torch.tensor(group, device=rewards.device)] = response_rewards(hidden_states(trunk, batch), bank.head(role), batch)
    return rewards


@in_pieces_that_fit
@torch.no_grad()
def logprob_rows(
    bank: AdapterBank, rows: Sequence[Row], *, role: str | None, temperature: float, micro_tokens: int, pause: Pause = nothing
) -> Tensor:
    """(N, R) log-probs of the responses under one role."""
    logp = torch.zeros(len(rows), max(len(r.response) for r in rows), device=bank.base.device)
    for group in micro_batches([len(r) for r in rows], tokens=micro_tokens):
        pause()
        batch = collate([rows[i] for i in group], pad_id=bank.base.pad_id, device=bank.base.device)
        with bank.using(role) as trunk:
            found = response_logprobs(hidden_states(trunk, batch), bank.vocabulary, batch, temperature=temperature)
        logp[torch.tensor(group, device=logp.device), : found.logp.shape[1]] = found.logp
    return logp


def _at(hidden: Tensor, positions: Tensor) -> Tensor:
    """hidden (B, T, D), positions (B, R) -> (B, R, D)"""
    return hidden.gather(1, positions[..., None].expand(-1, -1, hidden.shape[-1]))
