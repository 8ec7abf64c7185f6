"""Progress and messages on stderr: bars on a terminal, one plain line every ten seconds elsewhere. Standard output is never touched."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

BAR = 16
"""Columns of the bar itself."""


def duration(seconds: float) -> str:
    """``75`` -> ``1m15s``."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


def figure(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def fitting(parts: Iterable[str], width: int) -> str:
    """As many of the parts, in their order, as fit on the rest of a line: a terminal would cut the last one short."""
    line = ""
    for part in filter(None, parts):
        longer = f"{line}  {part}" if line else part
        if len(longer) > width:
            break
        line = longer
    return line


class Counter:
    """How far one piece of work is. ``report`` is called after every advance."""

    def __init__(self, total: int, report: Callable[["Counter"], None]):
        self.total, self.done, self.figures = total, 0, {}
        self._report, self._started = report, time.monotonic()

    def advance(self, n: int = 1, **figures: Any) -> None:
        self.done += n
        self.figures |= figures
        self._report(self)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    @property
    def rate(self) -> float:
        """Units a second."""
        return self.done / max(self.seconds, 1e-9)

    @property
    def left(self) -> float | None:
        """Seconds to go at this rate."""
        return (self.total - self.done) / self.rate if self.done else None

    def figures_text(self) -> str:
        return "  ".join(f"{name} {figure(value)}" for name, value in self.figures.items())


class Screen:
    """The terminal, or whatever stands in for it."""

    PLAIN_SECONDS = 10.0

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None):
        self.stream = stream or sys.stderr
        self.quiet = quiet
        self.live = not quiet and self.stream.isatty()
        self._bars: Any = None
        self._open = 0

    def say(self, text: str) -> None:
        if self.quiet:
            return
        if self._bars is not None:
            self._bars.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=self.stream, flush=True)

    @contextmanager
    def progress(self, stage: str, total: int, unit: str, what: str, watch: Callable[[Counter], None]) -> Iterator[Counter]:
        """A counter whose advance is shown, and told to ``watch``."""
        label = what if what.startswith(stage) else f"{stage}: {what}" if what else stage
        with self._bar(label, total, unit) if self.live else self._plain(label, unit) as show:

            def report(counter: Counter) -> None:
                show(counter)
                watch(counter)

            yield Counter(total, report)

    @contextmanager
    def _plain(self, label: str, unit: str) -> Iterator[Callable[[Counter], None]]:
        said = time.monotonic()

        def show(counter: Counter) -> None:
            nonlocal said
            if time.monotonic() - said < self.PLAIN_SECONDS:
                return
            said = time.monotonic()
            left = "" if counter.left is None else f", {duration(counter.left)} left"
            self.say(f"{label} {counter.done}/{counter.total} {unit} ({counter.rate:.3g}/s{left}) {counter.figures_text()}".rstrip())

        yield show

    @contextmanager
    def _bar(self, label: str, total: int, unit: str) -> Iterator[Callable[[Counter], None]]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        if self._bars is None:
            columns = (TextColumn("{task.description}"), BarColumn(BAR), MofNCompleteColumn(), TextColumn("{task.fields[note]}"))
            self._bars = Progress(*columns, console=Console(file=self.stream), transient=True)
            self._bars.start()
        self._open += 1
        task = self._bars.add_task(label, total=total, note=unit)

        def show(counter: Counter) -> None:
            left = "" if counter.left is None else f"{duration(counter.left)} left"
            taken = len(label) + BAR + 2 * len(str(total)) + 4
            note = fitting([f"{unit} {counter.rate:.3g}/s", left, *counter.figures_text().split("  ")], self._bars.console.width - taken)
            self._bars.update(task, completed=counter.done, note=note)

        try:
            yield show
        finally:
            self._bars.remove_task(task)
            self._open -= 1
            if self._open == 0:
                self._bars.stop()
                self._bars = None
