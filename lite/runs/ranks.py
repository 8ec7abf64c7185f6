"""Several processes with one recipe: who does what, and how what they did comes together. Data-parallel only; torch is fetched at need.

Every rank holds the whole base and every adapter. Rows are dealt out by turns, gradients are summed (the losses are shares of the whole
batch's mean already, so the sum is the gradient of one process), and rank 0 alone writes. What rows a rank computes depends on nothing
but its number, and every decision that could differ between ranks is rank 0's.
"""

import json
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import takewhile
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from lite import errors
from lite.errors import LiteError, PreconditionError, Stopped

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.distributed import Store

Item = TypeVar("Item")
Failure: TypeAlias = LiteError | Stopped
Word: TypeAlias = tuple[str, str]
"""A failure on its way to another rank: the name of its kind, and its message."""

LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK")
MEETING = timedelta(minutes=5)
"""So long the processes of a launcher may take until all are there."""
PATIENCE = timedelta(hours=24)
"""A rank may wait as long as another one writes a shard."""
LAST_WORD = "lite/last-word"


class Ranks:
    """One process alone: it is the first, and what several would do by turns it does."""

    number, count = 0, 1

    def mine(self, items: Iterable[Item]) -> list[Item]:
        """Every ``count``-th of the items, from my number on."""
        return list(items)[self.number :: self.count]

    def gather(self, value: Item) -> list[Item]:
        """Everybody's value, by rank; the same for all."""
        return [value]

    def dealt(self, own: Sequence[Item]) -> list[Item]:
        """The results for all items, in their order, from everybody's for :meth:`mine`."""
        parts = self.gather(list(own))
        return [parts[i % self.count][i // self.count] for i in range(sum(map(len, parts)))]

    def first(self, value: Item) -> Item:
        """What rank 0 says."""
        return value

    def attempt(self, work: Callable[[], Item]) -> tuple[list[Item | None], Failure | None]:
        """Everybody's result of ``work``, by rank, None where it failed; and the failure of the first rank that did, the same for all."""
        own, mine = _tried(work)
        found = self.gather((own, _worded(mine, by=self)))
        failed = next((rank for rank, (_, word) in enumerate(found) if word), None)
        return [value for value, _ in found], mine if failed in (None, self.number) else _failure(found[failed][1])

    def by_first(self, work: Callable[[], Item]) -> Item:
        """What rank 0 alone makes of ``work``, for all; if it fails there, it fails for all."""
        own, mine = _tried(work) if self.number == 0 else (None, None)
        found, word = self.first((own, _worded(mine, by=self)))
        if failure := mine or _failure(word):
            raise failure
        return found  # type: ignore[return-value]  # no failure: it is there

    def add(self, tensors: Sequence["Tensor"]) -> None:
        """Every tensor becomes the sum of everybody's, in place."""

    def add_gradients(self, parameters: Iterable["nn.Parameter"]) -> None:
        """Every gradient becomes the sum of everybody's; a missing one counts as 0."""


class Group(Ranks):
    """One of several processes that a launcher started. ``sees``: the device that each of them would take."""

    idle = True
    """whether the others wait for an order of rank 0's; only that one knows"""

    def __init__(self, number: int, count: int, store: "Store", sees: Sequence[str]):
        self.number, self.count, self.sees = number, count, tuple(sees)
        self._store = store

    def gather(self, value: Item) -> list[Item]:
        import torch.distributed as dist

        found: list[Any] = [None] * self.count
        with self._meeting():
            dist.all_gather_object(found, value)
        return found

    def first(self, value: Item) -> Item:
        import torch.distributed as dist

        found = [value]
        with self._meeting():
            dist.broadcast_object_list(found, src=0)
        return found[0]

    def add(self, tensors: Sequence["Tensor"]) -> None:
        import torch.distributed as dist

        if any(tensor.is_cuda for tensor in tensors):
            self.gather(None)  # NCCL would wait for a rank that has ended; gloo notices
        with self._meeting():
            for tensor in tensors:
                dist.all_reduce(tensor)

    def tell(self, failure: Failure) -> None:
        """Leave word of what ends this process, for those who wait for it somewhere. The first word of all stays."""
        with suppress(RuntimeError):  # without a launcher's, the store is rank 0's, and may have ended with it
            self._store.compare_set(LAST_WORD, "", json.dumps(_worded(failure, by=self)))

    def leave(self, *, whole: bool) -> None:
        """Close the connections, without which gloo's threads abort a process at its end now and then. ``whole``: the others do so too."""
        import torch.distributed as dist

        if whole or set(self.sees) != {"cuda"}:  # NCCL might wait for who is gone
            with suppress(RuntimeError):
                dist.destroy_process_group()

    @contextmanager
    def _meeting(self) -> Iterator[None]:
        """Where a rank has ended and left word, that is the failure, and not the connection which it closed."""
        try:
            yield
        except RuntimeError as e:
            if failure := self._last_word():
                raise failure from e
            raise

    def _last_word(self) -> Failure | None:
        with suppress(RuntimeError):
            return _failure(json.loads(self._store.get(LAST_WORD))) if self._store.check([LAST_WORD]) else None
        return None

    def add_gradients(self, parameters: Iterable["nn.Parameter"]) -> None:
        import torch

        learning = list(parameters)
        flat = torch.cat([(p.grad if p.grad is not None else torch.zeros_like(p)).flatten().float() for p in learning])
        self.add([flat])
        for p, grad in zip(learning, flat.split([p.numel() for p in learning]), strict=True):
            p.grad = grad.view_as(p).to(p.dtype)


ALONE = Ranks()
_met: Group | None = None  # a process meets the others once


def several() -> bool:
    """Whether a launcher (accelerate, torchrun) started this process as one of several."""
    return _met is not None or int(os.environ.get("WORLD_SIZE", "1")) > 1


def launched() -> int:
    """My number among them; 0 for the first, and for one alone."""
    return _met.number if _met else int(os.environ.get("RANK", "0")) if several() else 0


def forget() -> None:
    """Take what tells of other processes out of the environment: for the trainers that lite borrows, which would deal out the same rows
    once more, and for processes that this one starts."""
    for name in LAUNCHED:
        os.environ.pop(name, None)


def own_card(environment: Mapping[str, str]) -> dict[str, str]:
    """What is to change in the environment, so that a process sees no card but that of its local rank, as its first.

    The trainers that lite borrows take the first card that they see. Where there is none to be seen (an empty list, -1) nothing changes.
    """
    local, listed = int(environment.get("LOCAL_RANK", "0")), environment.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return {"CUDA_VISIBLE_DEVICES": str(local), "LOCAL_RANK": "0"}
    cards = list(takewhile(lambda card: card and not card.startswith("-"), map(str.strip, listed.split(","))))  # where CUDA stops too
    if cards and local >= len(cards):
        raise PreconditionError(
            f"CUDA_VISIBLE_DEVICES={listed} names {len(cards)} GPU(s), and this is process {local + 1} of this machine (LOCAL_RANK={local}): "
            "start as many processes as it names, name more, or none (CUDA_VISIBLE_DEVICES=) for base.device=cpu"
        )
    return {"CUDA_VISIBLE_DEVICES": cards[local], "LOCAL_RANK": "0"} if cards else {}


def join(patience: timedelta = MEETING) -> Ranks:
    """Meet the other processes that a launcher started; alone if there are none. To be called before anything touches CUDA.

    All that come do so within ``patience``; what they do together afterwards may take :data:`PATIENCE`.
    """
    global _met
    if _met or not several():
        return _met or ALONE
    os.environ.update(own_card(os.environ))
    import torch
    import torch.distributed as dist

    number, count = launched(), int(os.environ["WORLD_SIZE"])
    if torch.cuda.is_available():
        torch.cuda.set_device(0)
    with _ctrl_c_ends_it():
        store, sees = _meet(number, count, "cuda" if torch.cuda.is_available() else "cpu", patience)
    backend = "cpu:gloo,cuda:nccl" if set(sees) == {"cuda"} else "gloo"
    dist.init_process_group(backend, store=store, rank=number, world_size=count, timeout=PATIENCE)
    forget()
    _met = Group(number, count, store, sees)
    return _met


def _meet(number: int, count: int, device: str, patience: timedelta) -> tuple["Store", list[str]]:
    """What all processes write to and read from, and each one's device."""
    import torch.distributed as dist

    where = ":".join(os.environ.get(name) or f"({name} is not set)" for name in ("MASTER_ADDR", "MASTER_PORT"))
    keys = [f"lite/device/{rank}" for rank in range(count)]
    try:
        store, _, _ = next(dist.rendezvous("env://", number, count, timeout=patience))
        store.set(keys[number], device)
        store.wait(keys, patience)
        store.set_timeout(PATIENCE)
        return store, [store.get(key).decode() for key in keys]
    except (RuntimeError, ValueError) as e:
        raise PreconditionError(
            f"this is rank {number} of {count} (RANK, WORLD_SIZE), which were to meet at {where} within {patience.total_seconds():g} s, and "
            f"not all came ({str(e).partition(chr(10))[0]}); start them together with torchrun or accelerate launch, or unset RANK and "
            "WORLD_SIZE to run alone"
        ) from e


@contextmanager
def _ctrl_c_ends_it() -> Iterator[None]:
    """Python's own handler would wait until torch comes back."""
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _tried(work: Callable[[], Item]) -> tuple[Item | None, Failure | None]:
    try:
        return work(), None
    except (LiteError, Stopped) as e:
        return None, e


def _worded(failure: Failure | None, *, by: Ranks) -> Word | None:
    return (type(failure).__name__, f"rank {by.number}: {failure}") if failure else None


def _failure(word: Word | None) -> Failure | None:
    """The failure again: of the same kind, so that the exit code is the same."""
    if word is None:
        return None
    kind, message = getattr(errors, word[0]), word[1]
    return kind.__new__(kind, message)
