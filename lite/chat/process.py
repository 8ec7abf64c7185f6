"""The chat process as others see it: started on demand, one at a time, stopped when a run needs the card. Torch-free."""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from lite.errors import LockError, PreconditionError
from lite.knobs import BaseSpec

SECONDS_TO_OPEN = 600.0
SECONDS_OF_SILENCE = 120.0


class ChatProcess:
    """At most one process with one base; asking for another base replaces it. Safe to be used from several threads."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._base: BaseSpec | None = None
        self._events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._complaints: deque[str] = deque(maxlen=20)
        self._turn = threading.Lock()
        self._next = 0
        self.device = ""

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self.alive else None

    @property
    def busy(self) -> bool:
        return self._turn.locked()

    def is_open(self, base: BaseSpec) -> bool:
        return self.alive and self._base == base

    def say(
        self, base: BaseSpec, adapter: Path | None, prompt: str, *, seed: int, max_new_tokens: int, temperature: float, top_p: float
    ) -> Generator[dict[str, Any]]:
        """The events of one reply, the last of them ``end``; the base is opened first if it is not.

        Raises :class:`LockError` while another reply is being written, :class:`PreconditionError` with what the process said.
        """
        if not self._turn.acquire(timeout=1):
            raise LockError("another reply is being written; wait for it or stop it")
        try:
            if not self.is_open(base):
                self._open(base)
            self._next += 1
            self._send(
                do="say", id=self._next, adapter=str(adapter.resolve()) if adapter else None, prompt=prompt, seed=seed,
                max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p,
            )  # fmt: skip
            yield from self._until_end(self._next)
        finally:
            self._turn.release()

    def _until_end(self, id: int) -> Iterator[dict[str, Any]]:
        ended = False
        try:
            while not ended:
                event = self._event(SECONDS_OF_SILENCE)
                if event.get("id") == id:
                    ended = event["event"] == "end"
                    yield event
        finally:
            if not ended and self.alive:  # nobody listens any more: the rest need not be written
                self._send(do="stop")

    def hush(self) -> None:
        """End the reply that is being written."""
        if self.alive:
            self._send(do="stop")

    def stop(self) -> None:
        """End the process; its memory is free when this returns."""
        process, self._process, self._base = self._process, None, None
        if process is None:
            return
        if process.poll() is None:
            process.kill()  # it holds nothing that could be lost
        process.wait(timeout=30)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe:
                with suppress(OSError):
                    pipe.close()

    def _open(self, base: BaseSpec) -> None:
        self.stop()
        self._events, self._complaints = queue.Queue(), deque(maxlen=20)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lite.chat.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            start_new_session=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        threading.Thread(target=_read, args=(self._process.stdout, self._events), daemon=True).start()
        threading.Thread(target=_collect, args=(self._process.stderr, self._complaints), daemon=True).start()
        self._send(do="open", base=base.model_dump(mode="json"))
        ready = self._event(SECONDS_TO_OPEN)
        self._base, self.device = base, str(ready.get("device", ""))

    def _send(self, **request: Any) -> None:
        process = self._process
        if process is None or process.stdin is None:
            return
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        except (OSError, ValueError):  # it has gone; the next event says so
            pass

    def _event(self, seconds: float) -> dict[str, Any]:
        """The next event; an error that the process tells, or its death, is raised."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                event = self._events.get(timeout=0.5)
            except queue.Empty:
                continue
            if event is None:
                last = next((line for line in reversed(self._complaints) if line.strip()), "it said nothing")
                raise PreconditionError(f"the chat process has ended ({last.strip()}); a run that started may have needed the card")
            if event.get("event") == "error":
                raise PreconditionError(str(event.get("message")))
            return event
        self.stop()
        raise PreconditionError(f"the chat process said nothing for {seconds:.0f} seconds and was ended; try again")


def _read(pipe: Any, events: "queue.Queue[dict[str, Any] | None]") -> None:
    try:
        for line in pipe:
            events.put(json.loads(line))
    except ValueError:  # the pipe was closed, or the process died inside a line
        pass
    events.put(None)


def _collect(pipe: Any, lines: deque[str]) -> None:
    with suppress(ValueError):  # closed
        lines.extend(pipe)
