"""for node in plan: done already? else run, publish, record.

Imports no torch by itself: stage functions, the bench and the base are fetched when a stage runs. What a run needs from outside
is in :class:`Tools`, so that tests bring their own.
"""

import errno
import importlib
import logging
import os
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from lite import __version__, tasks
from lite.artifacts import Artifact
from lite.errors import ArtifactError, DivergedError, LiteError, PreconditionError, StageError, Stopped
from lite.knobs import BaseSpec, base_of, served
from lite.plan import Node, Status, compare, plan, select
from lite.recipe import Recipe
from lite.runs import aside, env, process, publish, report, trackers
from lite.runs.checkpoints import Checkpoint, Checkpoints
from lite.runs.journal import Journal, StageJournal, clean, now
from lite.runs.layout import StageFolder
from lite.runs.manners import prepare_environment as prepare_environment
from lite.runs.progress import Counter, Screen, duration
from lite.runs.read import Run, StageRecord, open_run, read_json
from lite.runs.signals import INTERRUPTED, STOPPED

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def stage_function(kind: str) -> Callable[..., Artifact]:
    return getattr(importlib.import_module(f"lite.stages.{kind}"), kind)


def prepare_base(spec: BaseSpec) -> None:
    """Before the first stage that uses the base: unsloth, where it is the backend, is to be imported before transformers."""
    from lite.model import unsloth

    unsloth.prepare(spec)


def load_bank(spec: BaseSpec) -> Any:
    from lite.model.bank import AdapterBank
    from lite.model.base import load_base

    return AdapterBank(load_base(spec))


def free_memory() -> None:
    from lite.model.memory import free_unused

    free_unused()


def make_bench(**parts: Any) -> Any:
    from lite.stages.bench import Bench

    return Bench(**parts)


@dataclass(frozen=True)
class Tools:
    """What the engine takes from the rooms above and beside it."""

    stage_function: Callable[[str], Callable[..., Artifact]] = stage_function
    prepare_base: Callable[[BaseSpec], None] = prepare_base
    load_bank: Callable[[BaseSpec], Any] = load_bank
    free_memory: Callable[[], None] = free_memory
    make_bench: Callable[..., Any] = make_bench
    stop_asked: Callable[[], bool] = lambda: False
    holds: Callable[[str], None] = lambda run: None
    """Told the run that is about to begin, for whoever asks who holds the GPU."""


class OneBank:
    """The bank of one base at a time: kept for as long as the stages want the same base, given up before another one is loaded."""

    def __init__(self, tools: Tools, journal: Journal):
        self._tools, self._journal = tools, journal
        self._spec: BaseSpec | None = None
        self._bank: Any = None

    def on(self, spec: BaseSpec) -> Any:
        if spec != self._spec:
            if self._spec:
                self._journal.log(f"releasing {self._spec.model}")
                self._spec = self._bank = None
                self._tools.free_memory()
            self._journal.log(f"loading {spec.model} ({spec.quantize})")
            self._bank, self._spec = self._tools.load_bank(spec), spec
        return self._bank


class Outcome(NamedTuple):
    run: Run
    state: str
    exit_code: int
    error: str | None
    cause: BaseException | None = None


class Reporter:
    """A stage's voice: to its files, to the run's log and to the screen."""

    def __init__(self, stage: str, journal: Journal, files: StageJournal, screen: Screen):
        self._stage, self._journal, self._files, self._screen = stage, journal, files, screen

    def progress(self, total: int, unit: str, what: str) -> AbstractContextManager[Counter]:
        def watch(counter: Counter) -> None:
            self._journal.progress(counter.done, counter.total, unit, what)

        return self._screen.progress(self._stage, total, unit, what, watch)

    def metric(self, **values: Any) -> None:
        self._files.metric(**values)
        self._journal.track(self._stage, values)

    def show(self, **values: Any) -> None:
        self._files.show(**values)

    def figures(self) -> dict[str, int]:
        return self._files.sizes()

    def log(self, text: str) -> None:
        self._journal.log(f"{self._stage}: {text}")
        self._screen.say(f"  {self._stage}: {text}")


