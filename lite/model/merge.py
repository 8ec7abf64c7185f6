"""Merge an adapter into the 16-bit weights of its base, shard by shard: at most one shard is in memory, never the model.

    W' = W + (alpha / r) B A                    (Hu et al. 2021, section 4.1)

The sum is made in 32 bits and rounded once. It is never made on 4-bit weights: the grid would swallow most of the update. So the
merged model is the 16-bit base with the adapter on it, and differs from the 4-bit model that was trained by the base's quantisation.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from lite.errors import ArtifactError, PreconditionError
from lite.model.plain import CONFIG, WEIGHTS
from lite.sources.reach import INDEX
from lite.sources.reach import WEIGHTS as WHOLE

SHARD_BYTES = 2 * 2**30
"""Bytes of one written file, and so of what is in memory at once; a tensor that is larger has a file of its own."""
NARROW = {"BF16": torch.bfloat16, "F16": torch.float16}
WIDE = {"F32": torch.float32, "F64": torch.float64}
PREFIX = "base_model.model."


class Stored(NamedTuple):
    """One tensor of the base as it lies on the disk, and the type and size that it has in the merged model."""

    name: str
    file: Path
    shape: tuple[int, ...]
    dtype: torch.dtype | None  # None: not a float, stays as it is
    bytes: int


class Low(NamedTuple):
    """The update of one layer: ``scale * b @ a``."""

    a: Tensor  # (r, in)
    b: Tensor  # (out, r)
    scale: float


def stored(base: Path, *, dtype: torch.dtype | None = None) -> list[Stored]:
    """The tensors of a folder of safetensors, read from their headers. ``dtype``: of all floats; none: 16-bit ones keep theirs.

    Raises :class:`PreconditionError` for a base that is quantised already, or not in safetensors.
    """
    config = _json(base / "config.json")
    if config.get("quantization_config"):
        raise PreconditionError(f"{base}: these weights are quantised already; merge onto the 16-bit original (base.model)")
    named = torch.float16 if (config.get("dtype") or config.get("torch_dtype")) == "float16" else torch.bfloat16
    found = []
    for file in _files(base):
        try:
            with safe_open(file, "pt") as opened:
                for name in opened.keys():  # noqa: SIM118  a safe_open is no mapping
                    part = opened.get_slice(name)
                    shape, kind = tuple(part.get_shape()), part.get_dtype()
                    own = NARROW.get(kind) or (named if kind in WIDE else None)
                    becomes = dtype if own and dtype else own
                    size = becomes.itemsize if becomes else _itemsize(kind)
                    found.append(Stored(name, file, shape, becomes, prod(shape) * size))
        except (OSError, SafetensorError) as e:
            raise PreconditionError(f"{file}: cannot be read ({e}); is the base complete?") from e
    return found


def merge(
    base: Path,
    adapter: Path,
    out: Path,
    *,
    dtype: torch.dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
    done: Callable[[int], None] = lambda n: None,
) -> None:
    """Write the merged weights, and their index where there are several files, into the folder ``out``.

    done: told the number of bytes after every file
    Raises :class:`ArtifactError` where the adapter does not fit the base.
    """
    tensors, updates = stored(base, dtype=dtype), low_rank(adapter)
    places = _places(updates, tensors, adapter)
    shards = divide(tensors, shard_bytes)
    weight_map = {}
    for i, shard in enumerate(shards, 1):
        name = WHOLE if len(shards) == 1 else f"model-{i:05d}-of-{len(shards):05d}.safetensors"
        save_file({t.name: _merged(t, places.get(t.name)) for t in shard}, out / name, metadata={"format": "pt"})
        weight_map.update({t.name: name for t in shard})
        done(sum(t.bytes for t in shard))
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(t.bytes for t in tensors)}, "weight_map": dict(sorted(weight_map.items()))}
        (out / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def divide(tensors: Iterable[Stored], shard_bytes: int) -> list[list[Stored]]:
    """Consecutive tensors in shards of at most ``shard_bytes``, or of one tensor."""
    shards: list[list[Stored]] = []
    room = 0
    for tensor in tensors:
        if not shards or tensor.bytes > room:
            shards.append([])
            room = shard_bytes
        shards[-1].append(tensor)
        room -= tensor.bytes
    return shards


def low_rank(adapter: Path) -> dict[str, Low]:
    """The updates of a plain LoRA folder by the layer's name, such as ``model.layers.0.mlp.up_proj``."""
    config = _json(adapter / CONFIG)
    odd = [name for name in ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save", "lora_bias") if config.get(name)]
    if config.get("peft_type") != "LORA" or odd:
        raise ArtifactError(f"{adapter}: not a plain LoRA adapter ({', '.join(odd) or 'no LoRA at all'}), which is all that can be merged")
    try:
        weights = load_file(adapter / WEIGHTS)
    except (OSError, SafetensorError) as e:
        raise ArtifactError(f"{adapter / WEIGHTS}: cannot be read ({e}); run the stage that writes it again") from e
    layers = {name.removesuffix(".lora_A.weight") for name in weights if name.endswith(".lora_A.weight")}
    scale = config["lora_alpha"] / config["r"]
    return {
        layer.removeprefix(PREFIX): Low(weights[f"{layer}.lora_A.weight"], weights[f"{layer}.lora_B.weight"], scale)
        for layer in sorted(layers)
    }


def _places(updates: Mapping[str, Low], tensors: Sequence[Stored], adapter: Path) -> dict[str, Low]:
    """The updates by the name that their layer's weight has on the disk.

    A checkpoint may have been written from the trunk alone (``layers.0...``) or from inside another model
    (``language_model.model.layers.0...``): then one name is the other's end.
    """
    by_name = {t.name: t for t in tensors}
    found: dict[str, Low] = {}
    for layer, update in updates.items():
        wanted = f"{layer}.weight"
        fits = [wanted] if wanted in by_name else [n for n in by_name if n.endswith(f".{wanted}") or wanted.endswith(f".{n}")]
        shape = (len(update.b), update.a.shape[1])
        if len(fits) != 1 or by_name[fits[0]].shape != shape or fits[0] in found:
            there = f"{fits[0]} {by_name[fits[0]].shape}" if fits else "nothing so named"
            raise ArtifactError(f"{adapter}: the adapter is from another base: {wanted} {shape}, where the base has {there}")
        found[fits[0]] = update
    return found


@torch.no_grad()
def _merged(tensor: Stored, update: Low | None) -> Tensor:
    with safe_open(tensor.file, "pt") as opened:
        weight = opened.get_tensor(tensor.name)
    if update:
        weight = weight.float().addmm_(update.b.float(), update.a.float(), alpha=update.scale)
    return weight.to(tensor.dtype) if tensor.dtype else weight


def _files(base: Path) -> list[Path]:
    index = base / INDEX
    names = sorted(set(_json(index)["weight_map"].values())) if index.is_file() else [WHOLE]
    if missing := [name for name in names if not (base / name).is_file()]:
        raise PreconditionError(f"{base}: {', '.join(missing)} missing; merging needs the base's weights as safetensors")
    return [base / name for name in names]


def _itemsize(kind: str) -> int:
    """Bytes of an element of a type that is no float, by its name in safetensors: I64, U8, BOOL."""
    bits = "".join(c for c in kind if c.isdigit())
    return int(bits[:2]) // 8 if bits else 1


def _json(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise ArtifactError(f"{file}: cannot be read ({e})") from e
