"""What a run writes about itself while it goes: run.json, events.jsonl, log.txt, and per stage metrics.jsonl and samples.jsonl."""

import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lite.errors import LockError, PreconditionError
from lite.runs import publish
from lite.runs.layout import RunFolder, StageFolder, new_run_name

SECRET = re.compile(
    r"\b(hf_|sk-|ghp_)[A-Za-z0-9_-]{8,}|(?i:bearer\s+)[A-Za-z0-9._~+/=-]{8,}|(?i:(?:wandb_api_key|token|password)\s*[=:]\s*)\S{8,}"
)
CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")


Track = Callable[[str, Mapping[str, Any]], None]
"""(stage, figures)"""


def untracked(stage: str, values: Mapping[str, Any]) -> None:
    """Nobody else is told; ``lite.runs.trackers`` puts a tracker in this place."""


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def clean(text: str) -> str:
    """A text for the log: no terminal control characters, nothing that looks like a credential."""
    return SECRET.sub("<secret>", CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))


def append_line(path: Path, line: str) -> None:
    """Add one line; what a killed writer left unfinished before it is dropped."""
    with path.open("ab+") as f:
        size = f.seek(0, os.SEEK_END)
        if size:
            f.seek(-1, os.SEEK_END)
            if f.read(1) != b"\n":
                f.truncate(_last_newline(path) + 1)
        f.write(line.encode() + b"\n")


def _last_newline(path: Path) -> int:
    return path.read_bytes().rfind(b"\n")


class StageJournal:
    def __init__(self, folder: StageFolder):
        self.folder = folder

    def metric(self, **values: Any) -> None:
        append_line(self.folder.metrics, publish.dumps({"at": now(), **values}))

    def show(self, **values: Any) -> None:
        append_line(self.folder.samples, publish.dumps(values))

    def sizes(self) -> dict[str, int]:
        """How many bytes of figures there are by now, on the disk and not only on their way."""
        found = {}
        for file in (self.folder.metrics, self.folder.samples):
            if file.is_file():
                with file.open("rb") as f:
                    os.fsync(f.fileno())
                    found[file.name] = f.seek(0, os.SEEK_END)
        return found

    def cut(self, sizes: Mapping[str, int]) -> None:
        """Take the figures back to what they were: those of steps that are done again would stand there twice."""
        for file in (self.folder.metrics, self.folder.samples):
            if not sizes.get(file.name):
                file.unlink(missing_ok=True)
            elif file.is_file() and file.stat().st_size > sizes[file.name]:
                os.truncate(file, sizes[file.name])


class Journal:
    """The one writer of a run's run.json, events and log."""

    PROGRESS_SECONDS = 2.0
    LOG_BYTES = 2 * 2**20
    """A longer log becomes the older one, in place of the one before: a library that warns at every step fills no disk."""

    def __init__(self, run: RunFolder, facts: dict[str, Any] | None = None):
        self.run, self.facts = run, dict(facts or {})
        self._guard = threading.Lock()
        self._progress_at = 0.0
        self.track: Track = untracked  # told every line of a stage's metrics

    @classmethod
    def create(cls, runs: Path, label: str) -> "Journal":
        while True:
            run = RunFolder(runs / new_run_name(label))
            try:
                run.path.mkdir(parents=True)
            except OSError as e:
                if run.path.exists():  # another run of the same moment and number
                    continue
                raise PreconditionError(f"{run.path}: cannot be made ({e.strerror}); choose another place with --runs") from e
            return cls(run)

    def update(self, **facts: Any) -> None:
        """Merge the facts into run.json, which is replaced at once."""
        with self._guard:
            self.facts |= facts
            publish.write_json(self.run.run, self.facts)

    def progress(self, done: int, total: int, unit: str, what: str) -> None:
        """How far the running stage is; written every two seconds at most."""
        if time.monotonic() - self._progress_at < self.PROGRESS_SECONDS:
            return
        self._progress_at = time.monotonic()
        self.update(progress={"what": what, "done": done, "total": total, "unit": unit, "at": now()})

    def event(self, event: str, **values: Any) -> None:
        append_line(self.run.events, publish.dumps({"at": now(), "event": event, **values}))

    def log(self, text: str) -> None:
        if self.run.log.is_file() and self.run.log.stat().st_size > self.LOG_BYTES:
            os.replace(self.run.log, self.run.older_log)
        append_line(self.run.log, "\n".join(f"{now()} {line}" for line in clean(text).splitlines()) or now())

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the run's lock, so that two processes never write one run; the system lets go of it when a process dies."""
        with self.run.lock.open("a") as f:
            for _ in range(10):  # a reader that asks whether the run is alive has the lock for a moment
                if try_lock(f.fileno()):
                    break
                time.sleep(0.05)
            else:
                raise LockError(f"{self.run.path}: another process is running this run (lock held); wait for it or stop it")
            yield


def try_lock(handle: int) -> bool:
    try:
        import fcntl
    except ImportError:  # no such locks on Windows
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
