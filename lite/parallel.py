"""One run by several processes: ``accelerate launch ... -m lite.cli run RECIPE``.

Rank 0 is the run: it plans, writes the folder, and tells the others which stage comes next. They do the same stage beside it, on the
same inputs, with a scratch folder for what it writes, and meet it where rows are dealt out and gradients summed. What ends a stage
for all (a stop, a divergence) is decided by all alike; what ends one process is told to the others before it ends them too.
"""

import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from lite import engine
from lite.artifacts import Artifact
from lite.contracts import CONTRACTS
from lite.engine import OneBank, Outcome, Tools
from lite.errors import DivergedError, LiteError, PreconditionError, StageError, Stopped
from lite.knobs import BaseSpec, Spec
from lite.recipe import Recipe
from lite.runs.checkpoints import Checkpoint
from lite.runs.ranks import Group, Ranks, join, launched
from lite.tasks import Task


@dataclass(frozen=True)
class Order:
    """One stage to do beside rank 0."""

    kind: str
    spec: Spec
    inputs: Mapping[str, Any]
    base: BaseSpec
    task: Task
    seed: int
    stage: str
    resumed: Checkpoint | None


def lead(command: Callable[[], object]) -> int:
    """A whole command of rank 0, met by the others before it begins; those who wait for an order when it ends are let go. The exit code."""
    engine.prepare_environment(offline="--offline" in sys.argv)
    try:
        ranks = join()
    except LiteError as e:
        return _ended(e)
    try:
        command()
    finally:
        if isinstance(ranks, Group):
            if ranks.idle:
                with suppress(RuntimeError, LiteError):  # who has ended before needs no telling
                    ranks.first(None)
            ranks.leave(whole=ranks.idle)
    return 0


def execute(recipe: Recipe, *given: Any, tools: Tools, **options: Any) -> Outcome:
    """:func:`lite.engine.execute`, by as many processes as were launched."""
    ranks = join()
    if not isinstance(ranks, Group):
        return engine.execute(recipe, *given, tools=tools, **options)
    refuse_other_devices(recipe, ranks)
    outcome = engine.execute(recipe, *given, tools=Leader(ranks, tools).tools(), **options)
    if isinstance(outcome.cause, LiteError) and not ranks.idle:  # they may wait anywhere, and end with this process
        ranks.tell(outcome.cause)
    return outcome


def refuse_other_devices(recipe: Recipe, ranks: Group) -> None:
    cards = ranks.sees.count("cuda")
    if 0 < cards < ranks.count and recipe.base.device != "cpu":
        raise PreconditionError(f"{cards} of {ranks.count} processes see a GPU: start as many as there are GPUs, or take base.device=cpu")


class Leader:
    """The engine's tools, such that the other ranks do every stage that uses the base."""

    def __init__(self, ranks: Group, tools: Tools):
        self._ranks, self._tools = ranks, tools
        self._base = BaseSpec()
        self._kind = ""

    def tools(self) -> Tools:
        return replace(self._tools, stage_function=self._stage_function, prepare_base=self._prepare_base, make_bench=self._make_bench)

    def _prepare_base(self, base: BaseSpec) -> None:
        self._base = base
        self._tools.prepare_base(base)

    def _stage_function(self, kind: str) -> Callable[..., Artifact]:
        self._kind = kind
        function = self._tools.stage_function(kind)
        if not CONTRACTS[kind].uses_base:
            return function

        def together(spec: Spec, *, out: Path, bench: Any, **inputs: Any) -> Artifact:
            self._ranks.idle = False
            self._ranks.first(Order(kind, spec, inputs, self._base, bench.task, bench.seed, bench.stage, bench.resumed))
            try:
                artifact = function(spec, **inputs, out=out, bench=bench)
            except (Stopped, DivergedError):  # the others too
                self._ranks.idle = True
                raise
            self._ranks.idle = True
            return artifact

        return together

    def _make_bench(self, **parts: Any) -> Any:
        together = {"ranks": self._ranks} if CONTRACTS[self._kind].uses_base else {}
        return self._tools.make_bench(**parts, **together)


def follow() -> int:
    """Do what rank 0 orders until it is done; the exit code. Once they have met signals are its to hear: the launcher sends them to all."""
    engine.prepare_environment(offline="--offline" in sys.argv)
    try:
        ranks = join()
    except LiteError as e:
        return _ended(e)
    assert isinstance(ranks, Group), "only one of several processes follows"
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    whole = False
    try:
        _obey(ranks)
        whole = True
    except LiteError as e:
        ranks.tell(e)
        return _ended(e)
    except Exception as e:
        ranks.tell(StageError(f"{type(e).__name__}: {e}".splitlines()[0] + " (the whole story is on its standard error)"))
        raise
    finally:
        ranks.leave(whole=whole)
    return 0


def _ended(error: LiteError) -> int:
    print(f"lite: rank {launched()}: {error}", file=sys.stderr, flush=True)
    return error.exit_code


def _obey(ranks: Ranks) -> None:
    tools = Tools()
    bank = OneBank(tools, _Mute())  # type: ignore[arg-type]
    while (order := ranks.first(_no_order())) is not None:
        tools.prepare_base(order.base)
        with tempfile.TemporaryDirectory(prefix="lite-rank-") as scratch:
            out, ckpt = Path(scratch, "out"), Path(scratch, "ckpt")
            out.mkdir()
            ckpt.mkdir()
            bench = tools.make_bench(
                task=order.task,
                seed=order.seed,
                stage=order.stage,
                ckpt=ckpt,
                reporter=_Mute(),
                load_bank=partial(bank.on, order.base),
                resumed=order.resumed,
                ranks=ranks,
            )
            with suppress(Stopped, DivergedError):  # decided by all alike, and said by rank 0
                tools.stage_function(order.kind)(order.spec, **order.inputs, out=out, bench=bench)


def _no_order() -> Order | None:
    return None


class _Mute:
    """A reporter and a journal that say nothing."""

    @contextmanager
    def progress(self, total: int, unit: str, what: str):
        yield self

    def advance(self, n: int = 1, **figures: float) -> None: ...

    def metric(self, **values: Any) -> None: ...

    def show(self, **values: Any) -> None: ...

    def log(self, text: str) -> None: ...

    def figures(self) -> dict[str, int]:
        return {}
