"""What a stage may use besides its inputs: the shared base, seeds, progress and the run's journal."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lite.chance import seed_for
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


@dataclass(frozen=True)
class Bench:
    task: Task
    seed: int
    stage: str
    ckpt: Path
    reporter: Reporter
    load_bank: Callable[[], "AdapterBank"]

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
