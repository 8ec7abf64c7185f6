"""Graphics cards: how much of their memory can be used, and how fast they are by their makers' figures.

A time is a range. Its lower end is the roofline: the slower of the memory bandwidth over what must be read and the tensor units' dense
16-bit rate over what must be multiplied. Its upper end assumes a third of that rate, and decoding steps that wait for kernel launches.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from lite.fit import sizes
from lite.fit.demand import Decode, Pass
from lite.fit.shape import Shape
from lite.knobs import BaseSpec

USABLE = 0.97
"""The driver and a screen keep some of a card for themselves."""
EFFICIENCY = 0.35
"""Share of the peak rate that eager transformers code reaches: an assumption."""
LAYER_SECONDS = 0.00046
"""Kernel launches of one decoder layer in one decoding step without adapters: 68 tokens/s published for an 8B base in NF4 on a 4090."""
ADAPTER_FACTOR = 2.0
"""Launches with an unmerged adapter over launches without: an assumption."""


class Card(NamedTuple):
    name: str
    memory_gib: float
    bandwidth: float  # bytes/s
    flops: float  # 16-bit, dense, fp32 sums


CARDS = (
    Card("RTX 4060", 8, 272e9, 30e12),
    Card("RTX 3060", 12, 360e9, 25e12),
    Card("RTX 4060 Ti", 16, 288e9, 44e12),
    Card("RTX 4090", 24, 1008e9, 165e12),
    Card("RTX A6000", 48, 768e9, 155e12),
    Card("A100", 80, 1935e9, 312e12),
    Card("H200", 141, 4800e9, 989e12),
)
"""A card per class of memory, by its maker's figures."""
NAMED = {
    "T4": 15,  # of its 16 a driver offers 15
    "RTX 4060": 8,
    "RTX 3060": 12,
    "RTX 3090": 24,
    "RTX 4090": 24,
    "RTX 5090": 32,
    "RTX A6000": 48,
    "A100-40": 40,
    "A100-80": 80,
    "H100": 80,
    "H200": 141,
}
"""GB by name; a name that comes with several sizes has its size in it."""
MOST = 300
"""GB: more than any card has."""


def size(text: str) -> float:
    """GB of a card, from a number (8, 8GB) or a well-known name (T4, RTX 4090, 4090). Raises ValueError with what to write."""
    plain = _plain(text)
    named = {_plain(name): float(gb) for name, gb in NAMED.items()}
    if plain in named:
        return named[plain]
    number = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)", plain)
    if number and 1 <= float(number[1]) <= MOST:
        return float(number[1])
    meant = f"; in MiB that is {float(number[1]) / 1024:g} GB" if number and MOST < float(number[1]) < 1024 * MOST else ""
    raise ValueError(
        f"the GB of a card's memory are needed, 1 to {MOST}, such as 8, 12, 24 or 15 for a T4 (got {text!r}{meant}); "
        f"names that are known: {', '.join(NAMED)}"
    )


def _plain(text: str) -> str:
    """A size or a name without maker, series, unit, spaces and dashes."""
    words = re.sub(r"\s+|(?<=\w)[_-]", "", text.lower())
    return re.sub(r"gi?b$", "", re.sub(r"^(nvidia)?(geforce)?(rtx)?", "", words))


def usable(card_gib: float) -> int:
    return int(USABLE * card_gib * sizes.GIB)


def class_of(card_gib: float) -> Card:
    """The card that stands for a memory size: the largest that is no larger."""
    return next((card for card in reversed(CARDS) if card.memory_gib <= card_gib * 1.05), CARDS[0])


def seconds(work: Decode | Pass, shape: Shape, base: BaseSpec, card: Card) -> tuple[float, float]:
    """From roofline to pessimist."""
    unpack = shape.linear_weights * 4.5 / card.bandwidth if base.quantize == "nf4" else 0.0  # half a byte read, two written, two read again
    if isinstance(work, Pass):
        products = work.products * work.tokens * shape.linear_weights / card.flops
        unpacking = -(-work.tokens // work.micro_tokens) * work.unpacked * unpack
        return max(products, unpacking), products / EFFICIENCY + unpacking
    wide = sizes.wide(base)
    rows = min(work.rows, work.responses) or 1
    batches = -(-work.responses // rows)
    weights = sizes.base_weights(shape, base) + shape.vocab * shape.hidden * wide
    read = weights + rows * sizes.kv_cache(shape, work.prompt + work.new // 2, wide)
    step = max(read / card.bandwidth, 2 * rows * shape.linear_weights / card.flops)
    launches = shape.layers * LAYER_SECONDS * (ADAPTER_FACTOR if work.adapter else 1.0)
    slow = max(step / EFFICIENCY, launches + (unpack if rows > 1 else 0.0))
    prompts = 2 * work.responses * work.prompt * shape.linear_weights / card.flops
    return batches * work.new * step + prompts, batches * work.new * slow + prompts / EFFICIENCY


def any_gpu() -> bool:
    """Whether there is a sign of a GPU, of whatever make."""
    return this_card() is not None or any(Path(sign).exists() for sign in ("/dev/nvidia0", "/dev/kfd", "/dev/dxg"))


def this_card() -> float | None:
    """GiB of the GPU that a run would use, by ``nvidia-smi``: no torch is needed. None where there is none to be seen."""
    program = shutil.which("nvidia-smi")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    if program is None or not visible or visible.startswith("-"):
        return None
    command = [program, f"--id={visible}", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        return int(done.stdout.split()[0]) / 1024
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):
        return None
