"""Answers of a judge on disk: what was asked once is not asked, or paid for, again.

One JSON object a line, added at once and never changed. A line that a killed writer left unfinished is passed over, and the next
line begins on its own. Several processes may share a file.
"""

import hashlib
import json
import os
import threading
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from lite.runs.read import lines

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model generated. ``cut``: it came to its limit; ``refused``: it, or a filter before it, would not answer."""

    text: str
    cut: bool = False
    refused: bool = False
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


def key_of(**question: Any) -> str:
    """The identity of a question: sha256 of all that decides its answer."""
    return hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()


class AnswerCache:
    """A mapping from key to answer; without a path it lasts as long as the object."""

    def __init__(self, path: Path | None = None):
        self.path = path
        self._guard = threading.Lock()
        self._answers: dict[str, Answer] = {}
        for row in lines(path) if path else ():
            if answer := _read(row):
                self._answers[row["key"]] = answer

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: str) -> Answer | None:
        return self._answers.get(key)

    def put(self, key: str, answer: Answer) -> None:
        with self._guard:
            self._answers[key] = answer
            if self.path:
                _append(self.path, json.dumps({"key": key, **asdict(answer)}))  # ASCII: no text of a model breaks a line


def _read(row: dict[str, Any]) -> Answer | None:
    names = [field.name for field in fields(Answer)]
    if not isinstance(row.get("key"), str) or not isinstance(row.get("text"), str) or not all(name in row for name in names):
        return None
    return Answer(**{name: row[name] for name in names})


def _append(path: Path, line: str) -> None:
    """One write at the end of the file, under its lock: no writer takes the half of another's line for a torn one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
    try:
        if fcntl:  # freed by closing; where there is none (Windows) one process writes at a time
            fcntl.flock(handle, fcntl.LOCK_EX)
        size = os.lseek(handle, 0, os.SEEK_END)
        torn = size > 0 and _last_byte(handle, size) != b"\n"
        os.write(handle, (b"\n" if torn else b"") + line.encode() + b"\n")
        os.fsync(handle)
    finally:
        os.close(handle)


def _last_byte(handle: int, size: int) -> bytes:
    os.lseek(handle, size - 1, os.SEEK_SET)
    return os.read(handle, 1)
