"""What the tests of the pure tensors share: masked tables, and TRL 1.12's PPO as an outside reference."""

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import Tensor

Table = Callable[..., Tensor]


@pytest.fixture
def table() -> Table:
    """Reproducible normal tables: ``table(3, 5)``, another with ``seed=``."""

    def make(*shape: int, seed: int = 0) -> Tensor:
        return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))

    return make


@pytest.fixture
def keep() -> Tensor:
    """(4, 7): a full row, a short one, one with a single token, and one that starts late."""
    return torch.tensor([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0], [0, 0, 1, 1, 1, 0, 0]]).bool()


@pytest.fixture(scope="session")
def trl_ppo() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
        return pytest.importorskip("trl.experimental.ppo.ppo_trainer", exc_type=ImportError)
