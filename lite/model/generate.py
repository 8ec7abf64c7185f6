"""Sampling from a role on the shared base: batched, left-padded, with shared prefixes prefilled once.

Three things differ from ``transformers``' generate:
1. a draw is addressed: row i takes its t-th token with the t-th uniform number of its own seed (inverse of the cumulated
   distribution), so that batch size, order and resuming change no row;
2. prompts of one group share a prefix (p+ and p-, or the candidates of one prompt): it goes through the model once;
3. rows leave the batch and the cache when they are finished.
It runs in eval mode, inside ``AdapterBank.using``: with activation checkpointing in train mode a cached forward returns wrong
tokens from the second on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedTokenizerBase

from lite.model.bank import AdapterBank
from lite.model.encoding import common_prefix, decode
from lite.text.clean import StopReason
from lite.text.dialogue import STOP

TAIL = 16
"""Tokens decoded when looking for the stop string: no tokenizer spells it in more."""
COMPACT = 0.75
"""Finished rows leave the batch when less than this share of it is alive: copying the cache costs about one decoding step."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """How to draw: ``temperature`` 0 is greedy; ``stop`` ends a response and belongs to it."""

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    stop: str | None = STOP


class Generated(NamedTuple):
    ids: tuple[int, ...]  # response tokens, with those of the stop string or the end-of-text token
    text: str  # what they say, the stop string included
    stop: StopReason


@dataclass(slots=True)
class _Live:
    """The rows of one batch that are still being written."""

    which: list[int]  # positions in the caller's list
    attend: Tensor  # (rows, past) long
    position: Tensor  # (rows,) long, of the token to come
    noise: Tensor  # (rows, max_new_tokens) uniform


@torch.no_grad()
def generate(
    bank: AdapterBank,
    role: str | None,
    prompts: Sequence[Sequence[int]],
    *,
    seeds: Sequence[int],
    decoding: Decoding,
    rows: int = 64,
    groups: Sequence[int] | None = None,
    done: Callable[[int, int], None] | None = None,
) -> list[Generated]:
    """One response per prompt, in the order of the prompts.

    prompts: token ids     seeds: one per prompt     rows: responses decoded at once
    groups: prompts with the same number share their longest common prefix in the cache; None: nothing is shared
    done: told (responses, tokens) after every batch
    """
    if len(seeds) != len(prompts):
        raise ValueError(f"{len(prompts)} prompts but {len(seeds)} seeds")
    found: list[Generated | None] = [None] * len(prompts)
    with bank.using(role):
        for batch in _batches(prompts, groups, rows):
            written = _decode(bank, [prompts[i] for i in batch], [seeds[i] for i in batch], [groups[i] for i in batch] if groups else None, decoding)
            for i, g in zip(batch, written, strict=True):
                found[i] = g
            if done:
                done(len(batch), sum(len(g.ids) for g in written))
    return [g for g in found if g is not None]


def _batches(prompts: Sequence[Sequence[int]], groups: Sequence[int] | None, rows: int) -> list[list[int]]:
    """Positions in batches of at most ``rows``, longest first; the members of a group stay together (a larger group is split)."""
    members: dict[int, list[int]] = {}
    for i in range(len(prompts)):
        members.setdefault(groups[i] if groups else i, []).append(i)
    pieces = [m[k : k + rows] for m in members.values() for k in range(0, len(m), rows)]
    pieces.sort(key=lambda piece: -max(len(prompts[i]) for i in piece))
    batches: list[list[int]] = []
    for piece in pieces:
        if batches and len(batches[-1]) + len(piece) <= rows:
            batches[-1] += piece
        else:
            batches.append(list(piece))
    return batches


def _decode(
    bank: AdapterBank, prompts: list[Sequence[int]], seeds: list[int], groups: list[int] | None, decoding: Decoding
) -> list[Generated]:
    tokenizer, device = bank.base.tokenizer, bank.base.device
    ends, may_stop = _end_ids(tokenizer, bank), _may_stop(tokenizer, decoding.stop) if decoding.stop else frozenset()
    cache, logits, attend, position = _prefill(bank, prompts, groups)
    live = _Live(list(range(len(prompts))), attend, position, _noise(seeds, decoding.max_new_tokens).to(device))
    ids: list[list[int]] = [[] for _ in prompts]
    stops: list[StopReason | None] = [None] * len(prompts)
    for t in range(decoding.max_new_tokens):
        drawn = _draw(logits, live.noise[:, t], decoding)
        for row, (i, token) in enumerate(zip(live.which, drawn.tolist(), strict=True)):
            if i < 0:
                continue
            ids[i].append(token)
            if token in ends:
                stops[i] = "eos"
            elif token in may_stop and decoding.stop and decoding.stop in decode(tokenizer, ids[i][-TAIL:], after=prompts[i][-1]):
                stops[i] = "turn"
            elif t + 1 == decoding.max_new_tokens:
                stops[i] = "length"
            if stops[i]:
                live.which[row] = -1
        alive = [row for row, i in enumerate(live.which) if i >= 0]
        if not alive:
            break
        if len(alive) < COMPACT * len(live.which):
            drawn = _compact(live, cache, torch.tensor(alive, device=device), drawn)
        live.attend = torch.cat([live.attend, live.attend.new_ones(len(live.which), 1)], 1)
        logits = _step(bank, drawn[:, None], live.attend, live.position[:, None], cache)
        live.position = live.position + 1
    return [_finished(tokenizer, prompt[-1], i, s) for prompt, i, s in zip(prompts, ids, stops, strict=True)]


def _finished(tokenizer: PreTrainedTokenizerBase, after: int, ids: list[int], stop: StopReason | None) -> Generated:
    assert stop is not None
    return Generated(tuple(ids), decode(tokenizer, ids, after=after), stop)


def _prefill(bank: AdapterBank, prompts: list[Sequence[int]], groups: list[int] | None) -> tuple[DynamicCache, Tensor, Tensor, Tensor]:
    """Cache, logits of the first new token (rows, V), attention mask (rows, past), and its position (rows,)."""
    device, cache = bank.base.device, DynamicCache()
    past = torch.zeros(len(prompts), 0, dtype=torch.long, device=device)
    tails = prompts
    if groups is not None:
        members: dict[int, list[int]] = {}
        for row, group in enumerate(groups):
            members.setdefault(group, []).append(row)
        prefixes = [_shared([prompts[r] for r in rows]) for rows in members.values()]
        if any(prefixes):
            owner = torch.tensor([next(g for g, rows in enumerate(members.values()) if row in rows) for row in range(len(prompts))])
            ids, attend = _left_pad([p or prompts[rows[0]][:1] for p, rows in zip(prefixes, members.values(), strict=True)], bank)
            _step(bank, ids, attend, _positions(attend), cache)
            attend = attend * torch.tensor([[int(bool(p))] for p in prefixes], device=device)  # a group that shares nothing forgets its stand-in
            cache.batch_select_indices(owner.to(device))
            past = attend[owner.to(device)]
            tails = [prompt[len(prefixes[int(owner[row])]) :] for row, prompt in enumerate(prompts)]
    ids, attend = _left_pad(tails, bank)
    whole = torch.cat([past, attend], 1)
    positions = _positions(whole)[:, past.shape[1] :]
    return cache, _step(bank, ids, whole, positions, cache), whole, positions[:, -1] + 1


def _shared(prompts: list[Sequence[int]]) -> Sequence[int]:
    """The ids that all share, at least one short of every prompt: the last token is what the first logits come from."""
    if len(prompts) == 1:
        return ()
    first = prompts[0]
    n = min(min(common_prefix(first, p) for p in prompts[1:]), min(len(p) for p in prompts) - 1)
    return first[:n]


def _step(bank: AdapterBank, ids: Tensor, attend: Tensor, positions: Tensor, cache: DynamicCache) -> Tensor:
    """One forward pass over new tokens; the logits (rows, V) fp32 after the last."""
    hidden = bank.trunk(input_ids=ids, attention_mask=attend, position_ids=positions, past_key_values=cache, use_cache=True).last_hidden_state
    return torch.nn.functional.linear(hidden[:, -1], bank.vocabulary).float()


def _compact(live: _Live, cache: DynamicCache, alive: Tensor, drawn: Tensor) -> Tensor:
    """Drop the finished rows from batch and cache, and leading columns that nobody attends to stay: they cost little."""
    cache.batch_select_indices(alive)
    live.which = [live.which[row] for row in alive.tolist()]
    live.attend, live.position, live.noise = live.attend[alive], live.position[alive], live.noise[alive]
    return drawn[alive]


def _draw(logits: Tensor, uniform: Tensor, decoding: Decoding) -> Tensor:
    """(rows, V), (rows,) -> (rows,) token ids: the inverse of the cumulated distribution at each row's uniform number."""
    if decoding.temperature == 0:
        return logits.argmax(-1)
    probs = (logits / decoding.temperature).softmax(-1)
    if decoding.top_p < 1:
        probs, order = probs.sort(dim=-1, descending=True, stable=True)
        before = probs.cumsum(-1) - probs
        probs = probs * (before < decoding.top_p)
    mass = probs.double().cumsum(-1)
    place = torch.searchsorted(mass, uniform[:, None].double() * mass[:, -1:], right=True).clamp_(max=probs.shape[-1] - 1)
    return order.gather(-1, place)[:, 0] if decoding.top_p < 1 else place[:, 0]


