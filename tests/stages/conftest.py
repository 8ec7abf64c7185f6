"""The embedded base with small sizes: every stage once, in order, on real weights."""

from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lite import tasks
from lite.knobs import BaseSpec
from lite.model.bank import AdapterBank
from lite.model.base import load_base
from lite.runs.checkpoints import Checkpoints
from lite.stages.bench import Bench


class Silent:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.metrics: list[dict[str, Any]] = []
        self.shown: list[dict[str, Any]] = []
        self.advanced = 0

    @contextmanager
    def progress(self, total: int, unit: str, what: str):
        yield self

    def advance(self, n: int = 1, **figures: float) -> None:
        self.advanced += n

    def metric(self, **values: Any) -> None:
        self.metrics.append(values)

    def show(self, **values: Any) -> None:
        self.shown.append(values)

    def log(self, text: str) -> None: ...

    def figures(self) -> dict[str, int]:
        return {}


@pytest.fixture(scope="session")
def tiny_bank() -> AdapterBank:
    return AdapterBank(load_base(BaseSpec(model="tiny", device="cpu")))


@pytest.fixture(scope="session")
def make_bench(tiny_bank: AdapterBank, tmp_path_factory: pytest.TempPathFactory):
    def make(stage: str, *, task: str = "helpful", seed: int = 17, ckpt: Path | None = None, **more: Any) -> Bench:
        """``ckpt``: that of an earlier bench, to go on from what it left, as the engine does."""
        left = Checkpoints(ckpt).newest()[0] if ckpt else None
        ckpt = ckpt or tmp_path_factory.mktemp(f"{stage}-ckpt")
        parts = {"reporter": Silent(), "load_bank": lambda: tiny_bank, "resumed": left} | more
        return Bench(task=tasks.load(task), seed=seed, stage=stage, ckpt=ckpt, **parts)

    return make


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory):
    def make(name: str) -> Path:
        return tmp_path_factory.mktemp(name)

    return make
