"""Loading the base: what is quantised, what stays, and one helpful line for everything that can be wrong with a model."""

import json
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import bitsandbytes
import huggingface_hub
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lite import micro
from lite.errors import PreconditionError
from lite.knobs import BaseSpec
from lite.model import base as base_module
from lite.model.base import load_base, pick_device, pick_dtype


def spec(folder: Path | str, **fields) -> BaseSpec:
    return BaseSpec(model=str(folder), **{"device": "cpu", **fields})


# -- what is loaded -------------------------------------------------------------------------------------------------------------


def test_every_linear_layer_is_nf4_with_double_quantisation_and_the_rest_is_not(base):
    linear = {k: m for k, m in base.model.named_modules() if isinstance(m, torch.nn.Linear)}
    quantised = {k: m for k, m in linear.items() if isinstance(m, bitsandbytes.nn.Linear4bit)}
    assert set(linear) - set(quantised) == {"lm_head"}
    assert len(quantised) == 2 * 7
    for layer in quantised.values():
        state = layer.weight.quant_state
        assert (state.quant_type, state.blocksize, state.nested, state.state2.blocksize) == ("nf4", 64, True, 256)
        assert layer.compute_dtype == torch.float32
    assert base.model.lm_head.weight.dtype == torch.float32


def test_bits_per_weight(base):
    """NF4 with double quantisation: 4 + 8/64 + 32/(64 * 256) bits, so 4.127."""
    layer = base.model.model.layers[0].mlp.gate_proj
    state = layer.weight.quant_state
    assert layer.weight.numel() * 8 == 4 * 64 * 128
    assert (state.absmax.dtype, state.absmax.numel()) == (torch.uint8, 64 * 128 // 64)


def test_not_quantised_means_none(plain_base):
    assert not [m for m in plain_base.model.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]


def test_the_base_is_frozen_and_in_eval_mode(base, plain_base, base_bf16):
    for loaded in (base, plain_base, base_bf16):
        assert not any(p.requires_grad for p in loaded.model.parameters())
        assert not any(m.training for m in loaded.model.modules())
    assert (base.hidden_size, base.device.type) == (64, "cpu")


def test_a_cpu_base_stays_on_the_cpu_of_a_machine_with_a_gpu(pico_base, monkeypatch):
    """transformers would put 4-bit weights on the GPU that it sees."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    loaded = load_base(spec(pico_base))
    assert {p.device.type for p in loaded.model.parameters()} == {"cpu"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_base_is_on_the_gpu(pico_base):
    loaded = load_base(spec(pico_base, device="auto"))
    assert {p.device.type for p in loaded.model.parameters()} == {"cuda"}


# -- devices and types ------------------------------------------------------------------------------------------------------------


def test_devices_and_types_by_machine(monkeypatch):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == cpu
    with pytest.raises(PreconditionError, match=r"base\.device: cuda was asked for, but torch sees no GPU"):
        pick_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("auto") == pick_device("cuda") == cuda
    assert pick_device("cpu") == cpu
    assert pick_dtype("auto", cpu) == torch.float32
    for has_bf16, dtype in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, has_bf16=has_bf16: has_bf16)
        assert pick_dtype("auto", cuda) == dtype
    assert pick_dtype("float16", cpu) == torch.float16


# -- padding -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ids", "pad"),
    [
        ({"pad": 0, "eos": 2}, 0),
        ({"pad": 2, "eos": 2, "unk": 3}, 3),  # pad == eos, the usual trap
        ({"pad": 2, "eos": 2}, 0),
        ({"pad": 0, "eos": 0}, 1),
        ({"pad": 448, "eos": 2, "unk": 3}, 3),  # a padding token that was added behind the embedding
        ({"eos": None}, 0),
    ],
)
def test_the_padding_id_is_in_the_embedding_and_not_the_end_of_text(base, ids, pad):
    tokenizer = SimpleNamespace(pad_token_id=ids.get("pad"), eos_token_id=ids["eos"], unk_token_id=ids.get("unk"))
    found = replace(base, tokenizer=tokenizer).pad_id
    assert found == pad
    assert found != ids["eos"]


# -- what can be wrong ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def network(monkeypatch) -> list[object]:
    """Every attempt to reach anything; none succeeds."""
    attempts: list[object] = []

    def refuse(*where: object, **_: object) -> None:
        attempts.append(where)
        raise OSError("the network is off in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return attempts


def test_a_folder_is_loaded_without_a_word_to_the_network(pico_base, tmp_path, network):
    """A large vocabulary: transformers would ask the Hub whether it is a Mistral tokenizer, and swallow the refusal."""
    folder = shutil.copytree(pico_base, tmp_path / "copy")
    words = Tokenizer(models.WordLevel({"<unk>": 0, **{f"w{i}": i + 1 for i in range(100_001)}}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>").save_pretrained(folder)
    assert load_base(spec(folder)).source == str(folder)
    assert network == []


def copy_of(pico_base: Path, tmp_path: Path, kind: str) -> Path:
    folder = shutil.copytree(pico_base, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    weights = folder / "model.safetensors"
    if kind == "empty":
        shutil.rmtree(folder)
        folder.mkdir()
    elif kind == "no tokenizer":
        (folder / "tokenizer.json").unlink()
        (folder / "tokenizer_config.json").unlink()
    elif kind == "no config":
        (folder / "config.json").unlink()
    elif kind == "half a config":
        (folder / "config.json").write_text('{"model_type": "lla')
    elif kind == "unknown family":
        (folder / "config.json").write_text(json.dumps(config | {"model_type": "quux"}))
    elif kind == "code of its own":
        (folder / "config.json").write_text(
            json.dumps(config | {"model_type": "quux", "auto_map": {"AutoConfig": "c.C", "AutoModelForCausalLM": "c.M"}})
        )
    elif kind == "no weights":
        weights.unlink()
    elif kind == "half the weights":
        weights.write_bytes(weights.read_bytes()[:1000])
    return folder


@pytest.mark.parametrize(
    "kind", ["empty", "no tokenizer", "no config", "half a config", "unknown family", "code of its own", "no weights", "half the weights"]
)
def test_a_folder_that_is_no_model_is_one_line_about_the_folder(pico_base, tmp_path, network, kind):
    folder = copy_of(pico_base, tmp_path, kind)
    with pytest.raises(PreconditionError, match=r"base\.model: .* could not be loaded: .+ \(is the folder complete\?\)") as caught:
        load_base(spec(folder))
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3
    assert network == []


@pytest.mark.parametrize("name", ["/no/such/folder", "./models/llama", "../llama", "~/no such folder", "runs/17/out", "C:\\models\\llama"])
def test_a_path_without_a_folder_is_said_to_be_missing(name, network):
    with pytest.raises(PreconditionError, match=r"base\.model: there is no folder") as caught:
        load_base(spec(name))
    assert repr(name) in str(caught.value)
    assert network == []


@pytest.mark.parametrize("name", ["nobody/no-such-model", "no such model"])
def test_a_model_that_cannot_be_had_says_what_may_stand_there(name, network, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # as --offline; else the Hub is tried for a minute
    with pytest.raises(PreconditionError, match=r"a folder, or a Hub id that is cached or reachable") as caught:
        load_base(spec(name))
    assert str(caught.value).startswith(f"base.model: {name!r} could not be loaded: ")
    assert "\n" not in str(caught.value)


def test_tiny_is_a_folder_of_the_package(pico_base, tmp_path, monkeypatch, network):
    monkeypatch.setattr(micro, "BASE_DIR", tmp_path / "none")
    with pytest.raises(PreconditionError, match=r"base\.model: 'tiny' could not be loaded"):
        load_base(spec("tiny"))
    monkeypatch.setattr(micro, "BASE_DIR", pico_base)
    assert load_base(spec("tiny")).source == str(pico_base)
    assert network == []


def test_a_base_that_is_too_large_for_the_gpu_says_so(pico_base, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")

    monkeypatch.setattr(base_module.AutoModelForCausalLM, "from_pretrained", full)
    with pytest.raises(
        PreconditionError, match=r"does not fit on the GPU: CUDA out of memory\. Tried to allocate 2 GiB\. \(take a smaller"
    ):
        load_base(spec(pico_base))


@pytest.mark.parametrize("kind", ["bias", "scale"])
def test_a_head_that_is_more_than_one_product_is_refused(base, kind):
    """Gemma 2 caps its logits, Cohere and Granite scale them, Phi adds a bias: log-probs from the weight alone would be wrong."""

    class Wrapped:
        device = base.device
        get_decoder = base.model.get_decoder
        get_output_embeddings = base.model.get_output_embeddings

        def __call__(self, **inputs):
            found = base.model(**inputs)
            found.logits = found.logits * 0.5 if kind == "scale" else found.logits + torch.linspace(0, 1, found.logits.shape[-1])
            return found

    base_module.refuse_unknown_head(base.model, "pico")
    with pytest.raises(PreconditionError, match="the output head of 'pico' does more than one product"):
        base_module.refuse_unknown_head(Wrapped(), "pico")  # type: ignore[arg-type]


# -- noise ----------------------------------------------------------------------------------------------------------------------------


def test_loading_is_silent(pico_base):
    """No word of bitsandbytes about kernels that we do not use, no bar between our own; other warnings still come through."""
    program = (
        "from lite.knobs import BaseSpec\n"
        "from lite.model.base import load_base\n"
        f"load_base(BaseSpec(model={str(pico_base)!r}, device='cpu'))\n"
        "import logging, sys\n"
        "from transformers.utils import logging as theirs\n"
        "assert theirs.set_tqdm_hook(None) is None\n"
        "print('END', file=sys.stderr)\n"
        "logging.getLogger('bitsandbytes.backends.cpu.ops').warning('something else')\n"
    )
    root = Path(base_module.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=root, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert done.stderr == "END\nsomething else\n"
