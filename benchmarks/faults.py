"""Claim: kill -9 costs a run one shard or one save interval, and not a byte of its results.

Pair generation is killed at 50 moments and each training at 20, on the embedded base; each time the run is gone on with, and what
comes out in the end is compared with a run that nobody touched: rows lost and doubled, pairs byte by byte, adapters bit by bit. What a
kill costs is counted, not only timed: the shards or steps that were begun, less those that the next life found and went on from.

How: the base is loaded once. Each life of a run is a fork of this process that goes on through the engine (``resume``) and kills
itself at a counted moment: before the n-th forward pass, optimiser step, flush or rename of the stage. n is drawn from 1 up to twice
the moments between two points where something is kept, so lives end anywhere, and about every other one gets on.
"""

import mmap
import os
import random
import signal
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file

from benchmarks.report import publish, table
from lite import engine, recipe
from lite.knobs import BaseSpec
from lite.runs import read
from lite.runs.checkpoints import Checkpoints
from lite.runs.progress import Screen
from lite.runs.shards import Shards
from lite.stages.bench import Bench

RECIPE = """
base: {model: tiny, device: cpu}
seed: 17
task: helpful
stages:
  - prompts: {train: 60, dev: 4, test: 1}
  - contrast: {max_new_tokens: 40, batch_rows: 3}
  - reward: {lora: {r: 4, alpha: 8, dropout: 0.1}, lr: 1e-3, batch_pairs: 8, epochs: 2, save_every: 2}
  - dpo: {lora: {r: 4, alpha: 8, dropout: 0.1}, lr: 1e-3, batch_pairs: 8, epochs: 2, held_out: 0.1, eval_every: 3, keep: best,
          save_every: 2}
  - ppo: {lora: {r: 4, alpha: 8}, steps: 20, rollouts: 8, minibatch: 4, epochs: 1, lr: 1e-3, max_new_tokens: 16,
          kl_coef: 0.05, kl_control: adaptive, scale_reward: true, save_every: 2, dev_prompts: 4}
"""
SMALLER = ("prompts.train=20", "contrast.max_new_tokens=32", "ppo.steps=6")
"""What `--sample` makes of it, for a look of a minute; the tests use it too."""
SAMPLE = {"contrast": 4, "reward": 3, "dpo": 3, "ppo": 3}
KILLS = {"contrast": 50, "reward": 20, "dpo": 20, "ppo": 20}
Work = Callable[[], None]


class Watch:
    """Moments of a stage at which its process can die, in memory that its parent reads after it died."""

    def __init__(self, stage: str, fatal: int | None = None):
        self.stage, self.fatal, self.on = stage, fatal, False
        self._shared = mmap.mmap(-1, LAYOUT.size)

    @property
    def told(self) -> "Told":
        return Told._make(LAYOUT.unpack(self._shared[:]))

    def _tell(self, **news: float) -> None:
        self._shared[:] = LAYOUT.pack(*self.told._replace(**news))

    def moment(self) -> None:
        if self.on:
            self._tell(moments=self.told.moments + 1, kept_at=self.told.kept_at or time.monotonic())
            if self.told.moments == self.fatal:
                os.kill(os.getpid(), signal.SIGKILL)

    def work(self, *_: object) -> None:
        """A forward pass: a moment, and the next shard or step is begun with it."""
        if self.on:
            self._tell(begun=self.told.ended + 1)
        self.moment()

    def step(self, bench: Bench, step: int, *_: object, **__: object) -> None:
        self._tell(ended=step)

    def shard(self, *_: object) -> None:
        self._tell(ended=self.told.ended + 1)

    def kept(self, *_: object) -> None:
        self._tell(kept=self.told.kept + 1, kept_at=time.monotonic())

    def stage_function(self, kind: str) -> Callable[..., Any]:
        stage = engine.stage_function(kind)

        def counted(*words: Any, bench: Bench, **named: Any) -> Any:
            self.on = kind == self.stage
            if self.on:
                there = bench.resumed.step if bench.resumed else sum(f.read_bytes().count(b"\n") for f in bench.ckpt.glob("*.jsonl"))
                self._tell(start=there, begun=there, ended=there)
            try:
                return stage(*words, bench=bench, **named)
            finally:
                self.on = False

        return counted