def execute(
    recipe: Recipe,
    text: str,
    overrides: Sequence[str] = (),
    *,
    runs: Path,
    label: str | None = None,
    resume: Run | None = None,
    from_run: Run | None = None,
    until: str | None = None,
    screen: Screen | None = None,
    tools: Tools | None = None,
) -> Outcome:
    """Run a recipe to its end, or go on with a run of it. Every end is told in run.json and by the outcome's exit code.

    ``text`` is the recipe as written, kept beside the results.
    """
    screen, tools = screen or Screen(), tools or Tools()
    trackers.check(recipe.track)
    nodes = _settled(recipe, plan(recipe))
    journal = Journal(resume.folder, resume.facts) if resume else Journal.create(runs, label or recipe.name)
    times = {name: resume.facts.get(name) for name in ("resumed", "finished")} if resume and resume.state == "done" else {}
    with journal.held(), _library_logs(journal), trackers.tracking(recipe.track, journal, recipe.model_dump(mode="json")):
        tools.holds(str(journal.run.path))
        _begin(journal, recipe, nodes, text, overrides, label)
        screen.say(f"{'resuming' if resume else 'run'} {journal.run.path}")
        records = [*(resume.stages() if resume else ()), *(from_run.stages() if from_run else ())]
        try:
            statuses = select(compare(nodes, records), None, until)
            if any(status.state == "run" for status in statuses):  # an earlier report and end are no longer this run's
                times = {}
                _put_aside(resume, journal, statuses, screen)
                journal.run.report_md.unlink(missing_ok=True)
                journal.run.report_json.unlink(missing_ok=True)
            artifacts = _stages(recipe, nodes, statuses, journal, screen, tools)
            if len(artifacts) < len(nodes):
                return _end(journal, "stopped", 0, f"ended after {until}, as asked; go on with: lite run --resume {journal.run.path}")
            report.write(journal, recipe, nodes, artifacts)
        except (Stopped, KeyboardInterrupt) as e:
            code = STOPPED if isinstance(e, Stopped) else INTERRUPTED
            return _end(journal, "stopped", code, f"stopped; go on with: lite run --resume {journal.run.path}", e)
        except DivergedError as e:
            return _end(journal, "diverged", e.exit_code, str(e), e)
        except LiteError as e:
            return _end(journal, "failed", e.exit_code, str(e), e)
        return _end(journal, "done", 0, None, **times)


