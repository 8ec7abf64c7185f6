"""SIGTERM and a first Ctrl-C ask the run to stop where nothing is lost; a second Ctrl-C ends it at once, with exit code 130."""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

STOPPED = 75
"""Exit code of a run that was stopped and can be resumed (EX_TEMPFAIL: schedulers queue it again)."""
INTERRUPTED = 130
GRACE_SECONDS = 0.8
"""So long a process may take to end in good order after the second Ctrl-C."""


class Switch:
    """Installed for the length of a ``with`` block; ``asked()`` is what stages look at."""

    def __init__(self, say: Callable[[str], None]):
        self._say, self._asked, self._before = say, False, {}
        self._before: dict[int, Any] = {}

    def asked(self) -> bool:
        return self._asked

    def __enter__(self) -> "Switch":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._first)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _first(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, self._second)
        self._say("stopping after this step; Ctrl-C once more ends at once" if number == signal.SIGINT else "stopping after this step")

    def _second(self, number: int, frame: FrameType | None) -> None:
        """Unwind, so that the run's state is written; if that takes too long, end all the same. What comes after is not heard."""
        self._before.clear()  # nor once the block is left: a third Ctrl-C would end the process by signal
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)
        timer = threading.Timer(GRACE_SECONDS, os._exit, (INTERRUPTED,))
        timer.daemon = True
        timer.start()
        raise KeyboardInterrupt
