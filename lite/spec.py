"""What all knobs have in common: they are frozen, none is unknown, some are marked. And those of the base and of every adapter."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

NO_EFFECT: dict[str, Any] = {"no_effect": True}
"""Marks a knob that cannot change the result, only speed and memory."""
NAMES_STAGES: dict[str, Any] = {"names_stages": True}
"""Marks a knob that lists ids of stages: in a round of a recipe they are the round's own first."""


class Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class BaseSpec(Spec):
    """The one base that every role of a run shares."""

    model: str = Field(default="tiny", description="a Hub id, a folder, or `tiny` (the embedded base)")
    revision: str | None = Field(default=None, description="branch, tag or commit of a Hub id")
    quantize: Literal["nf4", "none"] = Field(default="nf4", description="nf4: 4 bits, block 64, double quantisation; none: 16 or 32 bits")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(default="auto", description="compute type; auto: by device")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: the GPU where there is one")


class LoraSpec(Spec):
    r: int = Field(default=16, ge=1, description="rank")
    alpha: int = Field(default=32, ge=1, description="scale numerator: the update is multiplied by alpha / r")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="dropout on the adapter input while training")
