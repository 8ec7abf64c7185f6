"""What a stage may use besides its inputs: the shared base, seeds, progress and the run's journal."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lite.chance import seed_for
from lite.errors import Stopped
from lite.runs.checkpoints import Checkpoint, Checkpoints
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
    that a training goes on from: the figures have been taken back to it already."""

    seed: int
    stage: str
    ckpt: Path
    reporter: Reporter
    load_bank: Callable[[], "AdapterBank"]
    stop_asked: Callable[[], bool] = never
    resumed: Checkpoint | None = None

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
        """A place where the stage may be stopped: raises :class:`Stopped` if the user asked for it."""
        if self.stop_asked():
            raise Stopped

    @cached_property
    def checkpoints(self) -> Checkpoints:
        return Checkpoints(self.ckpt)

    def keep(self, step: int, of: int, write: Callable[[Path], None], *, every: int) -> None:
        """After ``step`` of ``of`` steps, all their figures told: ``write`` a checkpoint into a folder if one is due, and stop if asked to.

        One is due after every ``every`` steps, after ten minutes, and before a stop.
        """
        if self.stop_asked() or self.checkpoints.due(step, every):
            with self.checkpoints.write(step, of, self.reporter.figures()) as folder:
                write(folder)
        self.pause()

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
        ``make`` advances it for what it makes.
        """
        if len(set(keys)) != len(keys):
            raise ValueError(f"{name}: {len(keys)} keys, {len(set(keys))} of them different")
        shards = Shards(self.ckpt / f"{name}.jsonl")
        if shards.dropped:
            self.log(f"{name}: the last shard was written in part or damaged ({shards.dropped} bytes); it is made again")
        if taken := sum(key in shards.rows for key in keys):
            self.log(f"{name}: goes on after {taken} of {len(keys)}")
            if bar:
                bar.advance(taken)
        for shard in divide(len(keys), size, groups):
            todo = [i for i in shard if keys[i] not in shards.rows]
            if todo:
                self.pause()
                made = make(todo)
                shards.add({keys[i]: value for i, value in zip(todo, made, strict=True)})
        return [shards.rows[key] for key in keys]


@dataclass(frozen=True, kw_only=True)
class Bench(Desk):
    """The desk of a run's stage."""

    task: Task