class Told(NamedTuple):
    """What a life told before its end. Work is counted in shards where a stage generates, in steps where it trains."""

    moments: int
    kept: int  # how often something was kept, and when last
    kept_at: float
    start: int  # work that was there when this life came to the stage
    begun: int
    ended: int


LAYOUT = struct.Struct("qqdqqq")


@contextmanager
def watching(watch: Watch, bank: Any) -> Iterator[None]:
    """Put the moments into what a stage does; only ever inside a fork, which ends with the block."""

    def before(owner: Any, name: str, hear: Callable[..., None]) -> None:
        original = getattr(owner, name)
        setattr(owner, name, lambda *words, **named: (hear(*words, **named), original(*words, **named))[1])

    def after(owner: Any, name: str, *hear: Callable[..., None]) -> None:
        original = getattr(owner, name)
        setattr(owner, name, lambda *words, **named: (original(*words, **named), [each() for each in hear])[0])

    bank.trunk.register_forward_pre_hook(watch.work)
    for owner, name in ((os, "fsync"), (os, "replace"), (torch.optim.AdamW, "step")):
        before(owner, name, lambda *_, **__: watch.moment())
    before(Bench, "keep", watch.step)
    after(Shards, "add", watch.shard, watch.kept)
    after(Checkpoints, "drop_old", watch.kept)
    yield


def in_a_fork(work: Work) -> int:
    """Its exit code, negative for a signal."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 1
    try:
        work()
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)


@dataclass(frozen=True)
class Ground:
    """Where runs are killed: the loaded base, and the runs that finished stages are taken from (none yet: an empty folder)."""

    bank: Any
    folder: Path
    before: Path
    overrides: tuple[str, ...] = ()

    @property
    def loaded(self) -> recipe.Recipe:
        return recipe.loads(RECIPE, self.overrides, name="faults")

    def live(self, runs: Path, watch: Watch) -> int:
        """One life of the run in ``runs``: it goes on with what is there."""

        def work() -> None:
            tools = engine.Tools(stage_function=watch.stage_function, load_bank=lambda spec: self.bank)
            before, old = read.latest(self.before), read.latest(runs)
            with watching(watch, self.bank):
                done = engine.execute(
                    self.loaded, RECIPE, runs=runs, resume=old, from_run=before, until=watch.stage, screen=Screen(quiet=True), tools=tools
                )
            assert done.exit_code == 0, done.error

        return in_a_fork(work)

    def until(self, runs: Path, stage: str) -> tuple[Told, float]:
        """An undisturbed run up to a stage; what it counted and how long it took."""
        watch, began = Watch(stage), time.monotonic()
        assert self.live(runs, watch) == 0, f"{runs}: the undisturbed run failed"
        return watch.told, time.monotonic() - began


@dataclass
class Found:
    """What killing one stage came to."""

    stage: str
    allowed: int  # shards, or steps between two checkpoints
    kills: int = 0
    runs: int = 0
    lost: int = 0
    doubled: int = 0
    difference: float = 0.0
    other_bytes: int = 0
    killed_in: list[int] = field(default_factory=list)  # which shard or step
    redone: list[int] = field(default_factory=list)  # shards or steps, per kill
    seconds: list[float] = field(default_factory=list)
    interval: float = 0.0  # seconds between two points where something is kept

    @property
    def holds(self) -> bool:
        return not (self.lost or self.doubled or self.difference or self.other_bytes) and max(self.redone) <= self.allowed


def kill(ground: Ground, stage: str, kills: int, seed: int = 17) -> tuple[Found, Ground]:
    """Kill ``stage`` so many times; a run that comes to its end is compared, and another one is begun. Also the ground for later stages."""
    spec = next(entry.spec for entry in ground.loaded.stages if entry.id == stage)
    found, draw = Found(stage, allowed=getattr(spec, "save_every", 1)), random.Random(f"{seed} {stage}")
    whole = ground.folder / f"{stage}-whole"
    undisturbed, seconds = ground.until(whole, stage)
    found.interval = seconds / undisturbed.kept
    while True:
        runs = ground.folder / f"{stage}-killed-{found.runs}"
        code, died_in = None, None
        while code != 0:
            life = Watch(stage, draw.randint(1, 2 * undisturbed.moments // undisturbed.kept) if found.kills < kills else None)
            code = ground.live(runs, life)
            if died_in is not None:
                found.redone.append(died_in - life.told.start)
            died_in = life.told.begun
            if code:
                assert code == -signal.SIGKILL, f"{runs}: a life ended with {code}"
                found.kills += 1
                found.killed_in.append(died_in)
                found.seconds.append(time.monotonic() - life.told.kept_at)
        found.runs += 1
        compare(found, _stage(whole, stage), _stage(runs, stage))
        if found.kills >= kills:
            return found, replace(ground, before=whole)


def _stage(runs: Path, stage: str) -> Any:
    run = read.latest(runs)
    assert run is not None
    return next(s.folder for s in run.stages() if s.id == stage)


def compare(found: Found, whole: Any, killed: Any) -> None:
    for file in sorted(path for path in whole.out.rglob("*") if path.is_file()):
        twin = killed.out / file.relative_to(whole.out)
        if file.suffix == ".safetensors":
            mine, theirs = load_file(file), load_file(twin)
            found.difference = max([found.difference, *(float((mine[k] - theirs[k]).abs().max()) for k in mine)])
        elif file.suffix == ".jsonl":
            _count(found, *([row["id"] for row in read.lines(path)] for path in (file, twin)))
            found.other_bytes += file.read_bytes() != twin.read_bytes()
    _count(found, *([_key(line) for line in read.lines(path)] for path in (whole.metrics, killed.metrics)))


def _count(found: Found, mine: list[Any], theirs: list[Any]) -> None:
    found.lost += len(set(mine) - set(theirs))
    found.doubled += len(theirs) - len(set(theirs))


def _key(line: Mapping[str, Any]) -> tuple[Any, ...]:
    """Which line of figures one is."""
    return line.get("step"), line.get("attempt"), "dev_reward" in line, "held_out_loss" in line


def kill_all(kills: Mapping[str, int], folder: Path, overrides: tuple[str, ...] = ()) -> list[Found]:
    """Stages in their order, each with the earlier ones taken from its predecessor's undisturbed run."""
    ground = Ground(engine.load_bank(BaseSpec(model="tiny", device="cpu")), folder, folder / "nothing", overrides)
    results = []
    for stage in kills:
        engine.stage_function(stage)  # imported once, before the forks
    for stage, n in kills.items():
        found, ground = kill(ground, stage, n)
        print(f"{stage}: {found.kills} kills, {found.runs} runs", file=sys.stderr, flush=True)
        results.append(found)
    return results


