"""Merging shard by shard: exact in 32 bits, one shard in memory, a right index, names that slid, bases that cannot be merged onto."""

import gc
import json
import shutil
import weakref

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from lite.errors import ArtifactError, PreconditionError
from lite.knobs import LoraSpec
from lite.model import merge

IDS = torch.tensor([[1, 5, 9, 20, 33, 101, 7]])


@pytest.fixture
def adapter(plain_bank, tmp_path):
    plain_bank.add("policy", LoraSpec(r=4, alpha=12), seed=1)
    with torch.no_grad():
        for p in plain_bank.parameters("policy"):
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(2)) * 0.1)
    plain_bank.save("policy", tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def weights(folder):
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def logits(folder, adapter=None):
    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    model = PeftModel.from_pretrained(model, str(adapter)) if adapter else model
    with torch.inference_mode():
        return model.eval()(input_ids=IDS).logits


def test_in_32_bits_the_merged_model_is_the_adapter_on_the_base(pico_base, adapter, out):
    merge.merge(pico_base, adapter, out, dtype=torch.float32)
    shutil.copyfile(pico_base / "config.json", out / "config.json")
    found, expected = logits(out), logits(pico_base, adapter)
    assert (found - expected).abs().max() < 1e-4 < (expected - logits(pico_base)).abs().max() / 100


def test_wider_weights_become_16_bit_ones_rounded_once(pico_base, adapter, out, tmp_path):
    merge.merge(pico_base, adapter, out)
    (tmp_path / "exact").mkdir()
    merge.merge(pico_base, adapter, tmp_path / "exact", dtype=torch.float32)
    exact = weights(tmp_path / "exact")
    assert all(torch.equal(tensor, exact[name].bfloat16()) for name, tensor in weights(out).items())


def test_one_shard_is_in_memory_at_a_time(pico_base, adapter, out, monkeypatch):
    """Counted: when a file is written, no tensor of any file before it is alive."""
    written: list[list[weakref.ref]] = []
    alive_before: list[int] = []

    def save(tensors, file, **rest):
        gc.collect()
        alive_before.append(sum(ref() is not None for refs in written for ref in refs))
        written.append([weakref.ref(t) for t in tensors.values()])
        save_file(tensors, file, **rest)

    monkeypatch.setattr(merge, "save_file", save)
    told: list[int] = []
    merge.merge(pico_base, adapter, out, shard_bytes=64 * 1024, done=told.append)
    assert len(written) >= 4 and alive_before == [0] * len(written)
    assert max(told) <= max(64 * 1024, max(t.bytes for t in merge.stored(pico_base)))


def test_the_index_names_every_tensor_once_and_loads(pico_base, adapter, out, tmp_path):
    merge.merge(pico_base, adapter, out, shard_bytes=64 * 1024)
    index = json.loads((out / "model.safetensors.index.json").read_text(encoding="utf-8"))
    held = {name: file.name for file in out.glob("*.safetensors") for name in load_file(file)}
    assert index["weight_map"] == held
    assert index["metadata"]["total_size"] == sum(t.numel() * t.element_size() for t in weights(out).values())
    (tmp_path / "whole").mkdir()
    merge.merge(pico_base, adapter, tmp_path / "whole")
    whole = weights(tmp_path / "whole")
    assert all(torch.equal(t, whole[name]) for name, t in weights(out).items())
    # and merged onto a base that lies in several files, it is the same again
    shutil.copyfile(pico_base / "config.json", out / "config.json")
    shutil.copytree(pico_base, tmp_path / "split", ignore=shutil.ignore_patterns("*.safetensors"))
    AutoModelForCausalLM.from_pretrained(str(pico_base)).save_pretrained(tmp_path / "split", max_shard_size="100KB")
    assert len(list((tmp_path / "split").glob("*.safetensors"))) > 1
    (tmp_path / "again").mkdir()
    merge.merge(tmp_path / "split", adapter, tmp_path / "again")
    assert all(torch.equal(t, whole[name]) for name, t in weights(tmp_path / "again").items())


def renamed(base, folder, rename):
    shutil.copytree(base, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    save_file({rename(name): t for name, t in load_file(base / "model.safetensors").items()}, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("rename", [lambda n: n.removeprefix("model."), lambda n: f"language_model.{n}"], ids=["trunk", "inside"])
def test_names_may_have_slid(pico_base, adapter, out, tmp_path, rename):
    merge.merge(pico_base, adapter, out)
    (tmp_path / "slid").mkdir()
    merge.merge(renamed(pico_base, tmp_path / "base", rename), adapter, tmp_path / "slid")
    straight, slid = weights(out), weights(tmp_path / "slid")
    assert all(torch.equal(t, slid[rename(name)]) for name, t in straight.items())


def test_an_adapter_of_another_base_is_refused(pico_base, adapter, out, tmp_path):
    strange = renamed(pico_base, tmp_path / "strange", lambda n: n.replace("q_proj", "query"))
    with pytest.raises(ArtifactError, match="from another base"):
        merge.merge(strange, adapter, out)
    stored = load_file(adapter / "adapter_model.safetensors")
    save_file(
        {name: t[:, :-1].contiguous() if "lora_A" in name else t for name, t in stored.items()}, adapter / "adapter_model.safetensors"
    )
    with pytest.raises(ArtifactError, match="from another base"):
        merge.merge(pico_base, adapter, out)


def test_quantised_and_pickled_bases_are_refused(pico_base, adapter, out, tmp_path):
    base = renamed(pico_base, tmp_path / "base", str)
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    (base / "config.json").write_text(json.dumps(config | {"quantization_config": {"load_in_4bit": True}}), encoding="utf-8")
    with pytest.raises(PreconditionError, match="quantised already"):
        merge.merge(base, adapter, out)
    (base / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (base / "model.safetensors").rename(base / "pytorch_model.bin")
    with pytest.raises(PreconditionError, match="safetensors"):
        merge.merge(base, adapter, out)


def test_an_adapter_that_is_more_than_lora_is_refused(pico_base, adapter, out):
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | {"use_dora": True}), encoding="utf-8")
    with pytest.raises(ArtifactError, match="use_dora"):
        merge.merge(pico_base, adapter, out)
