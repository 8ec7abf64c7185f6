"""A small whole run on the embedded base, and lives of it: forks of this process that go on with a copy, each disturbed as its test wants."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from benchmarks.faults import in_a_fork
from lite import engine, recipe
from lite.knobs import BaseSpec
from lite.runs import read
from lite.runs.progress import Screen
from lite.runs.signals import Switch

RECIPE = """
base: {model: tiny, device: cpu}
seed: 17
task: helpful
stages:
  - prompts: {train: 14, dev: 2, test: 3}
  - contrast: {max_new_tokens: 32, batch_rows: 3}
  - reward: {lora: {r: 4, alpha: 8}, lr: 1e-3, batch_pairs: 4, epochs: 2, save_every: 2}
  - dpo: {lora: {r: 4, alpha: 8}, lr: 1e-3, batch_pairs: 4, epochs: 2, held_out: 0, save_every: 2}
  - ppo: {lora: {r: 4, alpha: 8}, steps: 5, rollouts: 4, minibatch: 4, epochs: 1, lr: 1e-3, max_new_tokens: 12, save_every: 2,
          dev_prompts: 2}
  - evaluate: {against: [base], draws: 1, max_new_tokens: 16, judges: [{kind: base, versus: [base]}]}
"""
STAGES = ("prompts", "contrast", "reward", "dpo", "ppo", "evaluate")
MACHINE = ("seconds", "tokens_per_s", "memory", "at")
"""Figures that tell of the machine and the hour."""


class Lab:
    def __init__(self, folder: Path):
        self.bank = engine.load_bank(BaseSpec(model="tiny", device="cpu"))
        for kind in STAGES:
            engine.stage_function(kind)  # imported once, before the forks
        self.whole = folder / "whole"
        assert self.live(self.whole) == 0

    def live(
        self, runs: Path, *overrides: str, until: str | None = None, disturb: Callable[[], object] = lambda: None, **tools: Any
    ) -> int:
        """One life of the run in ``runs``, which goes on with what is there; its exit code, negative for a signal."""

        def work() -> None:
            disturb()
            with Switch(lambda text: None) as switch:
                parts = engine.Tools(**{"load_bank": lambda spec: self.bank, "stop_asked": switch.asked} | tools)
                outcome = engine.execute(
                    recipe.loads(RECIPE, overrides, name="lab"), RECIPE, overrides, runs=runs, resume=read.latest(runs), until=until,
                    screen=Screen(quiet=True), tools=parts,
                )  # fmt: skip
            print(outcome.error, file=sys.stderr, flush=True)
            os._exit(outcome.exit_code)

        return in_a_fork(work)

    def before(self, stage: str, runs: Path) -> Path:
        """A copy of the whole run without a stage and those after it."""
        shutil.copytree(self.whole, runs)
        for record in self.run(runs).stages():
            if STAGES.index(record.id) >= STAGES.index(stage):
                shutil.rmtree(record.folder.path)
        return runs

    def run(self, runs: Path) -> read.Run:
        found = read.latest(runs)
        assert found is not None
        return found

    def stage(self, runs: Path, stage: str) -> Any:
        return next(record.folder for record in self.run(runs).stages() if record.id == stage)

    def differences(self, runs: Path, stage: str) -> list[str]:
        """Files of a stage's result, and its figures, that are not as in the undisturbed run."""
        whole, other = self.stage(self.whole, stage), self.stage(runs, stage)
        files = sorted(path.relative_to(whole.out) for path in whole.out.rglob("*") if path.is_file())
        found = [str(file) for file in files if not _same(whole.out / file, other.out / file)]
        figures = [[{k: v for k, v in line.items() if not k.startswith(MACHINE)} for line in read.lines(f.metrics)] for f in (whole, other)]
        return found + (["metrics.jsonl"] if figures[0] != figures[1] else [])


def _same(one: Path, other: Path) -> bool:
    if one.suffix == ".safetensors":
        mine, theirs = load_file(one), load_file(other)
        return mine.keys() == theirs.keys() and all(bool((mine[name] == theirs[name]).all()) for name in mine)
    if one.name == "report.json":
        return _timeless(json.loads(one.read_text())) == _timeless(json.loads(other.read_text()))
    return one.read_bytes() == other.read_bytes()


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if not k.startswith(MACHINE)}
    return value


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("lab"))
