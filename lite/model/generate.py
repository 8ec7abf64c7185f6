"""Sampling from a role on the shared base: batched, left-padded, with shared prefixes prefilled once.

Three things differ from ``transformers``' generate:
1. a draw is addressed: row i takes its t-th token with the t-th uniform number of its own seed (inverse of the cumulated
   distribution), so that batch size, order and resuming change no row (short of the last bits, which differ between batch shapes:
   a token can tip where a uniform number hits the very edge of two tokens, in 16 bits sooner than in 32);
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
    each: Callable[[list[list[int]]], bool] | None = None,
) -> list[Generated]:
    """One response per prompt, in the order of the prompts.

    prompts: token ids     seeds: one per prompt     rows: responses decoded at once
    groups: prompts with the same number share their longest common prefix in the cache; None: nothing is shared
    done: told (responses, tokens) after every batch
    each: told the ids of the batch so far after every token; False ends the batch, and what has not ended by itself counts as cut
    """
    if len(seeds) != len(prompts) or (groups is not None and len(groups) != len(prompts)):
        raise ValueError(f"{len(prompts)} prompts, {len(seeds)} seeds" + (f", {len(groups)} groups" if groups is not None else ""))
    if empty := [i for i, prompt in enumerate(prompts) if not prompt]:
        raise ValueError(f"prompt {empty[0]} has no tokens: there is nothing to go on from")
    found: list[Generated | None] = [None] * len(prompts)
    with bank.using(role):
        for batch in _batches(prompts, groups, rows):
            shared = [groups[i] for i in batch] if groups is not None else None
            written = _decode(bank, [prompts[i] for i in batch], [seeds[i] for i in batch], shared, decoding, each)
            for i, g in zip(batch, written, strict=True):
                found[i] = g
            if done:
                done(len(batch), sum(len(g.ids) for g in written))
    return [g for g in found if g is not None]


def _batches(prompts: Sequence[Sequence[int]], groups: Sequence[int] | None, rows: int) -> list[list[int]]:
    """Positions in batches of at most ``rows``, longest first; the members of a group stay together (a larger group is split)."""
    members: dict[int, list[int]] = {}
    for i in range(len(prompts)):
        members.setdefault(i if groups is None else groups[i], []).append(i)
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
    bank: AdapterBank,
    prompts: list[Sequence[int]],
    seeds: list[int],
    groups: list[int] | None,
    decoding: Decoding,
    each: Callable[[list[list[int]]], bool] | None,
) -> list[Generated]:
    tokenizer, device = bank.base.tokenizer, bank.base.device
    ends, stop = _end_ids(tokenizer, bank), decoding.stop
    may_stop = _may_stop(tokenizer, stop) if stop else frozenset()
    reach = len(stop.encode()) if stop else 0  # in tokens: each of them spells at least one byte
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
            elif stop and token in may_stop and stop in decode(tokenizer, ids[i][-reach:], after=prompts[i][-1]):
                stops[i] = "turn"
            elif t + 1 == decoding.max_new_tokens:
                stops[i] = "length"
            if stops[i]:
                live.which[row] = -1
        alive = [row for row, i in enumerate(live.which) if i >= 0]
        if each and not each(ids):
            stops = [reason or "length" for reason in stops]
            break
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
    cache = DynamicCache()
    if groups is None or len(set(groups)) == len(groups):
        past, tails = torch.zeros(len(prompts), 0, dtype=torch.long, device=bank.base.device), prompts
    else:
        past, tails = _prefill_prefixes(bank, prompts, groups, cache)
    ids, attend = _left_pad(tails, bank)
    whole = torch.cat([past, attend], 1)
    positions = _positions(whole)[:, past.shape[1] :]
    return cache, _step(bank, ids, whole, positions, cache), whole, positions[:, -1] + 1


def _prefill_prefixes(
    bank: AdapterBank, prompts: list[Sequence[int]], groups: list[int], cache: DynamicCache
) -> tuple[Tensor, list[Sequence[int]]]:
    """Fill the cache with each group's prefix, once per group, then once per row; what to attend to of it, and what each prompt has left."""
    members: dict[int, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    prefixes = [_shared([prompts[row] for row in rows]) for rows in members.values()]
    owner = [0] * len(prompts)
    for g, rows in enumerate(members.values()):
        for row in rows:
            owner[row] = g
    # A group that shares nothing lends the cache one token, which nobody attends to.
    ids, attend = _left_pad([prefix or prompts[rows[0]][:1] for prefix, rows in zip(prefixes, members.values(), strict=True)], bank)
    _step(bank, ids, attend, _positions(attend), cache)
    attend *= torch.tensor([[int(bool(prefix))] for prefix in prefixes], device=attend.device)
    of = torch.tensor(owner, device=attend.device)
    cache.batch_select_indices(of)
    return attend[of], [prompt[len(prefixes[g]) :] for prompt, g in zip(prompts, owner, strict=True)]


def _shared(prompts: list[Sequence[int]]) -> Sequence[int]:
    """The ids that all share, at least one short of every prompt: the last token is what the first logits come from.

    Of a prompt alone that is all but its last token, so that it does not widen the rest of the batch's second pass.
    """
    first = prompts[0]
    n = min(min(common_prefix(first, p) for p in prompts), min(len(p) for p in prompts) - 1)
    return first[:n]


def _step(bank: AdapterBank, ids: Tensor, attend: Tensor, positions: Tensor, cache: DynamicCache) -> Tensor:
    """One forward pass over new tokens; the logits (rows, V) fp32 after the last."""
    hidden = bank.trunk(
        input_ids=ids, attention_mask=attend, position_ids=positions, past_key_values=cache, use_cache=True
    ).last_hidden_state
    return torch.nn.functional.linear(hidden[:, -1], bank.vocabulary).float()


def _compact(live: _Live, cache: DynamicCache, alive: Tensor, drawn: Tensor) -> Tensor:
    """Drop the finished rows from batch and cache. Leading columns that nobody attends to any more stay: they cost little."""
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
        probs = probs * _nucleus(probs, decoding.top_p)
    mass = probs.double().cumsum(-1)
    place = torch.searchsorted(mass, uniform[:, None] * mass[:, -1:], right=True)  # right: a token without mass is stepped over
    return place.clamp_(max=probs.shape[-1] - 1)[:, 0]


def _nucleus(probs: Tensor, top_p: float) -> Tensor:
    """True for the fewest likeliest tokens that hold at least ``top_p`` together (Holtzman et al. 2020). (rows, V) -> (rows, V)

    In the order of the ids, so that two tokens that are all but equally likely keep their places in the cumulated distribution.
    """
    ranked, order = probs.sort(dim=-1, descending=True, stable=True)
    before = ranked.cumsum(-1) - ranked
    return torch.zeros_like(before, dtype=torch.bool).scatter_(-1, order, before < top_p)


def _noise(seeds: Sequence[int], steps: int) -> Tensor:
    """(rows, steps) uniform in [0, 1), each row from its own seed; drawn on the CPU, so alike on every device.

    In 64 bits: of 2^24 numbers in 32 bits one is 0, which would draw the first token of the vocabulary, likely or not.
    """
    return torch.stack([torch.rand(steps, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in seeds])


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
    named = config.eos_token_id if config else None
    ends = [*(named if isinstance(named, list) else [named]), tokenizer.eos_token_id]
    return frozenset(i for i in ends if i is not None)


@lru_cache(maxsize=8)
def _may_stop(tokenizer: PreTrainedTokenizerBase, stop: str) -> frozenset[int]:
    """Ids whose text holds the stop string's last character, or part of one: only after these is the text looked at."""
    texts = tokenizer.batch_decode([[i] for i in range(len(tokenizer))])
    return frozenset(i for i, text in enumerate(texts) if stop[-1] in text or (not stop.isascii() and "\ufffd" in text))
