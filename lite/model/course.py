"""What a training goes through, told to TRL's trainers. Apart from them, so that nobody waits for TRL to say it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lite.runs.ranks import ALONE, Ranks


@dataclass(frozen=True, kw_only=True)
class Course:
    """How a training goes, whatever is trained. ``batches``: the rows of every optimiser step, in order; ``begin``: the steps done before."""

    batches: Sequence[Sequence[Any]]
    lr: float
    warmup: float
    weight_decay: float
    max_grad_norm: float
    micro_tokens: int
    seed: int  # of dropout
    folder: Path
    begin: int = 0
    ranks: Ranks = ALONE
