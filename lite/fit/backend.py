"""Whether the backend that a recipe asks for can be had here, as far as that is seen without importing anything."""

import importlib.util
import os
from collections.abc import Collection

from lite.errors import PreconditionError, extra
from lite.fit import cards
from lite.fit.bases import bases
from lite.knobs import BaseSpec
from lite.recipe import Recipe

FORCE_CPU = "UNSLOTH_FORCE_CPU"
"""unsloth's own switch for machines without a GPU: stock forwards, for tests of the wiring."""
PLAIN = "`base.backend=plain` goes on without"
NOT_INSTALLED = f"base.backend: unsloth is not installed; {extra('unsloth')}, or {PLAIN}"
NO_CARD = f"base.backend: unsloth wants an NVIDIA GPU and `base.device` auto or cuda; {PLAIN}"


def installed() -> bool:
    return importlib.util.find_spec("unsloth") is not None


def forced() -> bool:
    return os.environ.get(FORCE_CPU) == "1"


def lacking(recipe: Recipe, only: Collection[str]) -> str | None:
    """What keeps the stages named in ``only`` from the backend that they ask for."""
    return next(filter(None, map(_lacking, bases(recipe, only))), None)


def _lacking(base: BaseSpec) -> str | None:
    if base.backend != "unsloth":
        return None
    if not installed():
        return NOT_INSTALLED
    return NO_CARD if (base.device == "cpu" or not cards.any_gpu()) and not forced() else None


def refuse_backend(recipe: Recipe, only: Collection[str]) -> None:
    """Raise :class:`PreconditionError` now rather than at the first stage with a base."""
    if why := lacking(recipe, only):
        raise PreconditionError(why)
