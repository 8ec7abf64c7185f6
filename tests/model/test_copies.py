"""A 4-bit copy equals a fresh load to the bit, is checked before it is read, and can only be lost, never change a result."""

import json
import logging
import os
import shutil
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from lite.knobs import BaseSpec, LoraSpec
from lite.model import base as base_module
from lite.model import copies
from lite.model.bank import AdapterBank
from lite.model.base import load_base
from lite.runs.env import cache_folder

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LITE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where weights were read from, in turn."""
    places: list[str] = []
    real = base_module._read

    def read(source: str, *positional: object, **named: object) -> PreTrainedModel:
        places.append("copy" if str(cache_folder()) in source else "original")
        return real(source, *positional, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(base_module, "_read", read)
    return places


def spec(folder: Path | str, **fields) -> BaseSpec:
    return BaseSpec(model=str(folder), **{"device": "cpu", "cache_4bit": True, **fields})


def the_copy(cache: Path) -> Path:
    (copy,) = (path for path in (cache / "4bit").iterdir() if path.is_dir())
    return copy


def everything(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Packed weights, scales of both levels, and all that is not quantised."""
    return model.state_dict()


def test_the_copy_equals_the_fresh_load_to_the_bit(pico_base, reads):
    for dtype in ("float32", "bfloat16", "float16"):
        fresh = load_base(spec(pico_base, dtype=dtype, cache_4bit=False))
        made, copied = (load_base(spec(pico_base, dtype=dtype)) for _ in range(2))
        ids = torch.tensor([[1, 5, 9, 20, 33]])
        for other in (made, copied):
            ours, theirs = everything(fresh.model), everything(other.model)
            assert ours.keys() == theirs.keys()
            assert any("nested_absmax" in name for name in ours)
            assert all(torch.equal(ours[name], theirs[name]) and ours[name].dtype == theirs[name].dtype for name in ours)
            assert torch.equal(fresh.model(ids).logits, other.model(ids).logits)
            assert not other.model.training
            assert not any(p.requires_grad for p in other.model.parameters())
    assert reads == ["original", "original", "copy"] * 3


def test_a_tied_table_stays_one(reads):
    fresh, copied = (load_base(spec("tiny")).model for _ in range(2))
    assert reads == ["original", "copy"]
    assert fresh.config.tie_word_embeddings
    assert copied.get_output_embeddings().weight is copied.get_input_embeddings().weight
    assert torch.equal(fresh.get_input_embeddings().weight, copied.get_input_embeddings().weight)


def test_adapters_know_the_base_and_not_the_copy(pico_base, tmp_path):
    for _ in range(2):
        bank = AdapterBank(load_base(spec(pico_base)))
    bank.add("policy", LoraSpec(r=2), seed=1)
    bank.save("policy", tmp_path / "adapter")
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] == str(pico_base)


