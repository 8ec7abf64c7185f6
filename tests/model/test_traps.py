"""Traps of running many adapters on one 4-bit base. Each was seen to give wrong numbers without an error; each test fails without its guard."""

import subprocess
import sys
import textwrap

import bitsandbytes
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from lite.knobs import BaseSpec
from lite.model import base as base_module
from lite.model.bank import AdapterBank
from lite.model.base import load_base
from lite.model.forward import collate, hidden_states, logprob_rows, response_values
from lite.model.generate import Decoding, generate

from .conftest import LORA, add, cosine, gradient, stir

# -- 1: bitsandbytes repacks 4-bit weights for CPUs with AVX512-BF16, and the repacked kernel has no gradient --------------------


def rollout(bank: AdapterBank, role: str | None, prompts) -> list[tuple[int, ...]]:
    decoding = Decoding(max_new_tokens=8, temperature=0, stop=None)
    return [g.ids for g in generate(bank, role, prompts, seeds=[0] * len(prompts), decoding=decoding)]


def test_gradients_are_the_same_before_and_after_a_rollout(bank, rows, prompts):
    add(bank, "policy")
    before = gradient(bank, "policy", rows)
    rollout(bank, "policy", prompts)
    rollout(bank, None, prompts)
    after = gradient(bank, "policy", rows)
    assert float(before.norm()) > 0
    assert cosine(before, after) >= 0.999
    assert torch.equal(before, after)
    layers = [m for m in bank.base.model.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    assert not any(getattr(layer.weight.quant_state, "packing_format_for_cpu", False) for layer in layers)


def test_gradients_are_those_of_the_dequantised_weights(bank, pico_base, rows, prompts):
    add(bank, "policy")
    rollout(bank, "policy", prompts)
    dense = load_base(BaseSpec(model=str(pico_base), device="cpu", quantize="none"))
    weights = dict(dense.model.named_parameters())
    quantised = {k: m for k, m in bank.base.model.named_modules() if isinstance(m, bitsandbytes.nn.Linear4bit)}
    assert len(quantised) == 2 * 7
    for name, layer in quantised.items():
        weights[name.replace(".base_layer", "") + ".weight"].data.copy_(
            bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        )
    other = AdapterBank(dense)
    other.add("policy", LORA, seed=0)
    other.restore("policy", bank.snapshot("policy"))
    ours, theirs = gradient(bank, "policy", rows), gradient(other, "policy", rows)
    assert cosine(ours, theirs) > 0.99999
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


def test_a_cpu_that_would_repack_is_told_not_to(pico_base, monkeypatch):
    monkeypatch.setattr(base_module.bnb_modules, "has_avx512bf16", lambda: True)
    loaded = load_base(BaseSpec(model=str(pico_base), device="cpu"))
    layers = [m for m in loaded.model.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    assert layers
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)


# -- 2: generation in train mode with checkpointing --------------------------------------------------------------------------------


@pytest.mark.parametrize("checkpointing", [True, False])
def test_generation_after_training_gives_the_same_tokens_and_leaves_training_as_it_was(bank, rows, prompts, checkpointing):
    add(bank, "policy")
    before = rollout(bank, "policy", prompts)
    bank.checkpointing(checkpointing)
    once = gradient(bank, "policy", rows)
    assert rollout(bank, "policy", prompts) == before
    layers = bank.trunk.layers  # type: ignore[union-attr]
    with bank.using("policy", training=True) as trunk:
        assert trunk.training
        assert all(layer.training and layer.gradient_checkpointing is checkpointing for layer in layers)
    assert torch.equal(gradient(bank, "policy", rows), once)


# -- 3: checkpointing recomputes with the adapter that is active at backward time --------------------------------------------------


def two_roles(bank: AdapterBank, rows) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of policy and value, one after the other, each in its block; the second accumulates on top of nothing of the first."""
    batch = collate(rows, pad_id=bank.base.pad_id, device=bank.base.device)
    head = bank.head("value").randomize(2)
    policy = gradient(bank, "policy", rows)
    with bank.using("value", training=True) as trunk:
        response_values(hidden_states(trunk, batch), head, batch).square().sum().backward()
    parameters = [*bank.parameters("value"), *head.parameters()]
    value = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    for p in parameters:
        p.grad = None
    assert all(p.grad is None for p in bank.parameters("policy"))
    return policy, value


def test_checkpointing_changes_no_gradient_of_two_roles_in_turn(bank, rows):
    add(bank, "policy", "value")
    kept = two_roles(bank, rows)
    bank.checkpointing(True)
    recomputed = two_roles(bank, rows)
    for a, b in zip(kept, recomputed, strict=True):
        assert float(a.norm()) > 0
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_checkpointing_really_recomputes(bank, rows):
    """Else the test above would say nothing."""
    add(bank, "policy")
    calls = []
    hook = bank.trunk.layers[0].self_attn.q_proj.register_forward_hook(lambda *_: calls.append(1))  # type: ignore[union-attr]
    gradient(bank, "policy", rows)
    assert len(calls) == 1
    bank.checkpointing(True)
    gradient(bank, "policy", rows)
    assert len(calls) == 3
    hook.remove()


# -- 4: PEFT couples active with trainable: see test_bank.py -----------------------------------------------------------------------

# -- 5: adapter weights in 16 bits do not move at small rates ----------------------------------------------------------------------


@pytest.mark.parametrize("quantize", ["nf4", "none"])
@pytest.mark.parametrize("made", ["added", "copied", "loaded"])
def test_adapters_on_a_bf16_base_are_fp32_and_move_at_a_rate_of_1e_6(pico_base, base_bf16, rows, tmp_path, quantize, made):
    on = base_bf16 if quantize == "nf4" else load_base(BaseSpec(model=str(pico_base), device="cpu", quantize="none", dtype="bfloat16"))
    bank = AdapterBank(on)
    role = "policy"
    bank.add("first", LORA, seed=1)
    if made == "added":
        bank.add(role, LORA, seed=2)
    elif made == "copied":
        bank.copy("first", role)
    else:
        bank.save("first", tmp_path)
        bank.load(role, tmp_path, trainable=True)
    stir(bank, role)
    assert {p.dtype for p in bank.parameters(role)} == {torch.float32}
    before = bank.snapshot(role)
    optimizer = torch.optim.AdamW(bank.parameters(role), lr=1e-6, weight_decay=0.0)
    batch = collate(rows, pad_id=on.pad_id, device=on.device)
    with bank.using(role, training=True) as trunk:
        hidden_states(trunk, batch).float().square().sum().backward()
    optimizer.step()
    moved = torch.cat([(w != before[k]).flatten() for k, w in bank.snapshot(role).items()])
    assert float(moved.float().mean()) > 0.98
    bank.clear()


# -- 9: embeddings and head stay in the compute type -------------------------------------------------------------------------------


def test_embeddings_norms_and_head_of_a_bf16_base_are_not_upcast(bank_bf16, rows):
    add(bank_bf16, "policy")
    bank_bf16.checkpointing(True)
    gradient(bank_bf16, "policy", rows)
    found = {name: p.dtype for name, p in bank_bf16.base.model.named_parameters() if "proj" not in name}
    assert {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"} <= set(found)
    assert set(found.values()) == {torch.bfloat16}
    assert {p.dtype for name, p in bank_bf16.base.model.named_parameters() if "base_layer" in name} == {torch.uint8}


# -- 10: a saved adapter is a plain PEFT folder --------------------------------------------------------------------------------------


def naive(model, ids: tuple[int, ...]) -> torch.Tensor:
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()
    return logits.log_softmax(-1)[:-1].gather(1, torch.tensor(ids)[1:, None])[:, 0]


def test_a_saved_adapter_holds_its_own_weights_only_and_loads_with_peft(bank, pico_base, rows, tmp_path):
    add(bank, "policy2", "policy", "policy.3")
    bank.save("policy", tmp_path)
    stored = load_file(tmp_path / "adapter_model.safetensors")
    linear = (
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
    )
    assert set(stored) == {
        f"base_model.model.model.layers.{n}.{place}.lora_{part}.weight" for n in range(2) for place in linear for part in "AB"
    }
    assert {w.dtype for w in stored.values()} == {torch.float32}
    assert sorted(f.name for f in tmp_path.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    expected = logprob_rows(bank, rows, role="policy", temperature=1.0, micro_tokens=64)
    plain = PeftModel.from_pretrained(load_base(BaseSpec(model=str(pico_base), device="cpu")).model, str(tmp_path)).eval()
    assert {p.dtype for k, p in plain.named_parameters() if "lora_" in k} == {torch.float32}
    for row, want in zip(rows, expected, strict=True):
        n = len(row.response)
        torch.testing.assert_close(naive(plain, row.prompt + row.response)[-n:], want[:n], rtol=1e-4, atol=1e-5)


def test_a_saved_adapter_needs_nothing_of_lite(plain_bank, pico_base, rows, tmp_path):
    add(plain_bank, "other", "policy")
    plain_bank.save("policy", tmp_path)
    program = f"""
        import sys, torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained({str(pico_base)!r}), {str(tmp_path)!r}).eval()
        assert not [name for name in sys.modules if name.partition(".")[0] == "lite"]
        assert {{p.dtype for k, p in model.named_parameters() if "lora_" in k}} == {{torch.float32}}
        for ids in {[row.prompt + row.response for row in rows]!r}:
            with torch.no_grad():
                logp = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
            print(*logp[:-1].gather(1, torch.tensor(ids)[1:, None])[:, 0].tolist())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False, cwd=tmp_path, timeout=300
    )
    assert done.returncode == 0, done.stderr
    expected = logprob_rows(plain_bank, rows, role="policy", temperature=1.0, micro_tokens=64)
    for line, row, want in zip(done.stdout.splitlines(), rows, expected, strict=True):
        n = len(row.response)
        torch.testing.assert_close(torch.tensor([float(x) for x in line.split()])[-n:], want[:n], rtol=1e-4, atol=1e-5)
