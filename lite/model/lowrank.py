"""Adapters at inference: their low-rank parts, added to what a base with its adapters off gives.

The operations of PEFT, hence its bits (where alpha / r is a power of two), without its copies: with one adapter it clones, scales and
adds at full width in every layer; with a batch of several (``adapter_names``) it also copies each one's rows out and back in, and a mixed
pass took longer than a pass per role wherever unpacking the base is not most of the work.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, cast

from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


class Stretch(NamedTuple):
    rows: slice | None  # of the batch; None: all
    adapter: str  # its name in PEFT


@contextmanager
def added(layers: Iterable[LoraLayer], stretches: Sequence[Stretch], *, of: int | None = None) -> Iterator[None]:
    """Within the block, each adapted layer adds to its output, in place, y[rows] += scale * B A x[rows] for every stretch.

    layers: with their adapters off (``disable_adapters``)     of: how many rows every batch must have
    """
    hooks = [_adding(layer, stretches, of) for layer in layers if stretches]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _adding(layer: LoraLayer, stretches: Sequence[Stretch], of: int | None) -> RemovableHandle:
    own = [
        (rows, cast(nn.Linear, layer.lora_A[adapter]), layer.lora_B[adapter], layer.scaling[adapter])
        for rows, adapter in stretches
        if adapter in layer.lora_A  # an adapter may leave layers out
    ]

    def add(_: nn.Module, positional: tuple[Tensor, ...], output: Tensor) -> None:
        x = positional[0]
        if of not in (None, len(x)):
            raise ValueError(f"a mixed pass of {of} roles over {len(x)} rows: one role per row")
        for rows, down, up, scale in own:
            read, written = (x, output) if rows is None else (x[rows], output[rows])
            written.add_(up(down(read.to(down.weight.dtype)).mul_(scale)).to(output.dtype))

    return cast(nn.Module, layer).register_forward_hook(add)
