"""What a stage has finished, shard by shard, in an append-only journal: a killed stage repeats one shard at most.

Stages use it through their bench, in a line or two:

    def make(which: list[int]) -> list[Any]:  # one JSON value per position, in order; seeds by place, never by shard
        ...
    values = bench.by_shard("replies", [row.id for row in rows], make, size=256)

``lite.stages.drawing.draw`` is that for responses of a model. A line of the journal is one shard, ``{"digest": ..., "rows":
{key: value}}``, flushed to disk before the next one begins. A torn or damaged line ends the journal: it and what follows are cut
off and made again.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lite.runs.publish import dumps


class Shards:
    """The journal of one file. ``rows`` holds the finished values by key, ``dropped`` the bytes that a torn end had."""

    def __init__(self, file: Path):
        self.file, self.dropped = file, 0
        self.rows: dict[str, Any] = {}
        if not file.is_file():
            return
        good = 0
        whole = file.read_bytes()
        for line in whole.splitlines(keepends=True):
            found = _parse(line)
            if found is None:
                break
            self.rows |= found
            good += len(line)
        self.dropped = len(whole) - good
        if self.dropped:
            os.truncate(file, good)

    def add(self, rows: Mapping[str, Any]) -> dict[str, Any]:
        """Keep one finished shard; its values as a later reader will find them (JSON knows no tuples, so there are none here either)."""
        body = dumps(rows)
        size = self.file.stat().st_size if self.file.is_file() else 0
        try:
            with self.file.open("ab") as f:
                f.write(_line(body))
                f.flush()
                os.fsync(f.fileno())
        except OSError:  # a full disk: half a line would be cut off later anyway
            if self.file.is_file():
                os.truncate(self.file, size)
            raise
        kept = json.loads(body)
        self.rows |= kept
        return kept


def _line(body: str) -> bytes:
    return f'{{"digest": "{_digest(body)}", "rows": {body}}}\n'.encode()


def _parse(line: bytes) -> dict[str, Any] | None:
    """The rows of a line, if it is as it was written."""
    try:
        body = line.decode()[HEAD:-2]
        return json.loads(body) if line == _line(body) else None
    except ValueError:
        return None


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:16]


HEAD = len(_line("")) - 2
"""Characters before the rows in a line."""


def divide(n: int, size: int, groups: Sequence[int] | None = None) -> list[list[int]]:
    """Positions 0 .. n-1 in consecutive shards of about ``size``: a shard ends at the first place from there on where the group changes.

    The same for the same work, whatever is done of it already: that keeps the batches, and with them the last bits, the same.
    """
    shards: list[list[int]] = []
    for i in range(n):
        if not shards or (len(shards[-1]) >= size and (groups is None or groups[i] != groups[i - 1])):
            shards.append([])
        shards[-1].append(i)
    return shards
