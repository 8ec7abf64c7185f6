"""Claim: all that makes a run survive takes at most 5 % of the tiny run's time.

Two sides, in turn, in one process on one loaded base: the tiny recipe with its shards, checkpoints, journal, digests and flushes to
disk, and without any of them (nothing is kept by shard or step, nothing is told but the results, no byte is forced to the disk, no
hash taken). Both write the same adapter to the bit. The recipe is a shorter ``tiny_rlcd_helpful`` that keeps checkpoints more often, one in 8 steps of
the reward model and one in 4 of PPO, where the defaults keep one in 50 and one in 20: the share is an upper bound.

CPU time is compared pair by pair, and beside it, because a pair's noise on a shared machine is as large as the limit, the time
inside everything that the other side goes without is clocked directly, with the copies of the last good adapter too.

    python -m benchmarks.overhead [--pairs 6]
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import load_file

from benchmarks.report import publish as tell
from benchmarks.report import table
from lite import engine, recipe
from lite.knobs import BaseSpec
from lite.model.bank import AdapterBank
from lite.runs import publish
from lite.runs.checkpoints import Checkpoints
from lite.runs.journal import Journal, StageJournal
from lite.runs.progress import Screen
from lite.runs.shards import Shards
from lite.stages.bench import Bench

CLAIM = "Shards, checkpoints, journal, digests and flushes to disk take at most 5 % of the tiny run's time"
LIMIT = 0.05
SHORTER = (
    "prompts.train=64", "prompts.dev=8", "prompts.test=16", "contrast.batch_rows=16", "reward.save_every=8", "ppo.steps=4", "ppo.rollouts=32",
    "ppo.minibatch=16", "ppo.epochs=1", "ppo.save_every=4", "ppo.dev_prompts=8", "evaluate.draws=1",
)  # fmt: skip
SURVIVING: tuple[tuple[Any, str], ...] = (
    (Shards, "__init__"), (Shards, "add"), (Bench, "keep"), (StageJournal, "metric"), (StageJournal, "show"), (StageJournal, "cut"),
    (Journal, "update"), (Journal, "event"), (Journal, "log"), (Journal, "progress"), (publish, "digests"), (publish, "flush_files"),
    (os, "fsync"), (AdapterBank, "snapshot"),
)  # fmt: skip
"""What is clocked: where one is called inside another, the outer one counts."""


@contextmanager
def switched_off() -> Iterator[None]:
    """A run that would lose everything: what lies between its stages and its results is left out."""

    def in_memory(shards: Shards, rows: dict[str, Any]) -> dict[str, Any]:
        shards.rows |= rows
        return rows

    def nothing(*_: object, **__: object) -> None: ...

    with ExitStack() as stack:
        for owner, name, instead in (
            (Shards, "add", in_memory),
            (Checkpoints, "due", lambda *_: False),
            (StageJournal, "metric", nothing),
            (StageJournal, "show", nothing),
            (Journal, "update", nothing),
            (Journal, "event", nothing),
            (Journal, "log", nothing),
            (Journal, "progress", nothing),
            (Journal, "held", lambda _: nullcontext()),
            (publish, "digests", lambda _: {}),
            (publish, "flush_files", nothing),
            (os, "fsync", nothing),
        ):
            stack.enter_context(patch.object(owner, name, instead))
        yield


class Clock:
    def __init__(self) -> None:
        self.cpu: dict[str, float] = {}
        self.wall = 0.0
        self._depth = 0

    @contextmanager
    def on(self) -> Iterator[None]:
        with ExitStack() as stack:
            for owner, name in SURVIVING:
                stack.enter_context(
                    patch.object(owner, name, self._timed(f"{owner.__name__.rpartition('.')[2]}.{name}", getattr(owner, name)))
                )
            yield

    def _timed(self, title: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def timed(*words: Any, **named: Any) -> Any:
            if self._depth:
                return function(*words, **named)
            self._depth, cpu, wall = 1, time.process_time(), time.perf_counter()
            try:
                return function(*words, **named)
            finally:
                self._depth = 0
                self.cpu[title] = self.cpu.get(title, 0.0) + time.process_time() - cpu
                self.wall += time.perf_counter() - wall

        return timed


@dataclass(frozen=True)
class Took:
    cpu: float
    wall: float
    adapter: Path


def whole_run(bank: AdapterBank, runs: Path, overrides: tuple[str, ...]) -> Took:
    """The recipe from its first stage to its report."""
    path = recipe.built_in()["tiny_rlcd_helpful"]
    loaded = recipe.load(path, overrides)
    tools = engine.Tools(load_bank=lambda spec: bank)
    cpu, wall = time.process_time(), time.perf_counter()
    done = engine.execute(loaded, path.read_text(encoding="utf-8"), overrides, runs=runs, screen=Screen(quiet=True), tools=tools)
    took = time.process_time() - cpu, time.perf_counter() - wall
    assert done.exit_code == 0, done.error
    return Took(*took, next(done.run.folder.path.glob("stages/*-ppo/out/adapter/*.safetensors")))


def largest_difference(one: Path, other: Path) -> float:
    mine, theirs = load_file(one), load_file(other)
    return max(float((mine[name] - theirs[name]).abs().max()) for name in mine)


def measure(pairs: int, folder: Path, overrides: tuple[str, ...] = SHORTER) -> dict[str, Any]:
    bank = engine.load_bank(BaseSpec(model="tiny", device="cpu"))
    whole_run(bank, folder / "first", overrides)  # imports, and the allocator's first growth
    clock, ratios, took, apart = Clock(), [], {"with": [], "without": []}, 0.0
    for k in range(pairs):
        for side in ("with", "without") if k % 2 == 0 else ("without", "with"):
            with clock.on() if side == "with" else switched_off():
                took[side].append(whole_run(bank, folder / f"{k}-{side}", overrides))
        one, other = took["with"][-1], took["without"][-1]
        apart = max(apart, largest_difference(one.adapter, other.adapter))
        ratios.append(one.cpu / other.cpu - 1)
        print(f"pair {k + 1}: {one.cpu:.2f} / {other.cpu:.2f} s, {ratios[-1]:+.1%}", file=sys.stderr, flush=True)
    whole = sum(run.cpu for run in took["with"])
    return {
        "pairs": pairs,
        "apart": apart,
        "extra": ratios,
        "extra_median": statistics.median(ratios),
        "cpu_seconds": {side: [round(run.cpu, 3) for run in runs] for side, runs in took.items()},
        "clocked_cpu": sum(clock.cpu.values()) / whole,
        "clocked_cpu_of": {title: round(seconds / whole, 5) for title, seconds in sorted(clock.cpu.items(), key=lambda item: -item[1])},
        "clocked_wall": clock.wall / sum(run.wall for run in took["with"]),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.overhead", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=6)
    options = parser.parse_args()
    engine.prepare_environment(offline=True)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(options.pairs, Path(scratch))
    sides = {side: statistics.median(seconds) for side, seconds in found["cpu_seconds"].items()}
    spread = f"{min(found['extra']):+.1%} to {max(found['extra']):+.1%}"
    head = (
        "pairs",
        "CPU s with / without, medians",
        "extra, median of the pairs",
        "of all pairs",
        "clocked share of CPU",
        "of wall",
        "apart",
    )
    row = (
        found["pairs"], f"{sides['with']:.2f} / {sides['without']:.2f}", f"**{found['extra_median']:+.1%}**", spread,
        f"**{found['clocked_cpu']:.1%}**", f"{found['clocked_wall']:.1%}", f"{found['apart']:.0e}",
    )  # fmt: skip
    holds = max(found["extra_median"], found["clocked_cpu"], found["clocked_wall"]) <= LIMIT and found["apart"] == 0
    tell("overhead", claim=CLAIM, holds=holds, figures=found, text=table(head, [row]))
    return 0 if holds else 1


if __name__ == "__main__":
    raise SystemExit(main())
