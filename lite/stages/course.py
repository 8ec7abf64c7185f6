"""How SFT and DPO go through their rows: the course that both give their trainer."""

from collections.abc import Sequence
from typing import Any

from lite.knobs.training import TuneSpec
from lite.model.course import Course
from lite.stages.bench import Bench
from lite.stages.tuning import batches, done_before


def course(spec: TuneSpec, rows: Sequence[Any], per_step: int, *, epochs: int, lr: float, bench: Bench) -> Course:
    """``rows`` in their order over all epochs, ``per_step`` to an optimiser step; from where an interrupted training stopped."""
    return Course(
        batches=batches(rows, per_step, epochs=epochs, bench=bench),
        lr=lr,
        warmup=spec.warmup,
        weight_decay=spec.weight_decay,
        max_grad_norm=spec.max_grad_norm,
        micro_tokens=spec.micro_tokens,
        seed=bench.seed_for("dropout"),
        folder=bench.ckpt,
        begin=done_before(bench),
        ranks=bench.ranks,
    )
