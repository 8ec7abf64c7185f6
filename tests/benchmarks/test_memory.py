"""The claim on memory is counted, and the count is what bitsandbytes really holds."""

import pytest
import torch

from benchmarks import memory
from lite.knobs import LoraSpec


def test_counted_bytes_are_those_that_bitsandbytes_holds(tmp_path):
    memory.check_formula(tmp_path)


@pytest.mark.parametrize("weights", [64, 4096, 64 * 256, 64 * 257, 176_128])
def test_the_formula_by_hand(weights):
    import bitsandbytes.functional as bnb

    packed, state = bnb.quantize_4bit(torch.randn(weights // 64, 64), quant_type="nf4", compress_statistics=True)
    tensors = [packed, state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code]
    assert memory.nf4_bytes(weights) == sum(t.numel() * t.element_size() for t in tensors)


def test_the_claim_holds_at_the_shapes_of_llama_7b():
    found = memory.measure(memory.LLAMA_7B, LoraSpec(r=16))
    assert found["base"] / memory.GIB == pytest.approx(3.60, abs=0.01)
    assert found["ratio_without_adapters"] <= memory.LIMIT and found["ratio_with_adapters"] <= memory.LIMIT
    assert found["ours"] == found["base"] + found["adapters_and_heads"]