def _settled(recipe: Recipe, nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    """The plan with what depends on this machine's card decided; that changes speed and memory, no fingerprint."""
    from lite.fit import cards, estimate

    return estimate.settle(recipe, nodes, cards.this_card()) if estimate.needs_settling(nodes) else nodes


def _begin(journal: Journal, recipe: Recipe, nodes: Sequence[Node], text: str, overrides: Sequence[str], label: str | None) -> None:
    run = journal.run
    publish.write_text(run.recipe, text)
    publish.write_text(run.resolved, recipe.to_yaml())
    publish.write_json(run.plan, {"stages": [node.to_json() for node in nodes]})
    publish.write_json(run.env, env.snapshot())
    journal.update(
        state="running",
        recipe=recipe.name,
        name=label or journal.facts.get("name"),
        overrides=list(overrides),
        stage=None,
        stages=len(nodes),
        progress=None,
        **process.identity(),
        started=journal.facts.get("started") or now(),
        resumed=now() if journal.facts.get("started") else None,
        finished=None,
        exit_code=None,
        error=None,
        lite=__version__,
    )
    journal.event("run started", pid=os.getpid())


def _end(
    journal: Journal, state: str, exit_code: int, error: str | None, cause: BaseException | None = None, **times: str | None
) -> Outcome:
    try:
        if error:
            journal.log(error)
        facts = {"exit_code": exit_code, "error": clean(error) if error else None, "finished": now(), "progress": None}
        journal.update(state=state, **facts | times)
        journal.event(f"run {state}", exit_code=exit_code)
    except OSError as e:  # a full disk takes no last words either; the run is then seen as interrupted
        error = f"{error or f'the run is {state}'} (and its state could not be written: {e.strerror})"
    return Outcome(open_run(journal.run.path), state, exit_code, error, cause)


def _stages(
    recipe: Recipe, nodes: Sequence[Node], statuses: Sequence[Status], journal: Journal, screen: Screen, tools: Tools
) -> dict[str, Artifact]:  # fmt: skip
    """The artifacts of all stages, by id."""
    artifacts: dict[str, Artifact] = {}
    bank = OneBank(tools, journal)
    for node, status in zip(nodes, statuses, strict=False):  # `until` ends the statuses early
        if tools.stop_asked():
            raise Stopped
        folder = journal.run.stage(node.number, node.id)
        head = f"[{node.number}/{len(nodes)}] {node.id}"
        journal.update(stage=node.id, number=node.number)
        if status.record:
            _reuse(folder, status.record)
            journal.event("stage reused", stage=node.id, source=status.why)
            screen.say(f"{head}: {status.why}")
        else:
            journal.event("stage started", stage=node.id, why=status.why)
            screen.say(f"{head}: {status.why}" if status.why != "never run" else head)
            base = base_of(node.spec, recipe.base)
            if node.contract.uses_base and not served(node.spec):
                tools.prepare_base(base)
            seconds = _run_stage(recipe, node, folder, artifacts, journal, screen, tools, partial(bank.on, base))
            journal.event("stage done", stage=node.id, seconds=seconds)
            screen.say(f"{head}: done in {duration(seconds)}")
        artifacts[node.id] = node.contract.gives(folder.out)
    return artifacts


def _put_aside(resume: Run | None, journal: Journal, statuses: Sequence[Status], screen: Screen) -> None:
    """Keep what a changed recipe replaces."""
    places = [(status.record, journal.run.stage(status.node.number, status.node.id)) for status in statuses]
    replaced = [place for record, place in places if not record or record.folder != place]
    if resume and (kept := aside.put_aside(resume, replaced)):
        screen.say(f"the recipe changed: what this run had finished otherwise is kept in {kept}")


def _reuse(folder: StageFolder, record: StageRecord) -> None:
    """Take a finished result, by hard links if it lies in another folder."""
    publish.verify(record.folder.out, record.files)
    if record.folder == folder:
        return
    _clear(folder)
    publish.link_tree(record.folder.out, folder.out)
    for source, copy in ((record.folder.metrics, folder.metrics), (record.folder.samples, folder.samples)):
        if source.is_file():
            shutil.copyfile(source, copy)
    publish.write_json(folder.stage, {**record.facts, "taken_from": str(record.folder.path)})


def _run_stage(
    recipe: Recipe,
    node: Node,
    folder: StageFolder,
    artifacts: Mapping[str, Artifact],
    journal: Journal,
    screen: Screen,
    tools: Tools,
    load_bank: Callable[[], Any],
) -> float:
    """Run one stage and publish its result; how many seconds it took.

    stage.json carries the fingerprint from the start, so that ``ckpt`` is known to belong to it; ``out`` appears at the end.
    """
    if read_json(folder.stage).get("fingerprint") != node.fingerprint:
        _clear(folder)
    folder.ckpt.mkdir(parents=True, exist_ok=True)
    facts = {**node.to_json(), "identity": dict(node.identity), "started": now(), "finished": None}
    publish.write_json(folder.stage, facts)
    files = StageJournal(folder)
    reporter = Reporter(node.id, journal, files, screen)
    resumed = _newest_checkpoint(folder, reporter)
    files.cut(resumed.figures if resumed else {})  # the figures of steps that are done again are told again
    begun = time.monotonic()
    try:
        function = tools.stage_function(node.kind)
        bench = tools.make_bench(
            task=tasks.load(recipe.task),
            seed=recipe.seed,
            stage=node.id,
            ckpt=folder.ckpt,
            reporter=reporter,
            load_bank=load_bank,
            stop_asked=tools.stop_asked,
            resumed=resumed,
        )
        with publish.folder(folder.out) as scratch:
            given = function(node.spec, **_inputs(node, artifacts), out=scratch, bench=bench)
            if type(given) is not node.contract.gives:
                raise ArtifactError(f"stage {node.id}: gave {type(given).__name__}, its contract says {node.contract.gives.__name__}")
            seconds = time.monotonic() - begun
            facts |= {"finished": now(), "seconds": round(seconds, 3), "files": publish.digests(scratch)}
            publish.write_json(folder.stage, facts)
    except LiteError:  # its message is the story
        raise
    except Exception as e:
        if full := _disk_is_full(e):
            from lite.fit.preflight import shortage

            raise PreconditionError(
                f"stage {node.id}: no space left ({full}; {shortage(recipe, plan(recipe), node.id, journal.run.path)}); nothing that was "
                f"finished is lost: free some space and go on with lite run --resume {journal.run.path}"
            ) from e
        journal.log(traceback.format_exc())
        reason = f"{type(e).__name__}: {e}".splitlines()[0]
        raise StageError(f"stage {node.id} failed: {reason} (the whole story is in {journal.run.log})") from e
    shutil.rmtree(folder.ckpt, ignore_errors=True)
    return seconds


def _disk_is_full(error: BaseException | None) -> str | None:
    """What a full disk, a quota or a limit on file sizes said, if that is what an error comes from. safetensors tells it as text only."""
    while error is not None:
        if getattr(error, "errno", None) in FULL or any(os.strerror(number) in str(error) for number in FULL):
            return str(error).splitlines()[0]
        error = error.__cause__ or error.__context__
    return None


def _newest_checkpoint(folder: StageFolder, reporter: Reporter) -> Checkpoint | None:
    """What a training goes on from: the newest whole checkpoint; the log says why a newer one is not believed."""
    found, problems = Checkpoints(folder.ckpt).newest()
    for problem in problems:
        reporter.log(f"{problem}; {f'going on from step {found.step}' if found else 'beginning anew'}")
    return found


def _inputs(node: Node, artifacts: Mapping[str, Artifact]) -> dict[str, Any]:
    """The artifacts that a stage reads, by the names of its contract."""
    inputs: dict[str, Any] = {}
    for param, wire in node.inputs.items():
        inputs[param] = {id: artifacts[id] for id in wire} if isinstance(wire, tuple) else artifacts[wire] if wire else None
    return inputs


def _clear(folder: StageFolder) -> None:
    """Forget what lies in a stage's folder; stage.json goes first, so that a half-cleared folder never counts as done."""
    folder.stage.unlink(missing_ok=True)
    shutil.rmtree(folder.path, ignore_errors=True)
    folder.path.mkdir(parents=True, exist_ok=True)


@contextmanager
def _library_logs(journal: Journal) -> Iterator[None]:
    """Warnings and log records of the libraries go to log.txt instead of the terminal; of lite's own rooms, what is for information too."""

    class ToLog(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            journal.log(f"{record.levelname} {record.name}: {record.getMessage()}")

    handler, root, own = ToLog(), logging.getLogger(), logging.getLogger("lite")
    handler.addFilter(lambda record: record.levelno >= logging.WARNING or record.name.startswith("lite."))
    root.addHandler(handler)
    own_level, _ = own.level, own.setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        own.setLevel(own_level)
        root.removeHandler(handler)
