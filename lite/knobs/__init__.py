"""What all knobs have in common: they are frozen, none is unknown, some are marked. And those of the base and of every adapter."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

NO_EFFECT: dict[str, Any] = {"no_effect": True}
"""Marks a knob that cannot change the result, only speed and memory."""
NAMES_STAGES: dict[str, Any] = {"names_stages": True}
"""Marks a knob that lists ids of stages: in a round of a recipe they are the round's own first."""


class Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)  # an input may hold a key


def with_preset(presets: Mapping[str, Mapping[str, Any]], usual: str, given: Any) -> Any:
    """The knobs with their preset's below them: what the recipe gives wins. An unknown preset is left for the field to report."""
    if not isinstance(given, dict):
        return given
    preset = given.get("preset", usual)
    return {**presets.get(preset, {}), **given} if isinstance(preset, str) else given


class BaseSpec(Spec):
    """The base that every role of a run shares, or that a stage has for itself."""

    model: str = Field(default="tiny", description="a Hub id, a folder, or `tiny` (the embedded base)")
    revision: str | None = Field(default=None, description="branch, tag or commit of a Hub id")
    quantize: Literal["nf4", "none"] = Field(default="nf4", description="nf4: 4 bits, block 64, double quantisation; none: 16 or 32 bits")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(default="auto", description="compute type; auto: by device")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: the GPU where there is one")
    backend: Literal["auto", "plain", "unsloth"] = Field(
        default="auto", description="auto: unsloth where it is installed and the GPU is NVIDIA's, else plain"
    )
    cache_4bit: bool = Field(
        default=False, description="keep a 4-bit copy on disk, so that the next start reads a quarter", json_schema_extra=NO_EFFECT
    )


class OwnBase(Spec):
    """Knobs of a stage that only writes with an untouched base: that may be another one than the run's.

    Yang et al. 2023, section 4: a 30B base writes the pairs that a 7B base learns from.
    """

    base: BaseSpec | None = Field(
        default=None, description="another base for this stage; what it leaves out is as in the run's; none: the run's"
    )


def base_of(spec: Spec, shared: BaseSpec) -> BaseSpec:
    """The base that a stage runs on, if it uses one: its own where it names one, else the run's."""
    return spec.base if isinstance(spec, OwnBase) and spec.base else shared


def served(spec: Spec) -> bool:
    """Whether another program does the stage's writing, so that no base is loaded for it."""
    return getattr(spec, "server", None) is not None


class LoraSpec(Spec):
    r: int = Field(default=16, ge=1, description="rank")
    alpha: int = Field(default=32, ge=1, description="scale numerator: the update is multiplied by alpha / r")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="dropout on the adapter input while training")
