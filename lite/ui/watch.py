"""Runs as the page shows them: rows of a list, stages with progress and time to go, the end of a log. Reads, never writes."""

import json
import os
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from lite.contracts import CONTRACTS
from lite.runs import read
from lite.runs.journal import clean
from lite.runs.layout import StageFolder, stage_of
from lite.runs.read import Run

LIVE = ("running", "queued", "stopping")
StageState = Literal["done", "running", "waiting", "stopped"]
TAIL_BYTES = 64 * 1024


@dataclass(frozen=True)
class RunRow:
    """One line of the list of runs. ``seconds``: from start to end, or until now."""

    name: str
    recipe: str
    label: str | None
    base: str
    state: str
    stage: str
    number: int
    stages: int
    started: datetime | None
    seconds: float | None
    headline: str
    changed: str = ""
    """the overrides that it was started with"""

    @property
    def live(self) -> bool:
        return self.state in LIVE


@dataclass(frozen=True)
class StageView:
    """One stage of the strip. ``share``: how much of it is done, 0 to 1; ``left``: seconds to go."""

    number: int
    id: str
    kind: str
    state: StageState
    seconds: float | None = None
    share: float | None = None
    left: float | None = None
    what: str = ""
    reused: bool = False

    @property
    def about(self) -> str:
        return CONTRACTS[self.kind].about if self.kind in CONTRACTS else ""


def rows(runs: Path) -> list[RunRow]:
    """All runs, the newest first."""
    return [row(run) for run in reversed(read.all_runs(runs))]


def row(run: Run, now: datetime | None = None) -> RunRow:
    facts, state = run.facts, run.state
    started, finished = moment(facts.get("resumed") or facts.get("started")), moment(facts.get("finished"))
    end = (now or datetime.now(UTC)) if state in LIVE else finished
    return RunRow(
        name=run.name,
        recipe=run.recipe,
        label=facts.get("name"),
        base=base_of(run),
        state=state,
        stage=str(facts.get("stage") or ""),
        number=int(facts.get("number") or 0),
        stages=int(facts.get("stages") or 0),
        started=moment(facts.get("started")),
        seconds=(end - started).total_seconds() if started and end else None,
        headline=headline(run.report()) if state == "done" else "",
        changed=" ".join(map(str, facts.get("overrides") or ())).replace('"', ""),
    )


def base_of(run: Run) -> str:
    """The base's name, from resolved.yaml's first lines: a whole parse for every row of a list would be slow."""
    try:
        with run.folder.resolved.open(encoding="utf-8") as f:
            for line in (f.readline() for _ in range(4)):
                if line.strip().startswith("model:"):
                    return line.partition(":")[2].strip().strip("'\"")
    except OSError:
        pass
    return ""


def headline(report: dict[str, Any]) -> str:
    """The one figure of a run: the trained model's success beside the base's."""
    models = report.get("models") or {}
    trained = [name for name in models if name not in ("base", "p_plus")]
    for key, form in (("success", "{:.0%} succeed (base {:.0%})"), ("reward", "reward {:.2f} (base {:.2f})")):
        if trained and all(isinstance(models.get(name, {}).get(key), int | float) for name in (trained[-1], "base")):
            return form.format(models[trained[-1]][key], models["base"][key])
    return ""


def stages(run: Run, now: datetime | None = None) -> list[StageView]:
    """The plan's stages and how far each is; the stages on disk where there is no plan to read."""
    records = {record.id: record for record in run.stages()}
    planned = read.read_json(run.folder.plan).get("stages")
    known = planned if isinstance(planned, list) else [record.facts for record in records.values() if record.facts]
    running, state = run.facts.get("stage"), run.state
    found = []
    for n, facts in enumerate((f for f in known if isinstance(f, dict)), 1):
        id, kind = str(facts.get("id", "")), str(facts.get("kind", ""))
        record = records.get(id)
        if id == running and state in LIVE and not (record and record.done):
            found.append(_running(n, id, kind, run, record, now or datetime.now(UTC)))
        elif record and record.done and record.fingerprint == facts.get("fingerprint", record.fingerprint):
            found.append(StageView(n, id, kind, "done", record.seconds, 1.0, reused="taken_from" in record.facts))
        else:
            found.append(StageView(n, id, kind, "stopped" if id == running else "waiting"))
    return found


def _running(n: int, id: str, kind: str, run: Run, record: read.StageRecord | None, now: datetime) -> StageView:
    progress = run.facts.get("progress") or {}
    begun, told = moment(record.facts.get("started")) if record else None, moment(progress.get("at"))
    seconds = (now - begun).total_seconds() if begun else None
    done, total = progress.get("done"), progress.get("total")
    if begun is None or told is None or told < begun or not done or not total:
        return StageView(n, id, kind, "running", seconds)
    left = (told - begun).total_seconds() * (total - done) / done - (now - told).total_seconds()
    what = f"{done} of {total} {progress.get('unit', '')}".strip()
    return StageView(n, id, kind, "running", seconds, min(1.0, done / total), max(0.0, left), what)


def stage_folder(run: Run, id: str) -> StageFolder | None:
    """By its name: nothing is read."""
    return next((folder for folder in run.folder.stages() if stage_of(folder.out) == id), None)


def metrics(run: Run, id: str) -> Sequence[Mapping[str, Any]]:
    """The lines of figures of a stage. A file that has not changed is not read again, however many tabs look at it."""
    folder = stage_folder(run, id)
    try:
        stat = folder.metrics.stat() if folder else None
    except OSError:
        return ()
    return _metrics(folder.metrics, stat.st_size, stat.st_mtime_ns) if folder and stat else ()


@lru_cache(maxsize=64)
def _metrics(file: Path, size: int, changed: int) -> tuple[dict[str, Any], ...]:
    return tuple(read.lines(file))


def samples(run: Run, id: str, most: int = 12) -> list[dict[str, Any]]:
    """The newest samples of a stage, newest first; only the end of the file is read."""
    folder = stage_folder(run, id)
    if folder is None:
        return []
    found: deque[dict[str, Any]] = deque(maxlen=most)
    for line in tail(folder.samples, most).split("\n"):
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.appendleft(value)
    return list(found)


def tail(path: Path, lines: int) -> str:
    """The last lines of a file, found from its end, so that a log of any size costs the same; without control characters."""
    try:
        with path.open("rb") as f:
            size = f.seek(0, os.SEEK_END)
            start = max(0, size - TAIL_BYTES)
            f.seek(start)
            text = f.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    whole = text.partition("\n")[2] if start else text
    return "\n".join(clean(whole).rstrip("\n").split("\n")[-lines:])


def moment(text: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
