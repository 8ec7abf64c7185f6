"""How many bytes each part of a run takes, by arithmetic on a base's shape: pure functions, whole numbers.

Weights, adapters, optimiser states and caches are counted as bitsandbytes, PEFT and transformers store them, and agree to the byte
with real small models. Activations are the tensors that autograd keeps and the largest that live beside them, term by term; a
test counts them on real models. ``wide`` is bytes per number of the compute type: 2 for bf16 and fp16, 4 for fp32.
"""

from collections.abc import Iterable

from lite.fit.shape import Shape
from lite.knobs import BaseSpec

GIB = 2**30
NF4_BLOCK = 64
STATISTICS_BLOCK = 256
SMALLEST_8BIT = 4096
HEAD_CHUNK = 256
"""Positions per slice of the output head, as in ``lite.model.forward``."""
ROOM = 32
"""Columns of the cache that are not written yet, as in ``lite.model.kv``."""
CONTEXT = GIB // 2
"""What the CUDA context and the loaded kernels take: an allowance."""


def wide(base: BaseSpec) -> int:
    """On a GPU ``auto`` is a 16-bit type."""
    return 4 if base.dtype == "float32" else 2


def nf4(weights: int) -> int:
    """One matrix in NF4 with double quantisation (Dettmers et al. 2023): 4.127 bits per weight where it is large.

    Packed nibbles; one uint8 scale per 64 weights; one fp32 scale per 256 of those, and their offset; the tables of 16 and 256
    code values, which every matrix has for itself.
    """
    blocks = -(-weights // NF4_BLOCK)
    return -(-weights // 2) + blocks + 4 * -(-blocks // STATISTICS_BLOCK) + 4 + 4 * (16 + 256)


def base_weights(shape: Shape, base: BaseSpec) -> int:
    """The decoder's linear layers, in 4 bits where the recipe quantises, and norms and biases in the compute type."""
    if base.quantize == "none":
        return (shape.linear_weights + shape.small_weights) * wide(base)
    return shape.layers * sum(nf4(linear.weights) for linear in shape.linears) + shape.small_weights * wide(base)


def embeddings(shape: Shape, base: BaseSpec) -> int:
    """Embedding and output head; they keep the compute type."""
    return shape.embedding_weights * wide(base)


def lora(shape: Shape, r: int) -> list[int]:
    """Numbers in each tensor of one adapter: A (r, inputs) and B (outputs, r) of every linear layer."""
    return [n for linear in shape.linears for n in (r * linear.inputs, r * linear.outputs)] * shape.layers


def head(shape: Shape) -> list[int]:
    """Numbers in each tensor of a scalar head."""
    return [shape.hidden, 1]


def fp32(tensors: Iterable[int]) -> int:
    return 4 * sum(tensors)


def adam_8bit(tensors: Iterable[int]) -> int:
    """Both moments as bitsandbytes keeps them: a byte each with an fp32 scale per 256, or fp32 for tensors under 4,096 numbers.

    They are paged: a full card may push them out to the CPU's memory, so this is an upper bound of what stays.
    """
    return sum(8 * n if n < SMALLEST_8BIT else 2 * (n + 4 * -(-n // STATISTICS_BLOCK)) for n in tensors)


def kv_cache(shape: Shape, tokens: int, wide: int) -> int:
    """Keys and values of one row."""
    return 2 * shape.layers * shape.kv_width * wide * tokens


def attention_over_cache(shape: Shape, tokens: int, wide: int) -> int:
    """What one row's decoding step makes beside the cache, one layer at a time: keys that move to a larger place while the old ones
    are there, or, for grouped queries under a padding mask, keys and values repeated for every query head."""
    repeated = 2 * shape.q_width if shape.heads != shape.kv_heads else 0
    return max(shape.kv_width, repeated) * wide * tokens


def layer_kept(shape: Shape, r: int, wide: int, *, dropout: bool) -> int:
    """What autograd keeps of one token in one decoder layer.

    norms      their inputs in fp32
    linears    their inputs in fp32 for LoRA's A; seven casts of 16-bit inputs, one shared tensor for fp32 ones
    attention  q, k, v and the output, keys and values repeated for every query head
    mlp        gate, silu(gate) and up
    LoRA       the r numbers between A and B, seven times
    """
    h, q, m = shape.hidden, shape.q_width, shape.mlp
    inputs = 5 * h + q + m if wide < 4 else 2 * h + q + m
    masks = 5 * h + q + m if dropout else 0
    return 4 * shape.normed_width + 4 * inputs + masks + 4 * q * wide + 3 * m * wide + 7 * 4 * r


def training(shape: Shape, tokens: int, r: int, wide: int, *, checkpointing: bool, dropout: bool = False) -> int:
    """Activations at the height of one micro-batch's forward and backward pass, the head's logits aside.

    With checkpointing a layer leaves only its input, and one layer at a time is computed again.
    """
    kept = layer_kept(shape, r, wide, dropout=dropout)
    stack = shape.layers * shape.hidden * wide + kept if checkpointing else shape.layers * kept
    ends = 9 * shape.hidden  # final norm in fp32, its output, the response positions and their gradient
    gradients = 6 * shape.mlp  # of the widest input: through LoRA in fp32, through the base in the compute type
    return tokens * (stack + ends + gradients)


def inference(shape: Shape, tokens: int, wide: int, *, adapter: bool) -> int:
    """The most that lives at once in a forward pass without a graph: inside the MLP, with an adapter's fp32 output beside it (in a mixed
    pass that of one role at a time: there it is a bound)."""
    h, m = shape.hidden, shape.mlp
    return tokens * (3 * m * wide + 4 * h * wide + (4 * m if adapter else 0))


def dequantised(shape: Shape, base: BaseSpec) -> int:
    """The largest matrix in the compute type: one at a time is unpacked for a product."""
    return max(linear.weights for linear in shape.linears) * wide(base) if base.quantize == "nf4" else 0


def head_logits(shape: Shape, wide: int) -> int:
    """The chunked head: two fp32 tables of (chunk, V), and one in the compute type on the way back to the hidden states."""
    return HEAD_CHUNK * shape.vocab * (8 + wide)


def all_logits(shape: Shape, tokens: int, wide: int) -> int:
    """TRL's DPO loss makes the logits of every token, and keeps them: in fp32, with three fp32 tables of gradients and one in the
    compute type on the way back. Counted in its source (1.12), not measured on a card."""
    return tokens * shape.vocab * (16 + wide)


def drawing(shape: Shape, rows: int, *, nucleus: bool) -> int:
    """Choosing one token per row: logits and probabilities in fp32, two tables in fp64; a nucleus sorts besides."""
    return rows * shape.vocab * (40 if nucleus else 24)
