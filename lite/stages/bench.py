"""What a stage may use besides its inputs: the shared base, seeds, progress and the run's journal."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lite.chance import seed_for
from lite.errors import Stopped
from lite.runs.checkpoints import Checkpoint, Checkpoints
from lite.runs.ranks import ALONE, Ranks
from lite.runs.shards import Shards, divide
from lite.tasks import Task

if TYPE_CHECKING:  # a stage that needs no base does not wait for the libraries behind it
    from lite.model.bank import AdapterBank


class Progress(Protocol):
    def advance(self, n: int = 1, **figures: float) -> None:
        """``n`` units are done; the figures stand beside the bar."""


class Reporter(Protocol):
    """The run's side of the bench; the engine brings it."""

    def progress(self, total: int, unit: str, what: str) -> AbstractContextManager[Progress]: ...

    def metric(self, **values: Any) -> None:
        """One line of metrics.jsonl."""

    def show(self, **values: Any) -> None:
        """One line of samples.jsonl."""

    def log(self, text: str) -> None: ...

    def figures(self) -> Mapping[str, int]:
        """How long the files of figures are by now, in bytes."""
        ...


def never() -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class Desk:
    """Where one piece of work is done: its seeds, its voice, its checkpoints. A stage's has a task besides.

    ``stop_asked`` tells whether the user wants the run to end at the next place where nothing is lost; ``resumed`` is the checkpoint
    that a training goes on from: the figures have been taken back to it already. ``ranks``: the processes that do the work by turns.
    """

    seed: int
    stage: str
    ckpt: Path
    reporter: Reporter
    load_bank: Callable[[], "AdapterBank"]
    stop_asked: Callable[[], bool] = never
    resumed: Checkpoint | None = None
    ranks: Ranks = ALONE

    def seed_for(self, *names: str | int) -> int:
        """The seed of one draw of this stage, by its place."""
        return seed_for(self.seed, self.stage, *names)

    def bank(self) -> "AdapterBank":
        """The shared base with no adapter on it; loaded at first use and kept for the next stage."""
        bank = self.load_bank()
        bank.clear()
        return bank

    def progress(self, total: int, unit: str, what: str) -> AbstractContextManager[Progress]:
        return self.reporter.progress(total, unit, what)

    def metric(self, **values: Any) -> None:
        self.reporter.metric(**values)

    def show(self, **values: Any) -> None:
        self.reporter.show(**values)

    def log(self, text: str) -> None:
        self.reporter.log(text)

    def pause(self) -> None:
        """A place where the stage may be stopped: raises :class:`Stopped` if the user asked for it. All ranks come by it together."""
        if self.ranks.first(self.stop_asked()):
            raise Stopped

    def pause_inside(self) -> None:
        """The same, where ranks are each at work of their own: several do not stop there."""
        if self.ranks.count == 1:
            self.pause()

    def pause_first(self) -> None:
        """The same, in what rank 0 alone does for all: :meth:`Ranks.by_first` tells those who wait for it."""
        if self.stop_asked():
            raise Stopped

    @cached_property
    def checkpoints(self) -> Checkpoints:
        return Checkpoints(self.ckpt)

    def keep(self, step: int, of: int, write: Callable[[Path], None], *, every: int) -> None:
        """After ``step`` of ``of`` steps, all their figures told: ``write`` a checkpoint into a folder if one is due, and stop if asked to.

        One is due after every ``every`` steps, after ten minutes, and before a stop.
        """
        stop = self.ranks.first(self.stop_asked())
        if self.ranks.number == 0 and (stop or self.checkpoints.due(step, every)):
            with self.checkpoints.write(step, of, self.reporter.figures()) as folder:
                write(folder)
        if stop:
            raise Stopped

    def by_shard(
        self,
        name: str,
        keys: Sequence[str],
        make: Callable[[list[int]], Sequence[Any]],
        *,
        size: int,
        groups: Sequence[int] | None = None,
        bar: Progress | None = None,
    ) -> list[Any]:
        """One JSON value per key, made in shards of about ``size``; what a stopped or killed run of this stage has made is taken over.

        ``make`` is given positions in ``keys`` and returns a JSON value for each, in order. A value may depend on its key, never on
        the others of its shard. ``name`` names the work inside the stage; work with the same name must be the same work.
        ``groups``: one number per key; neighbours with the same number stay in one shard. ``bar`` is advanced by what is taken over;
        ``make`` advances it for what it makes. Several ranks make a shard each at a time; if one fails at it, what the others made is kept.
        """
        if len(set(keys)) != len(keys):
            raise ValueError(f"{name}: {len(keys)} keys, {len(set(keys))} of them different")
        ranks, shards = self.ranks, Shards(self.ckpt / f"{name}.jsonl")
        shards.rows = ranks.first(shards.rows)
        if shards.dropped:
            self.log(f"{name}: the last shard was written in part or damaged ({shards.dropped} bytes); it is made again")
        if taken := sum(key in shards.rows for key in keys):
            self.log(f"{name}: goes on after {taken} of {len(keys)}")
            if bar:
                bar.advance(taken)
        todo = [left for shard in divide(len(keys), size, groups) if (left := [i for i in shard if keys[i] not in shards.rows])]
        for begin in range(0, len(todo), ranks.count):
            self.pause()
            turn = todo[begin : begin + ranks.count]
            own = ranks.mine(turn)
            made, failure = ranks.attempt(partial(_made, make, own))
            for shard, values in zip(turn, made, strict=False):  # at the end some ranks have none
                if values is not None:
                    shards.add({keys[i]: value for i, value in zip(shard, values, strict=True)})
            if failure:
                raise failure
            if bar and (others := sum(map(len, turn)) - sum(map(len, own))):
                bar.advance(others)
        return [shards.rows[key] for key in keys]


def _made(make: Callable[[list[int]], Sequence[Any]], own: Sequence[list[int]]) -> list[Any]:
    return list(make(own[0])) if own else []


@dataclass(frozen=True, kw_only=True)
class Bench(Desk):
    """The desk of a run's stage."""

    task: Task
