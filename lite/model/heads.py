"""Scalar heads: one number per position, in 32 bits, beside an adapter."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lite.errors import ArtifactError

Pool = Literal["last", "mean"]


class ScalarHead(nn.Module):
    """A linear map from hidden state to one number; reads any float type, computes in fp32.

    ``pool`` says how a whole response is read: at its last token, or as the mean over its tokens. It is stored with the weights.
    """

    def __init__(self, hidden_size: int, device: torch.device, pool: Pool = "last"):
        super().__init__()
        self.pool: Pool = pool
        self.weight = nn.Parameter(torch.zeros(1, hidden_size, device=device))
        self.bias = nn.Parameter(torch.zeros(1, device=device))

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden: (..., D) any float -> (...) fp32"""
        return nn.functional.linear(hidden.float(), self.weight, self.bias)[..., 0]

    def randomize(self, seed: int) -> "ScalarHead":
        """Normal weights of standard deviation 1 / sqrt(D + 1), zero bias (Stiennon et al. 2020)."""
        generator = torch.Generator().manual_seed(seed)
        draw = torch.randn(self.weight.shape, generator=generator) / (self.weight.shape[1] + 1) ** 0.5
        with torch.no_grad():
            self.weight.copy_(draw)
            self.bias.zero_()
        return self

    def copy_from(self, other: "ScalarHead") -> "ScalarHead":
        with torch.no_grad():
            self.weight.copy_(other.weight)
            self.bias.copy_(other.bias)
        return self

    def save(self, file: Path) -> None:
        weights = {"weight": self.weight.detach().cpu().contiguous(), "bias": self.bias.detach().cpu().contiguous()}
        save_file(weights, file, metadata={"pool": self.pool})

    def load(self, file: Path) -> "ScalarHead":
        if not file.is_file():
            raise ArtifactError(f"{file}: no such head; run the reward stage again")
        try:
            stored = load_file(file)
            with safe_open(file, "pt") as opened:
                pool = (opened.metadata() or {}).get("pool", "last")
        except (OSError, SafetensorError) as e:
            raise ArtifactError(f"{file}: the head cannot be read ({e}); run the reward stage again") from e
        found, wanted = _shapes(stored), _shapes(self.state_dict())
        if found != wanted:
            raise ArtifactError(f"{file}: not the head of this base ({found}, not {wanted}); run the reward stage again")
        if pool not in ("last", "mean"):
            raise ArtifactError(f"{file}: read by {pool!r}, which this version does not know; run the reward stage again")
        self.load_state_dict(stored)
        self.pool = cast(Pool, pool)
        return self


def _shapes(tensors: Mapping[str, Tensor]) -> str:
    return " and ".join(f"{name} {tuple(tensors[name].shape)}" for name in sorted(tensors, reverse=True))
