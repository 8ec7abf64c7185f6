"""Shared by all tests: the shipped command line in a process of its own, and a run whose stages are fakes."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from lite import engine, recipe
from lite.artifacts import Artifact
from lite.contracts import CONTRACTS
from lite.knobs import BaseSpec
from lite.runs.progress import Screen

ROOT = Path(__file__).parent.parent

# A test process per core: one thread each, or they wait for one another. Read when torch is imported, which is later.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

RECIPE = """
base: {model: tiny}
seed: 17
task: helpful
stages:
  - prompts: {train: 6, dev: 2, test: 3}
  - contrast: {max_new_tokens: 16}
  - reward
  - ppo: {steps: 2, rollouts: 8, minibatch: 4}
  - evaluate: {against: [base]}
"""


@pytest.fixture
def cli() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``lite`` as a user does; the working directory is the repository unless given."""

    def call(*words: object, cwd: Path = ROOT, timeout: float = 600, **env: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "0"} | env  # benchmarks set it to 1
        command = [sys.executable, "-m", "lite.cli", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=timeout, env=environment, check=False)

    return call


class FakeStages:
    """Stages that write one file each and note what they were given. ``fail`` maps a stage's id to what it raises, once."""

    def __init__(self) -> None:
        self.calls: list[SimpleNamespace] = []
        self.fail: dict[str, BaseException] = {}
        self.bases: list[str] = []  # models, in the order in which they were loaded; "freed" where memory was given back

    @property
    def ran(self) -> list[str]:
        return [call.stage for call in self.calls]

    def tools(self) -> engine.Tools:
        return engine.Tools(
            stage_function=self.stage_function,
            load_bank=self.load_bank,
            free_memory=lambda: self.bases.append("freed"),
            make_bench=SimpleNamespace,
        )

    def load_bank(self, spec: BaseSpec) -> object:
        self.bases.append(spec.model)
        return SimpleNamespace(spec=spec)

    def stage_function(self, kind: str) -> Callable[..., Artifact]:
        def stage(spec: object, *, out: Path, bench: SimpleNamespace, **inputs: object) -> Artifact:
            call = SimpleNamespace(stage=bench.stage, spec=spec, inputs=inputs, bench=bench, base=None)
            self.calls.append(call)
            (out / "made.txt").write_text(f"{bench.stage} {spec}\n", encoding="utf-8")
            bench.reporter.metric(step=1, loss=float("nan"))
            bench.reporter.show(prompt="p", reply="r")
            with bench.reporter.progress(2, "rows", "working") as bar:
                bar.advance(1, loss=0.5)
            if CONTRACTS[kind].uses_base:
                call.base = bench.load_bank().spec.model
            if bench.stage in self.fail:
                raise self.fail.pop(bench.stage)
            if kind == "evaluate":
                report = {"models": {"base": {"success": 0.25}}, "comparisons": [], "reward": {}, "diagnostics": {"kl": float("nan")}}
                (out / "report.json").write_text(json.dumps(report), encoding="utf-8")
                (out / "report.md").write_text("# Results\n\n## Models\n\n| base | 25 % |\n\n## Side by side\n\nlong\n", encoding="utf-8")
            return CONTRACTS[kind].gives(out)

        return stage


class FakeRuns:
    """Runs of RECIPE in a folder of their own."""

    def __init__(self, folder: Path):
        self.folder, self.stages = folder, FakeStages()

    def go(self, *overrides: str, text: str = RECIPE, **options: object) -> engine.Outcome:
        loaded = recipe.loads(text, overrides, name="small")
        return engine.execute(
            loaded, text, overrides, runs=self.folder, screen=Screen(quiet=True), tools=self.stages.tools(), **options
        )  # fmt: skip


@pytest.fixture
def fakes(tmp_path: Path) -> FakeRuns:
    return FakeRuns(tmp_path / "runs")


@pytest.fixture
def small_recipe() -> str:
    return RECIPE
