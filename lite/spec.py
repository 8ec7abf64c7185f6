"""What all knobs have in common: they are frozen, none is unknown, and some are marked."""

from typing import Any

from pydantic import BaseModel, ConfigDict

NO_EFFECT: dict[str, Any] = {"no_effect": True}
"""Marks a knob that cannot change the result, only speed and memory."""
NAMES_STAGES: dict[str, Any] = {"names_stages": True}
"""Marks a knob that lists ids of stages: in a round of a recipe they are the round's own first."""


class Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
