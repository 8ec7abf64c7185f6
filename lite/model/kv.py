"""A cache of keys and values that grows by blocks, loses rows and takes new ones in.

``transformers``' DynamicCache copies the whole cache for every token (a concatenation per layer). Here a layer owns columns that are
not written yet, a token is written where it belongs, and what lies there is copied when a block is full: once in ``BLOCK`` tokens.
"""

from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

BLOCK = 32
"""Columns of room: at most so many are held in vain, and one copy of the cache comes on so many tokens."""


class BlockLayer(CacheLayerMixin):
    """One layer's keys and values, (rows, heads, columns + room, head size) each; ``length`` columns are written.

    What is not written is zero: a masked column is multiplied by 0, and whatever memory held before may be no number.
    """

    is_sliding = False

    def __init__(self) -> None:
        super().__init__()
        self.length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: object, **named: object) -> tuple[Tensor, Tensor]:
        """Write the new columns; views of all that are written."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        end = self.length + key_states.shape[-2]
        if end > self.keys.shape[-2]:
            self.keys = _room(self.keys[:, :, : self.length], end)
            self.values = _room(self.values[:, :, : self.length], end)
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def take(self, rows: Tensor, first: int, beside: "BlockLayer | None") -> None:
        assert self.keys is not None
        assert self.values is not None
        self.keys = _stack(self.keys[:, :, first : self.length], rows, beside and beside.keys, beside.length if beside else 0)
        self.values = _stack(self.values[:, :, first : self.length], rows, beside and beside.values, beside.length if beside else 0)
        self.length = max(self.length - first, beside.length if beside else 0)

    def get_seq_length(self) -> int:
        return self.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_max_length(self) -> int:
        return -1  # transformers' word for "no end"


class BlockCache(Cache):
    """Of the interface of ``transformers``' caches, what a forward pass asks for; rows come and go by ``take``."""

    layers: list[BlockLayer]

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=BlockLayer)

    def take(self, rows: Tensor, *, first: int = 0, beside: "BlockCache | None" = None) -> None:
        """Only these rows (one may come several times), from column ``first`` on; under them all rows of another cache, which is used up.

        Columns end together on the right; the narrower of the two gets zeros on its left, which are to be masked.
        """
        for i, layer in enumerate(self.layers):
            other = beside.layers[i] if beside else None
            layer.take(rows, first, other)
            if other:
                other.keys = other.values = None  # so that no more than one layer lies there twice


def _room(written: Tensor, columns: int) -> Tensor:
    """A copy with room for so many columns, and a block more."""
    rows, heads, n, size = written.shape
    found = written.new_zeros(rows, heads, columns + BLOCK, size)
    found[:, :, :n] = written
    return found


def _stack(own: Tensor, rows: Tensor, other: Tensor | None, length: int) -> Tensor:
    """``rows`` of one over ``length`` columns of the other, right-aligned, with a block of room."""
    width, more = max(own.shape[2], length), 0 if other is None else len(other)
    found = own.new_zeros(len(rows) + more, own.shape[1], width + BLOCK, own.shape[3])
    found[: len(rows), :, width - own.shape[2] : width] = own[rows]
    if other is not None:
        found[len(rows) :, :, width - length : width] = other[:, :, :length]
    return found
