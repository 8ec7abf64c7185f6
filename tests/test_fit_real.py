"""The estimate against real bytes: small models of four families, loaded in NF4 through the model room, on a CPU in bf16.

What is stored is compared to the byte. What lives only for a moment is counted by a dispatch mode that follows every storage that an
operation makes, and compared in its slope: bytes per token, between two sizes, so that constants fall out.
"""

import gc
import json
import shutil
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import bitsandbytes
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from transformers import AutoConfig, AutoModelForCausalLM

from lite import micro
from lite.fit import demand, sizes
from lite.fit.shape import FAMILIES, Shape, from_config, shape_of
from lite.knobs import BaseSpec, LoraSpec
from lite.model import forward, generate, kv
from lite.model.bank import AdapterBank
from lite.model.base import load_base
from lite.model.encoding import Row
from lite.objectives.logprobs import token_logprobs
from lite.stages import evaluate

VOCABULARY = 1400
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 352,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MODELS = {
    "llama": {"num_key_value_heads": 4},
    "qwen2": {"num_key_value_heads": 2, "tie_word_embeddings": True},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 32},
    "olmo2": {"num_key_value_heads": 2},
}
R = 16
BF16 = 2


class Real(NamedTuple):
    bank: AdapterBank
    spec: BaseSpec
    shape: Shape


@pytest.fixture(scope="module", params=MODELS)
def real(request, tmp_path_factory) -> Real:
    """A small model with random weights, its config read back by the estimate, and one adapter on it."""
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    config = AutoConfig.for_model(request.param, **SMALL, **MODELS[request.param])
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(micro.BASE_DIR / name, folder)
    spec = BaseSpec(model=str(folder), dtype="bfloat16", device="cpu")
    found = shape_of(spec)
    assert isinstance(found, Shape)
    bank = AdapterBank(load_base(spec))
    bank.add("policy", LoraSpec(r=R), seed=1)
    return Real(bank, spec, found)


def size(*tensors: torch.Tensor) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


# -- what is stored: to the byte --------------------------------------------------------------------------------------------


def test_the_weights_take_what_the_estimate_says_to_the_byte(real):
    packed = plain = 0
    for name, p in real.bank.base.model.named_parameters():
        if "lora_" in name:
            continue
        if isinstance(p, bitsandbytes.nn.Params4bit):
            state = p.quant_state
            packed += size(p.data, state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code)
        else:
            plain += size(p.data)
    assert packed > 0
    table = sizes.embeddings(real.shape, real.spec)
    assert table == size(real.bank.base.model.get_input_embeddings().weight) * (1 if real.shape.tied else 2)
    assert packed + plain == sizes.base_weights(real.shape, real.spec) + table


def test_an_adapter_and_a_head_take_what_the_estimate_says_to_the_byte(real):
    assert size(*real.bank.parameters("policy")) == sizes.fp32(sizes.lora(real.shape, R))
    assert size(*real.bank.head("policy").parameters()) == sizes.fp32(sizes.head(real.shape))


def test_the_optimiser_keeps_what_the_estimate_says_to_the_byte(real):
    """Both kinds are there: tensors under 4,096 numbers in 32 bits, larger ones in 8."""
    wide = [torch.nn.Parameter(torch.zeros(16, 1000)), torch.nn.Parameter(torch.zeros(5, 1001))]
    parameters = [*real.bank.parameters("policy"), *real.bank.head("policy").parameters(), *wide]
    assert {p.numel() < 4096 for p in parameters} == {True, False}
    optimizer = bitsandbytes.optim.AdamW8bit(parameters)
    kept = 0
    for i, p in enumerate(parameters):
        optimizer.init_state(optimizer.param_groups[0], p, 0, i)
        kept += size(*(v for k, v in optimizer.state[p].items() if isinstance(v, torch.Tensor) and not k.startswith("qmap")))
    assert kept == sizes.adam_8bit([*sizes.lora(real.shape, R), *sizes.head(real.shape), *(p.numel() for p in wide)])


def test_the_cache_takes_what_the_estimate_says_to_the_byte(real):
    rows, tokens = 3, 17
    with torch.no_grad(), real.bank.using("policy"):
        cache, *_ = generate._prefill(real.bank, [tuple(range(5, 5 + tokens))] * rows, None)
    assert sum(size(layer.keys, layer.values) for layer in cache.layers) == rows * sizes.kv_cache(real.shape, tokens + sizes.ROOM, BF16)


# -- what lives for a moment: bytes per token -------------------------------------------------------------------------------


