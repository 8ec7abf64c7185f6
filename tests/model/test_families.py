"""Every family that lite names, from a folder to a trained adapter: NF4 load, LoRA by suffixes, a step, a generation as transformers' own."""

import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from lite import micro
from lite.fit.shape import FAMILIES
from lite.knobs import BaseSpec, LoraSpec
from lite.model.bank import TARGETS, AdapterBank
from lite.model.base import load_base
from lite.model.encoding import Row
from lite.model.forward import collate, hidden_states, response_logprobs
from lite.model.generate import Decoding, generate
from lite.model.optim import adamw

SMALL = {
    "vocab_size": 1472,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.3,
}
LLAMA_3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
MODELS = {
    "llama 1 and 2": ("llama", {"num_key_value_heads": 4}),
    "llama 3": ("llama", {"rope_parameters": LLAMA_3_ROPE}),
    "mistral": ("mistral", {"sliding_window": 8}),  # shorter than the prompts: the window acts
    "qwen 2.5": ("qwen2", {"tie_word_embeddings": True}),
    "qwen 3": ("qwen3", {"head_dim": 32}),
    "olmo 2": ("olmo2", {}),
    "olmo 3": ("olmo3", {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}),
}
PROMPTS = [tuple(range(20, 33)), (*range(20, 29), 50, 51, 52, 53), (60, 61)]


@pytest.fixture(scope="module", params=MODELS)
def bank(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AdapterBank:
    kind, own = MODELS[request.param]
    folder: Path = tmp_path_factory.mktemp(kind)
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **(SMALL | own)))
    model.save_pretrained(folder, max_shard_size="300KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(micro.BASE_DIR / name, folder)
    return AdapterBank(load_base(BaseSpec(model=str(folder), device="cpu")))


def test_no_family_is_left_out():
    assert {kind for kind, _ in MODELS.values()} == set(FAMILIES)


def test_every_linear_layer_gets_an_adapter_and_one_step_moves_it(bank):
    bank.clear()
    bank.add("policy", LoraSpec(r=4, alpha=8), seed=1)
    assert len(bank.parameters("policy")) == 2 * len(TARGETS) * SMALL["num_hidden_layers"]
    rows = [Row(p, (70, 71, 72, 2)) for p in PROMPTS]
    batch = collate(rows, pad_id=bank.base.pad_id, device=bank.base.device)
    optimizer = adamw([(bank.parameters("policy"), 1e-2)])

    def loss() -> torch.Tensor:
        hidden = hidden_states(bank.trunk, batch)
        return -response_logprobs(hidden, bank.vocabulary, batch).logp.sum() / batch.keep.sum()

    losses = []
    for _ in range(2):
        with bank.using("policy", training=True):
            (now := loss()).backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in bank.parameters("policy"))
        optimizer.step()
        optimizer.zero_grad()
        losses.append(now.item())
    assert losses[1] < losses[0]
    assert bank.change("policy") > 0
    bank.clear()


@pytest.mark.parametrize("shared", [True, False])
def test_it_writes_what_transformers_would(bank, shared):
    """Greedy, 12 tokens, prompts of different lengths, with what two of them share prefilled once and without."""
    bank.clear()
    groups = [0, 0, 1] if shared else None
    found = generate(bank, None, PROMPTS, decoding=Decoding(12, 0.0, stop=None), seeds=[1, 2, 3], groups=groups)
    with torch.no_grad(), bank.using(None):
        for prompt, ours in zip(PROMPTS, found, strict=True):
            ids = torch.tensor([prompt])
            theirs = bank.base.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, pad_token_id=0)
            assert ours.ids == tuple(theirs[0, len(prompt) :].tolist())
    assert len({g.ids for g in found}) == len(PROMPTS)
