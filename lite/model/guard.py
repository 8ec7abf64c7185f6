"""What keeps a bad update from the weights while a foreign trainer runs its loop."""

from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback

from lite.errors import DivergedError


class Guard(TrainerCallback):
    """Refuses a gradient that is not finite, before the optimiser sees it."""

    def __init__(self, parameters: list[nn.Parameter], begin: int):
        self._parameters, self._begin = parameters, begin

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        norms = [p.grad.norm() for p in self._parameters if p.grad is not None]
        if norms and not torch.stack(norms).isfinite().all():
            raise DivergedError(f"step {self._begin + state.global_step + 1}: the gradient is not finite; lower the learning rate")