def _noise(seeds: Sequence[int], steps: int) -> Tensor:
    """(rows, steps) uniform in [0, 1), each row from its own seed; drawn on the CPU, so alike on every device."""
    return torch.stack([torch.rand(steps, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def _left_pad(rows: Sequence[Sequence[int]], bank: AdapterBank) -> tuple[Tensor, Tensor]:
    width = max(len(r) for r in rows)
    ids = torch.full((len(rows), width), bank.base.pad_id, dtype=torch.long)
    attend = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, width - len(row) :] = torch.tensor(row)
        attend[i, width - len(row) :] = 1
    return ids.to(bank.base.device), attend.to(bank.base.device)


def _positions(attend: Tensor) -> Tensor:
    """Positions count tokens, not columns: padding inside or before a row moves nothing."""
    return (attend.cumsum(-1) - 1).clamp_(min=0)


def _end_ids(tokenizer: PreTrainedTokenizerBase, bank: AdapterBank) -> frozenset[int]:
    """The end-of-text ids of tokenizer and generation config."""
    config = bank.base.model.generation_config
    named = (config.eos_token_id if config else None) or []
    return frozenset([*([named] if isinstance(named, int) else named), *([tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else [])])


@lru_cache(maxsize=8)
def _may_stop(tokenizer: PreTrainedTokenizerBase, stop: str) -> frozenset[int]:
    """Ids whose text holds the stop string's last character: only after these is the text looked at."""
    texts = tokenizer.batch_decode([[i] for i in range(len(tokenizer))])
    return frozenset(i for i, text in enumerate(texts) if stop[-1] in text)