@pytest.mark.parametrize("harm", ["one byte", "cut short", "a file less", "a file more", "no list", "half a list", "other config"])
def test_a_damaged_copy_is_thrown_away_with_a_word_and_the_original_is_read(pico_base, cache, reads, caplog, harm):
    good = everything(load_base(spec(pico_base)).model)
    copy = the_copy(cache)
    weights, manifest = copy / "model.safetensors", copy / copies.COPY
    if harm == "one byte":
        content = bytearray(weights.read_bytes())
        content[-7] ^= 1
        weights.write_bytes(content)
    elif harm == "cut short":
        os.truncate(weights, weights.stat().st_size // 2)
    elif harm == "a file less":
        weights.unlink()
    elif harm == "a file more":
        (copy / "more.safetensors").write_bytes(b"")
    elif harm == "no list":
        manifest.unlink()
    elif harm == "half a list":
        manifest.write_text(manifest.read_text()[:40])
    else:
        (copy / "config.json").write_text((copy / "config.json").read_text().replace("nf4", "fp4"))
    again = everything(load_base(spec(pico_base)).model)
    assert all(torch.equal(good[name], again[name]) for name in good)
    assert "is damaged" in caplog.text
    assert "the original is read" in caplog.text
    load_base(spec(pico_base))
    assert reads == ["original", "original", "copy"]  # the bad one was replaced by a good one


def test_a_copy_that_is_whole_but_cannot_be_read_is_thrown_away_too(pico_base, cache, reads, caplog):
    load_base(spec(pico_base))
    copy = the_copy(cache)
    (copy / "config.json").write_text("{}")
    listed = json.loads((copy / copies.COPY).read_text())
    listed["files"] = {name: d for name, d in copies.publish.digests(copy).items() if name != copies.COPY}
    (copy / copies.COPY).write_text(json.dumps(listed))
    load_base(spec(pico_base))
    load_base(spec(pico_base))
    assert reads == ["original", "copy", "original", "copy"]
    assert "is damaged" in caplog.text


def test_a_copy_that_is_cut_off_while_it_is_written_is_never_there(pico_base, cache, reads, monkeypatch):
    def killed(self: PreTrainedModel, folder: Path, **_: object) -> None:
        (folder / "config.json").write_text("{")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(PreTrainedModel, "save_pretrained", killed)
        with pytest.raises(KeyboardInterrupt):
            load_base(spec(pico_base))
    assert not [path for path in (cache / "4bit").iterdir() if path.is_dir()]
    load_base(spec(pico_base))
    load_base(spec(pico_base))
    assert reads == ["original", "original", "copy"]


def test_no_room_costs_the_copy_and_not_the_run(pico_base, cache, reads, monkeypatch, caplog):
    monkeypatch.setattr(copies.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 1000))  # type: ignore[attr-defined]
    load_base(spec(pico_base))
    assert "no 4-bit copy" in caplog.text
    assert not [path for path in (cache / "4bit").iterdir() if path.is_dir()]


def test_a_folder_that_cannot_be_written_costs_the_copy_and_not_the_run(pico_base, cache, reads, caplog):
    cache.write_text("a file where the folder would be")
    assert load_base(spec(pico_base)).hidden_size == 64
    assert "no 4-bit copy" in caplog.text


def test_two_processes_do_not_write_one_copy_at_once(pico_base, cache, base):
    fcntl = pytest.importorskip("fcntl")
    copy = copies.place(str(pico_base), None, dtype=torch.float32, device=CPU)
    assert copy is not None
    copy.parent.mkdir(parents=True)
    with copy.with_suffix(".lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        copies.store(base.model, copy)
    assert not copy.exists()
    copies.store(base.model, copy)
    assert copies.sound(copy)


def test_a_copy_is_asked_for(pico_base, cache, reads):
    load_base(spec(pico_base, cache_4bit=False))
    load_base(spec(pico_base, quantize="none"))
    assert reads == ["original", "original"]
    assert not cache.exists()


def test_what_decides_the_bits_decides_the_place(pico_base, tmp_path, monkeypatch):
    def place(source: str = str(pico_base), commit: str | None = None, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Path:
        found = copies.place(source, commit, dtype=dtype, device=torch.device(device))
        assert found is not None
        return found

    assert place() == place()
    moved = shutil.copytree(pico_base, tmp_path / "moved")  # with the times of the files
    assert place(str(moved)) == place()
    os.utime(moved / "model.safetensors", ns=(1, 1))
    named = [place("a/b", "c1"), place("a/b", "c2"), place("a/c", "c1")]
    others = [place(str(moved)), place(dtype=torch.bfloat16), place(device="cuda"), *named]
    monkeypatch.setattr(copies.metadata, "version", lambda name: "0.51" if name == "bitsandbytes" else "1")
    others.append(place())
    monkeypatch.undo()
    assert len({place(), *others}) == 1 + len(others)
    assert copies.place(str(tmp_path), None, dtype=torch.float32, device=CPU) is None  # no weights that could be told apart


def test_where_copies_are_is_in_the_log(pico_base, cache, caplog):
    caplog.set_level(logging.INFO, "lite")
    load_base(spec(pico_base))
    load_base(spec(pico_base))
    assert f"a 4-bit copy for the next start: {the_copy(cache)}" in caplog.text
    assert f"read from the 4-bit copy {the_copy(cache)}" in caplog.text


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("LITE_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("LITE_CACHE")
    assert cache_folder() == tmp_path / "xdg" / "lite"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "lite"