def main(*words: str) -> int:
    kills, overrides = (SAMPLE, SMALLER) if "--sample" in words else (KILLS, ())
    engine.prepare_environment(offline=True)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        found = kill_all(kills, Path(scratch), overrides)
    head = ("stage", "kills", "in different shards or steps", "runs", "lines lost", "lines doubled", "files of other bytes",
            "largest difference of a weight", "redone per kill, most (allowed)", "wall s redone per kill, mean", "most",
            "wall s between two points kept")  # fmt: skip
    rows = [
        (f.stage, f.kills, len(set(f.killed_in)), f.runs, f.lost, f.doubled, f.other_bytes, f.difference, _redone(f),
         f"{statistics.mean(f.seconds):.2f}", f"{max(f.seconds):.2f}", f"{f.interval:.2f}")
        for f in found
    ]  # fmt: skip
    holds = all(f.holds and f.kills >= kills[f.stage] for f in found)
    claim = "kill -9 and resume, again and again: nothing lost or doubled, pairs equal by bytes, adapters by bits, one shard or save interval redone"
    figures = {f.stage: {**vars(f), "seconds": [round(s, 3) for s in f.seconds], "interval": round(f.interval, 3)} for f in found}
    if kills is SAMPLE:
        print(table(head, rows))
    else:
        publish("faults", claim=claim, holds=holds, figures=figures, text=table(head, rows))
    return 0 if holds else 1


def _redone(found: Found) -> str:
    one, many = ("shard", "shards") if found.stage == "contrast" else ("step", "steps")
    return f"{max(found.redone)} {one if max(found.redone) == 1 else many} ({found.allowed})"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
