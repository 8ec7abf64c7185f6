"""The scale and bias of reward-model scores, gathered in parts of any size."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, mean and sum of squared deviations: three numbers that can be stored (``dataclasses.asdict``), and merged in any order.

    ``running = running.merge(Moments.of(scores))`` is the running form; ``Moments.of(reference_scores)`` the fixed one.
    """

    count: float = 0.0
    mean: float = 0.0
    deviation: float = 0.0  # sum of (x - mean)^2

    @classmethod
    def of(cls, scores: Tensor) -> "Moments":
        """scores: any shape, finite"""
        if not scores.numel():
            return cls()
        x = scores.detach().double()
        if not torch.isfinite(x).all():
            raise ValueError("a score is not finite")
        mean = x.mean()
        return cls(float(x.numel()), mean.item(), ((x - mean) ** 2).sum().item())

    def merge(self, other: "Moments") -> "Moments":
        """The moments of both parts together (Chan et al. 1979, eq. 2.1)."""
        count = self.count + other.count
        if not count:
            return self
        gap, weight = other.mean - self.mean, other.count / count
        return Moments(count, self.mean + gap * weight, self.deviation + other.deviation + gap**2 * self.count * weight)

    @property
    def std(self) -> float:
        """Population standard deviation; 0 for fewer than two scores."""
        return math.sqrt(self.deviation / self.count) if self.count else 0.0

    def normalize(self, scores: Tensor, *, center: bool, scale: bool) -> Tensor:
        """(scores - mean) / std, each half by choice; the scale stays as it is while there is no spread to divide by."""
        shifted = scores - self.mean if center else scores
        return shifted / self.std if scale and self.std else shifted
