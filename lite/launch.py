"""From the words of `lite run` to a run: the recipe, what of it is done, whether memory and disk are enough, and a process of its own."""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lite import recipe
from lite.plan import Status, compare, plan, select
from lite.runs import control, locks, read
from lite.runs.journal import Journal
from lite.terminal import say


@dataclass(frozen=True)
class Wish:
    """What `lite run` was told beside recipe and overrides. ``resume`` and ``from_run`` name runs; ``begin`` and ``until`` stages."""

    runs: Path
    label: str | None = None
    resume: str | None = None
    from_run: str | None = None
    begin: str | None = None
    until: str | None = None
    queue: bool = False
    offline: bool = False


@dataclass(frozen=True)
class Ready:
    """A run that can begin: ``old`` is the one gone on with, ``source`` the one whose finished stages are taken."""

    wish: Wish
    loaded: recipe.Recipe
    text: str
    overrides: tuple[str, ...]
    old: read.Run | None
    source: read.Run | None
    statuses: tuple[Status, ...]

    @property
    def wants_gpu(self) -> bool:
        from lite.fit.cards import this_card

        return self.loaded.base.device != "cpu" and this_card() is not None


def ready(path: Path | None, overrides: Sequence[str], wish: Wish) -> Ready:
    """``path`` None goes on with a run as it was begun; overrides come on top of its own."""
    given = list(overrides)
    old = read.find(wish.runs, wish.resume, path.stem if path else None) if wish.resume else None
    source = read.find(wish.runs, wish.from_run) if wish.from_run else None
    name = None
    if path is None:
        assert old is not None, "without a recipe there is a run to go on with"
        path, given, name = old.folder.recipe, [*map(str, old.facts.get("overrides") or ()), *given], old.recipe
    loaded = recipe.load(path, given, name=name)
    records = [*(old.stages() if old else ()), *(source.stages() if source else ())]
    statuses = select(compare(plan(loaded), records), wish.begin, wish.until)
    return Ready(wish, loaded, path.read_text(encoding="utf-8"), tuple(given), old, source, tuple(statuses))


def to_run(statuses: Sequence[Status]) -> list[str]:
    return [status.node.id for status in statuses if status.state == "run"]


def refuse_what_cannot_fit(it: Ready) -> None:
    """Refuse what this machine has too little memory or disk for, before a run is made of it."""
    from lite import engine
    from lite.fit.preflight import preflight
    from lite.runs import trackers

    trackers.check(it.loaded.track)
    engine.prepare_environment(offline=it.wish.offline)  # what the libraries read when they are imported, by the preflight already
    preflight(it.loaded, [status.node for status in it.statuses], runs=it.wish.runs, only=to_run(it.statuses))


def detached(it: Ready, environment: Mapping[str, str] | None = None) -> tuple[read.Run, subprocess.Popen[bytes]]:
    """Start the run in a process of its own, with these environment variables more."""
    wish = it.wish
    if it.wants_gpu and not wish.queue:
        with locks.held(locks.gpu_name(), queue=False, say=say):
            pass  # refused now rather than in the background
    journal = Journal(it.old.folder, it.old.facts) if it.old else Journal.create(wish.runs, wish.label or it.loaded.name)
    words = [
        *(["--offline"] if wish.offline else []),
        *(["--queue"] if wish.queue else []),
        *(["--until", wish.until] if wish.until else []),
    ]
    words += ["--from-run", str(it.source.folder.path.resolve())] if it.source else []
    facts = {"recipe": it.loaded.name, "name": wish.label or journal.facts.get("name"), "overrides": list(it.overrides)}
    child = control.start(journal, it.text, words=words, environment=environment, stages=len(it.loaded.stages), **facts)
    return read.open_run(journal.run.path), child
