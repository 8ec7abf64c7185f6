"""The unsloth backend: the same base through unsloth's kernels, on NVIDIA cards.

Importing unsloth patches torch, transformers, peft and trl for the whole process, so nothing but this module imports it, only where it
is the backend, and before transformers (``prepare``). Taken from it are the loader and the forward passes of the decoder that it
patches in. Adapters, generation, checkpointing and optimiser stay lite's own, so that artifacts are the same.

``base.backend`` belongs to a base's identity as it is written, ``auto`` as ``auto``: like ``device``, it moves the last bits, and a
plan has to be the same on a laptop and on the machine with the GPU. env.json tells which unsloth a run had.
"""

import functools
import importlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

from lite.errors import PreconditionError
from lite.fit import backend
from lite.fit.backend import PLAIN
from lite.knobs import BaseSpec
from lite.runs.env import cache_folder

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)


def chosen(spec: BaseSpec) -> bool:
    """Whether the base of a recipe runs on unsloth. :class:`PreconditionError` where it should and cannot, or should not and would."""
    installed = backend.installed()
    if spec.backend == "plain":
        if "unsloth" in sys.modules:
            raise PreconditionError("base.backend: unsloth has patched this process already; run the plain backend in one of its own")
        return False
    if spec.backend == "auto":
        return installed and _nvidia(spec)
    if not installed:
        raise PreconditionError(backend.NOT_INSTALLED)
    if not _nvidia(spec) and not backend.forced():
        raise PreconditionError(backend.NO_CARD)
    return True


def prepare(spec: BaseSpec) -> None:
    """Import unsloth if it is the backend. To be called before anything imports transformers, trl or peft."""
    if chosen(spec):
        _imported()


def read(
    spec: BaseSpec, source: str, device: "torch.device", dtype: "torch.dtype", where: dict[str, Any]
) -> "PreTrainedModel":  # fmt: skip
    """The base through ``FastLanguageModel``, with a decoder that takes transformers' caches."""
    import torch
    from transformers import AutoConfig

    if spec.cache_4bit:
        log.warning("base.cache_4bit does nothing here: unsloth reads and quantises by itself")
    longest = AutoConfig.from_pretrained(source, **where).max_position_embeddings
    try:
        model, _ = _aside(
            _imported().FastLanguageModel.from_pretrained,
            model_name=source,
            max_seq_length=longest,  # beyond it unsloth cuts inputs; above the config's it would stretch the positions
            dtype=dtype,
            load_in_4bit=spec.quantize == "nf4",
            device_map={"": str(device)},
            use_exact_model_name=True,  # else a copy of unsloth's own would be loaded in the place of the named weights
            fix_tokenizer=False,
            use_gradient_checkpointing=False,  # the bank's own
            **where,
        )
    except torch.OutOfMemoryError:
        raise
    except (ImportError, RuntimeError, NotImplementedError, AssertionError) as e:  # what unsloth raises where it cannot work
        raise _refusal(f"could not load {spec.model!r}", e) from e
    decoder = model.get_decoder()
    if type(decoder).forward.__module__.startswith("unsloth."):
        decoder.forward = with_caches(decoder.forward)
    try:
        _refuse_strange_cache(model)
    except (RuntimeError, TypeError, AttributeError, IndexError, KeyError, ValueError, AssertionError) as e:
        raise _refusal(f"cannot decode {spec.model!r} with a cache", e) from e
    log.info("%s runs on unsloth %s", spec.model, getattr(_imported(), "__version__", "?"))
    return model


def with_caches(forward: Callable[..., Any]) -> Callable[..., Any]:
    """unsloth's forward takes and gives keys and values as tuples; the caches of transformers are filled in place."""

    @functools.wraps(forward)
    def bridged(*positional: Any, past_key_values: Any = None, **named: Any) -> Any:
        if not hasattr(past_key_values, "layers"):
            return forward(*positional, past_key_values=past_key_values, **named)
        n = past_key_values.get_seq_length()  # a layer may own columns beyond it that are not written yet
        given = tuple((layer.keys[:, :, :n], layer.values[:, :, :n]) for layer in past_key_values.layers) if n else None
        out = forward(*positional, past_key_values=given, **named)
        for i, (keys, values) in enumerate(out.past_key_values):  # the old and the new ones
            past_key_values.update(keys[:, :, n:], values[:, :, n:], i)
        out.past_key_values = past_key_values
        return out

    return bridged


def _nvidia(spec: BaseSpec) -> bool:
    import torch

    return spec.device != "cpu" and torch.cuda.is_available() and torch.version.hip is None


def _imported() -> Any:
    if "unsloth" in sys.modules:
        return sys.modules["unsloth"]
    os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")  # it counts loads by a download
    os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", str(cache_folder() / "unsloth"))  # else in the working directory
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _aside(importlib.import_module, "unsloth")
    except Exception as e:  # it refuses what it finds unfit in many ways
        raise _refusal("could not be imported", e) from e


def _aside(call: Callable[..., Any], *positional: Any, **named: Any) -> Any:
    """What unsloth prints goes to the log: standard output is for results."""
    told = io.StringIO()
    try:
        with redirect_stdout(told):
            return call(*positional, **named)
    finally:
        for line in told.getvalue().splitlines():
            log.info("%s", line)


def _refuse_strange_cache(model: "PreTrainedModel") -> None:
    """Two rows through a cache in two pieces, with columns that nobody attends to, as generation does it, against each row alone."""
    import torch
    from transformers import DynamicCache

    ids = torch.tensor([[0, 3, 5, 0, 7], [2, 4, 6, 8, 1]], device=model.device)
    attend = torch.tensor([[0, 1, 1, 0, 1], [1, 1, 1, 1, 1]], device=model.device)
    places = (attend.cumsum(-1) - 1).clamp(min=0)
    trunk, cache = model.get_decoder(), DynamicCache()
    model.eval()
    with torch.no_grad():
        alone = [
            trunk(input_ids=row[keep.bool()][None], use_cache=False).last_hidden_state[0, -1] for row, keep in zip(ids, attend, strict=True)
        ]
        for piece in (slice(0, 3), slice(3, 5)):
            named = {"attention_mask": attend[:, : piece.stop], "position_ids": places[:, piece]}
            last = trunk(input_ids=ids[:, piece], past_key_values=cache, use_cache=True, **named).last_hidden_state[:, -1]
    exact = torch.stack(alone).float()
    off = float(((last.float() - exact).norm(dim=-1) / exact.norm(dim=-1)).max())
    if not off < 0.05 or cache.get_seq_length() != ids.shape[1]:
        raise RuntimeError(f"states after a cached pass are off by {off:.0%}")


def _refusal(what: str, error: Exception) -> PreconditionError:
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return PreconditionError(f"base.backend: unsloth {what}: {line} ({PLAIN})")
