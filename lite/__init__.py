"""lite: RLCD and self-rewarding alignment of a language model with 4-bit adapters on one GPU.

For Python programs: ``from lite import run, load_policy, PPO, ask, LiteError``. A name is fetched when it is asked for, so that
``import lite`` loads neither torch nor anything else.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
PUBLIC = {
    "run": "lite.library.recipes",
    "load_policy": "lite.library.policy",
    "ask": "lite.library.policy",
    "PPO": "lite.library.ppo",
    "LiteError": "lite.errors",
}
"""The names that a program may rely on, and where they live."""


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module 'lite' has no attribute {name!r}")
    return getattr(import_module(PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *PUBLIC])
