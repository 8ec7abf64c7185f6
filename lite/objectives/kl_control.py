"""The coefficient of the KL price: fixed, or steered to a target.

Both have ``coef``, ``update(kl, n)`` after each rollout, and ``state_dict`` / ``load_state_dict`` for resuming.
"""

import math
from dataclasses import dataclass
from typing import Protocol


class KlControl(Protocol):
    @property
    def coef(self) -> float: ...

    def update(self, kl: float, n: int) -> None: ...

    def state_dict(self) -> dict[str, float]: ...

    def load_state_dict(self, state: dict[str, float]) -> None: ...


@dataclass(frozen=True, slots=True)
class FixedKl:
    """The coefficient of the recipe, always; it has no state, so a checkpoint cannot change it."""

    coef: float

    def update(self, kl: float, n: int) -> None:
        """Nothing to learn."""

    def state_dict(self) -> dict[str, float]:
        return {}

    def load_state_dict(self, state: dict[str, float]) -> None:
        if state:
            raise ValueError(f"a fixed KL coefficient has no state, the checkpoint has {state}")


@dataclass(slots=True)
class AdaptiveKl:
    """A proportional controller in log space (Ziegler et al. 2019, §2.2).

        error = clip(kl / target - 1, -0.2, 0.2)
        coef <- coef * (1 + error * n / horizon)

    ``kl`` is the mean KL of a response (summed over its tokens) and ``n`` the number of responses since the last update;
    ``horizon`` is in responses. Off by 20% or more for one horizon, the coefficient moves by about a factor of e^0.2.
    """

    coef: float
    target: float
    horizon: float

    def __post_init__(self) -> None:
        if min(self.coef, self.target, self.horizon) <= 0:
            raise ValueError(f"coef, target and horizon must be above 0: {self}")

    def update(self, kl: float, n: int) -> None:
        if math.isnan(kl):
            raise ValueError("the KL is NaN")
        factor = 1 + max(-0.2, min(0.2, kl / self.target - 1)) * n / self.horizon
        if factor <= 0:
            raise ValueError(f"{n} responses in one update turn the coefficient negative: horizon {self.horizon:g} is too short")
        self.coef *= factor

    def state_dict(self) -> dict[str, float]:
        return {"coef": self.coef}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.coef = state["coef"]
