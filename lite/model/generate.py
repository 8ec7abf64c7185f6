"""Sampling from a role on the shared base: batched, left-padded, refilled, with shared prefixes prefilled once.

Four things differ from ``transformers``' generate:
1. a draw is addressed: row i takes its t-th token with the t-th uniform number of its own seed (inverse of the cumulated
   distribution), so that batch size, order and resuming change no row (short of the last bits, which differ between batch shapes:
   a token can tip where a uniform number hits the very edge of two tokens, in 16 bits sooner than in 32);
2. prompts of one group share a prefix (p+ and p-, or the candidates of one prompt): it goes through the model once;
3. finished rows leave the batch and the cache, and prompts that wait come in for them;
4. the cache is not copied for every token (see ``lite.model.kv``).
Not used, of what transformers 5.17 has: continuous batching (it draws by one ``torch.multinomial`` for all rows, so that a row would
depend on its neighbours, and it knows no stop string), and static caches under CUDA graphs (the bitsandbytes quantisers call
themselves not compilable).
It runs in eval mode, inside ``AdapterBank.using``: with activation checkpointing in train mode a cached forward returns wrong
tokens from the second on.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lite.model.bank import AdapterBank
from lite.model.encoding import common_prefix, decode
from lite.model.kv import BlockCache
from lite.model.memory import WRITE
from lite.text.clean import StopReason
from lite.text.dialogue import STOP

COMPACT = 0.75
"""Finished rows leave the batch when less than this share of it is alive: copying the cache costs about one decoding step."""
IDLE = 2.0
"""Waiting prompts come in once finished rows have idled for so many steps of the whole batch: a pass over prompts costs about that."""
PATIENCE = 1 / 8
"""Nobody comes in while all rows that are alive have at most this share of their tokens left: rows that begin together end together,
and staggered ones leave the batch half empty at the end. (A count rules, never a clock: a run must repeat to the bit.)"""


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
    """The rows of the batch. A row's last token is drawn, but has not gone through the model yet."""

    which: list[int]  # positions in the caller's list; -1: finished
    cache: BlockCache
    attend: Tensor  # (rows, past) long
    position: Tensor  # (rows,) long, of the last token
    noise: Tensor  # (rows, max_new_tokens) uniform
    drawn: Tensor  # (rows,) long, the last token
    written: Tensor  # (rows, 1) long, tokens drawn so far

    def alive(self) -> list[int]:
        return [row for row, i in enumerate(self.which) if i >= 0]


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
    done: told (responses, tokens) whenever responses are finished
    each: told the ids of all responses so far after every token; False ends the writing, and what has not ended by itself counts as cut
    """
    if len(seeds) != len(prompts) or (groups is not None and len(groups) != len(prompts)):
        raise ValueError(f"{len(prompts)} prompts, {len(seeds)} seeds" + (f", {len(groups)} groups" if groups is not None else ""))
    if empty := [i for i, prompt in enumerate(prompts) if not prompt]:
        raise ValueError(f"prompt {empty[0]} has no tokens: there is nothing to go on from")
    written = _Writer(bank, prompts, seeds, groups, decoding, done, each)
    with bank.using(role):
        bank.budget.spend(WRITE, min(rows, len(prompts)), written.write)
    return written.finished()


class _Writer:
    """The responses to a list of prompts, as far as they are written."""

    def __init__(
        self,
        bank: AdapterBank,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        groups: Sequence[int] | None,
        decoding: Decoding,
        done: Callable[[int, int], None] | None,
        each: Callable[[list[list[int]]], bool] | None,
    ):
        self.bank, self.prompts, self.seeds, self.decoding, self.done, self.each = bank, prompts, seeds, decoding, done, each
        self.groups = None if groups is None or _outgrows_window(bank, prompts, decoding) else groups
        self.ids: list[list[int]] = [[] for _ in prompts]
        self.stops: list[StopReason | None] = [None] * len(prompts)
        self.ends = _end_ids(bank.base.tokenizer, bank)
        self.may_stop = _may_stop(bank.base.tokenizer, decoding.stop) if decoding.stop else frozenset()
        self.reach = len(decoding.stop.encode()) if decoding.stop else 0  # in tokens: each of them spells at least one byte

    def write(self, rows: int) -> None:
        """What is missing, ``rows`` at a time: responses that were finished when memory ran out stay finished."""
        missing = [i for i, stop in enumerate(self.stops) if stop is None]
        for i in missing:
            self.ids[i] = []
        waiting = deque(_pieces(self.prompts, self.groups, rows, missing))
        live: _Live | None = None
        idle = 0.0
        while waiting or live:
            alive = live.alive() if live else []
            if waiting and len(waiting[0]) <= rows - len(alive) and (not alive or (idle >= IDLE and self._worth(live, alive))):
                live, idle = self._admit(live, alive, _next(waiting, rows - len(alive))), 0.0
                if self._ended_from_outside():
                    return
            elif live and alive:
                if len(alive) < COMPACT * len(live.which):
                    _keep(live, alive)
                self._step(live)
                if self._ended_from_outside():
                    return
                idle += 1 - len(alive) / rows
            else:
                live = None

    def _ended_from_outside(self) -> bool:
        ended = self.each is not None and not self.each(self.ids)
        if ended:
            self.stops = [stop or "length" for stop in self.stops]
        return ended

    def finished(self) -> list[Generated]:
        return [self._finished(i) for i in range(len(self.prompts))]

    def _worth(self, live: _Live | None, alive: list[int]) -> bool:
        """Whether a row that is alive may still take its time."""
        assert live is not None
        limit = self.decoding.max_new_tokens
        return any(limit - len(self.ids[live.which[row]]) > PATIENCE * limit for row in alive)

    def _admit(self, live: _Live | None, alive: list[int], which: list[int]) -> _Live:
        """Prefill new rows, draw their first token, and put them under those that are alive."""
        bank = self.bank
        shared = [self.groups[i] for i in which] if self.groups is not None else None
        cache, logits, attend, position = _prefill(bank, [self.prompts[i] for i in which], shared)
        noise = _noise([self.seeds[i] for i in which], self.decoding.max_new_tokens).to(logits.device)
        nothing = torch.zeros_like(position)
        new = _Live(which, cache, attend, position, noise, drawn=nothing, written=nothing[:, None])
        self._draw(new, logits)
        return _join(live, alive, new) if live and alive else new

    def _step(self, live: _Live) -> None:
        """One token more for every row."""
        live.attend = torch.cat([live.attend, live.attend.new_ones(len(live.which), 1)], 1)
        logits = _step(self.bank, live.drawn[:, None], live.attend, live.position[:, None], live.cache)
        live.position = live.position + 1
        self._draw(live, logits)

    def _draw(self, live: _Live, logits: Tensor) -> None:
        at = live.written.clamp(max=live.noise.shape[1] - 1)  # finished rows may stay for a while
        live.drawn = _draw(logits, live.noise.gather(1, at)[:, 0], self.decoding)
        live.written = live.written + 1
        finished = []
        for row, (i, token) in enumerate(zip(live.which, live.drawn.tolist(), strict=True)):
            if i >= 0 and self._note(i, token):
                finished.append(i)
                live.which[row] = -1
        if finished and self.done:
            self.done(len(finished), sum(len(self.ids[i]) for i in finished))

    def _note(self, i: int, token: int) -> bool:
        """Append a token to a response; whether that ends it."""
        ids, stop = self.ids[i], self.decoding.stop
        ids.append(token)
        if token in self.ends:
            self.stops[i] = "eos"
        elif stop and token in self.may_stop and stop in decode(self.bank.base.tokenizer, ids[-self.reach :], after=self.prompts[i][-1]):
            self.stops[i] = "turn"
        elif len(ids) == self.decoding.max_new_tokens:
            self.stops[i] = "length"
        return self.stops[i] is not None

    def _finished(self, i: int) -> Generated:
        stop = self.stops[i]
        assert stop is not None
        return Generated(tuple(self.ids[i]), decode(self.bank.base.tokenizer, self.ids[i], after=self.prompts[i][-1]), stop)


def _pieces(prompts: Sequence[Sequence[int]], groups: Sequence[int] | None, rows: int, missing: Sequence[int]) -> list[list[int]]:
    """The missing positions that go in together, longest first: the members of a group (a group of more than ``rows`` is split), or one alone."""
    members: dict[int, list[int]] = {}
    for i in missing:
        members.setdefault(i if groups is None else groups[i], []).append(i)
    pieces = [m[k : k + rows] for m in members.values() for k in range(0, len(m), rows)]
    return sorted(pieces, key=lambda piece: -max(len(prompts[i]) for i in piece))


def _outgrows_window(bank: AdapterBank, prompts: Sequence[Sequence[int]], decoding: Decoding) -> bool:
    """Whether a sliding window (Mistral, OLMo 3) could act: it counts columns, and behind a shared prefix some rows have empty ones."""
    window = getattr(bank.base.model.config, "sliding_window", None)
    # prefix and rest are each as wide as a prompt at most
    return window is not None and 2 * max(map(len, prompts)) + decoding.max_new_tokens > window


def _next(waiting: deque[list[int]], free: int) -> list[int]:
    """As many of the pieces that wait as fit, in their order."""
    found: list[int] = []
    while waiting and len(found) + len(waiting[0]) <= free:
        found += waiting.popleft()
    return found


def _keep(live: _Live, alive: list[int]) -> None:
    """Drop finished rows, and the columns that nobody attends to any more."""
    rows = torch.tensor(alive, device=live.attend.device)
    attend = live.attend[rows]
    first = int(attend.any(0).long().argmax())
    live.cache.take(rows, first=first)
    live.which = [live.which[row] for row in alive]
    live.attend, live.position, live.noise = attend[:, first:], live.position[rows], live.noise[rows]
    live.drawn, live.written = live.drawn[rows], live.written[rows]


def _join(live: _Live, alive: list[int], new: _Live) -> _Live:
    """One batch of the rows that are alive and new ones; their columns end together on the right."""
    rows = torch.tensor(alive, device=live.attend.device)
    own = live.attend[rows]
    first = int(own.any(0).long().argmax())
    own = own[:, first:]
    live.cache.take(rows, first=first, beside=new.cache)
    width = max(own.shape[1], new.attend.shape[1])
    attend = torch.cat([torch.nn.functional.pad(x, (width - x.shape[1], 0)) for x in (own, new.attend)])
    return _Live(
        which=[live.which[row] for row in alive] + new.which,
        cache=live.cache,
        attend=attend,
        position=torch.cat([live.position[rows], new.position]),
        noise=torch.cat([live.noise[rows], new.noise]),
        drawn=torch.cat([live.drawn[rows], new.drawn]),
        written=torch.cat([live.written[rows], new.written]),
    )


def _prefill(bank: AdapterBank, prompts: list[Sequence[int]], groups: list[int] | None) -> tuple[BlockCache, Tensor, Tensor, Tensor]:
    """Cache, logits of the first new token (rows, V), attention mask (rows, past), and its position (rows,)."""
    cache = BlockCache()
    if groups is None or len(set(groups)) == len(groups):
        past, tails = torch.zeros(len(prompts), 0, dtype=torch.long, device=bank.base.device), prompts
    else:
        past, tails = _prefill_prefixes(bank, prompts, groups, cache)
    ids, attend = _left_pad(tails, bank)
    whole = torch.cat([past, attend], 1)
    positions = _positions(whole)[:, past.shape[1] :]
    return cache, _step(bank, ids, whole, positions, cache), whole, positions[:, -1] + 1


def _prefill_prefixes(
    bank: AdapterBank, prompts: list[Sequence[int]], groups: list[int], cache: BlockCache
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
    cache.take(of)
    return attend[of], [prompt[len(prefixes[g]) :] for prompt, g in zip(prompts, owner, strict=True)]


def _shared(prompts: list[Sequence[int]]) -> Sequence[int]:
    """The ids that all share, at least one short of every prompt: the last token is what the first logits come from.

    Of a prompt alone that is all but its last token, so that it does not widen the rest of the batch's second pass.
    """
    first = prompts[0]
    n = min(min(common_prefix(first, p) for p in prompts), min(len(p) for p in prompts) - 1)
    return first[:n]


def _step(bank: AdapterBank, ids: Tensor, attend: Tensor, positions: Tensor, cache: BlockCache) -> Tensor:
    """One forward pass over new tokens; the logits (rows, V) fp32 after the last."""
    hidden = bank.trunk(
        input_ids=ids, attention_mask=attend, position_ids=positions, past_key_values=cache, use_cache=True
    ).last_hidden_state
    return torch.nn.functional.linear(hidden[:, -1], bank.vocabulary).float()


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