class Live(TorchDispatchMode):
    """Counts the bytes of the storages that operations make, as long as they live; ``peak`` is the most at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {t.untyped_storage()._cdata for t in tree_iter((args, kwargs)) if isinstance(t, torch.Tensor)}
        out = func(*args, **(kwargs or {}))
        for t in tree_iter(out):
            if isinstance(t, torch.Tensor):
                storage = t.untyped_storage()
                if storage._cdata not in self._seen | given:
                    self._seen.add(storage._cdata)
                    self.now += storage.nbytes()
                    weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return out

    def _gone(self, key: int, n: int) -> None:
        self._seen.discard(key)
        self.now -= n


def slope(peak: Callable[[int], int], small: int, large: int) -> float:
    return (peak(large) - peak(small)) / (large - small)


def batch_of(bank: AdapterBank, rows: int, tokens: int = 64) -> forward.Batch:
    """Rows of unequal length, so that there is a padding mask as there always is."""
    half = tokens // 2
    made = [Row(tuple(range(5, 5 + half)), tuple(range(5, 5 + half - (3 if i else 0)))) for i in range(rows)]
    return forward.collate(made, pad_id=0, device=bank.base.device)


@pytest.mark.parametrize("checkpointing", [True, False])
def test_activations_of_an_update_are_within_a_tenth(real, checkpointing):
    bank = real.bank

    def peak(tokens: int) -> int:
        batch = batch_of(bank, tokens // 64)
        parameters = bank.parameters("policy")
        for p in parameters:
            p.grad = torch.zeros_like(p)
        bank.checkpointing(checkpointing)
        try:
            gc.collect()
            with bank.using("policy", training=True) as trunk, Live() as live:
                hidden = forward.hidden_states(trunk, batch)
                forward.response_logprobs(hidden, bank.vocabulary, batch).logp.sum().backward()
        finally:
            bank.checkpointing(False)
            for p in parameters:
                p.grad = None
        return live.peak

    said = sizes.training(real.shape, 1, R, BF16, checkpointing=checkpointing)
    assert said == pytest.approx(slope(peak, 512, 768), rel=0.1)  # both with a full chunk of the head


@pytest.mark.parametrize("role", [None, "policy"])
def test_activations_of_a_pass_without_a_graph_are_within_a_tenth(real, role):
    def peak(tokens: int) -> int:
        with torch.no_grad(), real.bank.using(role) as trunk, Live() as live:
            forward.hidden_states(trunk, batch_of(real.bank, tokens // 64))
        return live.peak

    said = sizes.inference(real.shape, 1, BF16, adapter=role is not None)
    found = slope(peak, 256, 512)
    assert 0.95 * found <= said <= 1.25 * found  # q and k norms and short attention make small models differ a little


def test_decoding_takes_the_cache_and_what_one_layer_makes_of_it(real, monkeypatch):
    """Three decoding steps after a long and a shorter prompt: unequal lengths bring the padding mask, and a block runs full."""
    monkeypatch.setattr(kv, "BLOCK", 2)

    def peak(tokens: int) -> int:
        bank = real.bank
        with torch.no_grad(), bank.using("policy"), Live() as live:
            cache, _, attend, position = generate._prefill(bank, [tuple(range(5, 5 + tokens)), tuple(range(5, 4 + tokens))], None)
            live.peak = live.now
            for _ in range(3):
                attend = torch.cat([attend, attend.new_ones(2, 1)], 1)
                generate._step(bank, torch.full((2, 1), 7), attend, position[:, None], cache)
                position = position + 1
        return live.peak

    said = 2 * (sizes.kv_cache(real.shape, 1, BF16) + sizes.attention_over_cache(real.shape, 1, BF16))
    assert said == pytest.approx(slope(peak, 200, 400), rel=0.1)


@pytest.mark.parametrize("nucleus", [False, True])
def test_drawing_takes_no_more_than_the_estimate_says(real, nucleus):
    rows, vocabulary = 4, real.shape.vocab
    logits = torch.randn(rows, vocabulary)
    decoding = generate.Decoding(1, 1.0, 0.9 if nucleus else 1.0)
    with torch.no_grad(), Live() as live:
        generate._draw(logits, torch.rand(rows, dtype=torch.float64), decoding)
    found = live.peak + size(logits)
    assert 0.9 * found <= sizes.drawing(real.shape, rows, nucleus=nucleus) <= 1.5 * found  # a sort has scratch of its own


def test_the_chunked_head_takes_what_the_estimate_says(real):
    assert forward.HEAD_CHUNK == sizes.HEAD_CHUNK
    n = 3 * sizes.HEAD_CHUNK
    hidden = torch.randn(n, real.shape.hidden, dtype=torch.bfloat16, requires_grad=True)
    with Live() as live:
        token_logprobs(hidden, real.bank.vocabulary, torch.zeros(n, dtype=torch.long), chunk=sizes.HEAD_CHUNK)
    assert sizes.head_logits(real.shape, BF16) == pytest.approx(live.peak - n * real.shape.hidden * BF16, rel=0.05)


def test_constants_taken_from_other_rooms_are_theirs():
    assert evaluate.MICRO_TOKENS == demand.SCORING_TOKENS
    assert kv.BLOCK == sizes.ROOM


# -- shapes -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}, {"num_key_value_heads": 1}]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_shape_counts_the_parameters_of_the_model_that_its_config_makes(family, options):
    config = AutoConfig.for_model(family, **(SMALL | {"num_key_value_heads": 2} | options))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    found = from_config(json.loads(config.to_json_string(use_diff=False)))
    assert isinstance(found, Shape)
    assert found.parameters == sum(p.numel() for p in model.parameters())
