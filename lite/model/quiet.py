"""What libraries say while a base is loaded, and a user of lite need not hear. Two things, and nothing else is silenced:

1. bitsandbytes, on CPUs with AVX512-BF16, warns at import that the optional package ``kernels`` is not installed. The kernel that
   it would fetch is for repacked weights, which ``lite.model.base`` switches off: it would never run.
2. transformers draws bars "Loading weights" and "Writing model shards" on stderr, between lite's own. Downloads keep theirs: they
   take minutes.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

BARS = ("Loading weights", "Writing model shards")


def hush() -> None:
    """Drop the first; to be called before bitsandbytes is imported."""
    logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(_wanted)


def _wanted(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("Failed to load CPU gemm_4bit_forward from kernels-community")


@contextmanager
def no_loading_bar() -> Iterator[None]:
    """Drop the second inside the block."""
    from transformers.utils.logging import set_tqdm_hook

    before = set_tqdm_hook(_without_bar)
    try:
        yield
    finally:
        set_tqdm_hook(before)


def _without_bar(bar: Callable[..., Any], positional: tuple[Any, ...], named: dict[str, Any]) -> Any:
    return bar(*positional, **named | ({"disable": True} if named.get("desc") in BARS else {}))
