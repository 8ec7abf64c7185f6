"""The unsloth backend: who chooses it, when it is imported, what it is asked for, and that its forward fits our caches.

A stand-in module shows the wiring everywhere; where unsloth is installed, the real one runs on a CPU by its own switch. Its kernels
need an NVIDIA GPU: nothing here runs them.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from packaging.version import Version
from transformers import DynamicCache

from lite.errors import PreconditionError
from lite.fit import backend
from lite.knobs import BaseSpec
from lite.model import unsloth
from lite.model.bank import AdapterBank
from lite.model.base import load_base
from lite.model.generate import Decoding, generate

ROOT = Path(unsloth.__file__).parents[2]
OLDEST = "2026.10.9"
"""The first that runs without a GPU: the switch of those before it makes believe that there is one."""


def has_unsloth() -> bool:
    try:
        return Version(version("unsloth")) >= Version(OLDEST)
    except PackageNotFoundError:
        return False


def spec(backend: str, **fields: Any) -> BaseSpec:
    return BaseSpec.model_validate({"backend": backend, **fields})


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A machine as the test wants it."""

    def make(*, installed: bool = True, gpu: bool = True, hip: str | None = None, imported: bool = False) -> None:
        monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: object() if installed else None)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
        monkeypatch.setattr(torch.version, "hip", hip)
        monkeypatch.delenv(backend.FORCE_CPU, raising=False)
        monkeypatch.delitem(sys.modules, "unsloth", raising=False)
        if imported:
            monkeypatch.setitem(sys.modules, "unsloth", SimpleNamespace())

    return make


def test_auto_takes_it_where_it_is_installed_and_the_gpu_is_nvidias(machine):
    for facts, expected in (
        ({}, True),
        ({"installed": False}, False),
        ({"gpu": False}, False),
        ({"hip": "6.4"}, False),
    ):
        machine(**facts)
        assert unsloth.chosen(spec("auto")) is expected
    machine()
    assert not unsloth.chosen(spec("auto", device="cpu"))
    assert not unsloth.chosen(spec("plain"))
    assert unsloth.chosen(spec("unsloth"))


def test_what_is_missing_is_one_line_with_what_to_do(machine, monkeypatch):
    machine(installed=False)
    with pytest.raises(
        PreconditionError, match=r"base\.backend: unsloth is not installed; pip install -e '\.\[unsloth\]' in lite's folder, or"
    ) as e:
        unsloth.chosen(spec("unsloth"))
    assert e.value.exit_code == 3
    for facts, fields in (({"gpu": False}, {}), ({"hip": "6.4"}, {}), ({}, {"device": "cpu"})):
        machine(**facts)
        with pytest.raises(PreconditionError, match=r"wants an NVIDIA GPU .* `base\.backend=plain` goes on without"):
            unsloth.chosen(spec("unsloth", **fields))
    monkeypatch.setenv(backend.FORCE_CPU, "1")
    assert unsloth.chosen(spec("unsloth"))


def test_plain_is_refused_in_a_process_that_unsloth_has_patched(machine):
    machine(imported=True)
    with pytest.raises(PreconditionError, match="unsloth has patched this process already"):
        unsloth.chosen(spec("plain"))


def test_a_broken_installation_is_one_line(machine, monkeypatch):
    def broken(name: str) -> None:
        raise NotImplementedError("Unsloth cannot find any torch accelerator?\nmore")  # what unsloth says without a GPU

    machine()
    monkeypatch.setattr(unsloth.importlib, "import_module", broken)
    with pytest.raises(PreconditionError, match=r"unsloth could not be imported: Unsloth cannot find any torch accelerator\? \(`base") as e:
        unsloth.prepare(spec("auto"))
    assert "\n" not in str(e.value)


def test_the_backend_is_part_of_a_base_as_it_is_written():
    from lite.plan import base_identity

    assert [base_identity(spec(name))["backend"] for name in ("auto", "plain", "unsloth")] == ["auto", "plain", "unsloth"]


# -- caches -------------------------------------------------------------------------------------------------------------------


def with_tuples(decoder: torch.nn.Module, *, forgets: str | None = None) -> Callable[..., Any]:
    """The decoder's forward with unsloth's manners: keys and values come and go as tuples, and the old ones are not touched."""
    forward = decoder.forward

    def fast(past_key_values: Any = None, **named: Any) -> Any:
        cache = DynamicCache()
        for i, (keys, values) in enumerate(past_key_values or ()):
            cache.update(keys, values, i)
        if forgets:
            named[forgets] = None
        out = forward(past_key_values=cache, **named)
        out.past_key_values = tuple((layer.keys, layer.values) for layer in cache.layers)
        return out

    return fast


@pytest.fixture
def tuples(pico_base, monkeypatch):
    """A base of its own whose decoder has such a forward."""
    loaded = load_base(BaseSpec(model=str(pico_base), device="cpu"))

    def make(**options: Any) -> AdapterBank:
        decoder = loaded.model.get_decoder()
        monkeypatch.setattr(decoder, "forward", unsloth.with_caches(with_tuples(decoder, **options)))
        return AdapterBank(loaded)

    return make


@pytest.mark.parametrize("groups", [None, [0, 0, 1, 1, 2]])
def test_generation_is_the_same_through_a_forward_with_tuples(bank, tuples, prompts, groups):
    def written(bank: AdapterBank) -> list[tuple[int, ...]]:
        decoding = Decoding(12, 0.0, stop=None)
        return [g.ids for g in generate(bank, None, prompts, seeds=range(5), decoding=decoding, groups=groups)]

    expected = written(bank)
    other = tuples()
    unsloth._refuse_strange_cache(other.base.model)
    assert written(other) == expected


@pytest.mark.parametrize("forgets", ["attention_mask", "position_ids"])
def test_a_forward_that_decodes_otherwise_is_refused(tuples, forgets):
    with pytest.raises(RuntimeError, match="states after a cached pass are off by"):
        unsloth._refuse_strange_cache(tuples(forgets=forgets).base.model)


# -- in a process of its own ------------------------------------------------------------------------------------------------------

STAND_IN = """
import json, os, sys
print("unsloth talks at import")
early = [name for name in ("transformers", "peft", "trl") if name in sys.modules]
__version__ = "stand-in"
asked = {}

class FastLanguageModel:
    @staticmethod
    def from_pretrained(model_name, **named):
        from transformers import AutoModelForCausalLM, BitsAndBytesConfig
        print("unsloth talks at loading")
        asked.update(named, model_name=model_name, dtype=str(named["dtype"]), environment=os.environ["UNSLOTH_DISABLE_STATISTICS"])
        nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
        return AutoModelForCausalLM.from_pretrained(model_name, quantization_config=nf4, dtype=named["dtype"], device_map="cpu"), None
"""
PROGRAM = """
import json, sys
from lite import engine
from lite.knobs import BaseSpec, LoraSpec
from lite.errors import PreconditionError

def loaded(backend):
    spec = BaseSpec(model=sys.argv[1], device="cpu", backend=backend)
    engine.prepare_base(spec)
    imported = "unsloth" in sys.modules
    return engine.load_bank(spec), imported

def told(backend):
    from lite.model.encoding import Row
    from lite.model.forward import collate, hidden_states, response_logprobs, score_rows
    from lite.model.generate import Decoding, generate
    bank, imported = loaded(backend)
    bank.add("policy", LoraSpec(r=4), seed=1)
    prompts = [(5, 6, 7, 9), (5, 6, 7, 8, 11), (9,)]
    found = generate(bank, "policy", prompts, seeds=[1, 2, 3], decoding=Decoding(10, 0.0, stop=None), groups=[0, 0, 1])
    rows = [Row(p, (20, 21, 22)) for p in prompts]
    batch = collate(rows, pad_id=bank.base.pad_id, device=bank.base.device)
    with bank.using("policy", training=True) as trunk:
        response_logprobs(hidden_states(trunk, batch), bank.vocabulary, batch).logp.sum().backward()
    gradient = sum(float(p.grad.double().square().sum()) for p in bank.parameters("policy")) ** 0.5
    bank.add("reward", LoraSpec(r=4), seed=2)
    bank.restore("reward", {k: w + 0.1 for k, w in bank.snapshot("reward").items()})
    bank.head("reward").randomize(1)
    mixed = score_rows(bank, rows, reward="reward", value=None, temperature=1.0, micro_tokens=1000)
    scores = [*mixed.rewards.tolist(), *mixed.reference.sum(1).tolist()]
    return {"imported": imported, "scores": scores, "tokens": [g.ids for g in found], "gradient": gradient, "adapter": len(bank.parameters("policy"))}

out = {"plain": told("plain"), "unsloth": told("unsloth")}
import unsloth
out["asked"], out["early"] = getattr(unsloth, "asked", None), getattr(unsloth, "early", None)
try:
    loaded("plain")
except PreconditionError as e:
    out["plain again"] = str(e)
print(json.dumps(out))
"""
FIRST = """
import sys
from lite import engine
from lite.knobs import BaseSpec
engine.prepare_environment(offline=True)
engine.prepare_base(BaseSpec(model="tiny", device="cpu", backend="unsloth"))
assert not [name for name in ("transformers", "peft", "trl") if name in sys.modules]
import unsloth
assert unsloth.early == []
"""


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    package = tmp_path / "lib" / "unsloth"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(STAND_IN)
    return package.parent


def run(program: str, *words: object, path: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    places = [str(ROOT), *([str(path)] if path else []), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places), backend.FORCE_CPU: "1"} | env
    command = [sys.executable, "-c", program, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)


def test_it_is_imported_before_transformers(stand_in, tmp_path):
    done = run(FIRST, path=stand_in, LITE_CACHE=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""  # its talk is not ours


def test_the_same_numbers_through_the_wiring_and_plain_stays_clean(pico_base, stand_in, tmp_path):
    done = run(PROGRAM, pico_base, path=stand_in, LITE_CACHE=str(tmp_path))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["plain"].pop("imported"), found["unsloth"].pop("imported")) == (False, True)
    assert found["plain"] == found["unsloth"]
    asked = found["asked"]
    assert asked["model_name"] == str(pico_base)
    assert (
        asked
        | {
            "load_in_4bit": True,
            "use_exact_model_name": True,
            "fix_tokenizer": False,
            "use_gradient_checkpointing": False,
            "trust_remote_code": False,
            "local_files_only": True,
            "max_seq_length": 1024,
            "dtype": "torch.float32",
            "device_map": {"": "cpu"},
            "environment": "1",
        }
        == asked
    )
    assert "has patched this process" in found["plain again"]


def test_what_it_cannot_load_is_one_line(pico_base, monkeypatch):
    def fails(**_: object) -> None:
        raise RuntimeError("no kernel image\nmore")

    monkeypatch.setattr(unsloth, "chosen", lambda spec: True)
    monkeypatch.setattr(unsloth, "_imported", lambda: SimpleNamespace(FastLanguageModel=SimpleNamespace(from_pretrained=fails)))
    with pytest.raises(PreconditionError, match=r"unsloth could not load '.*': no kernel image \(`base\.backend=plain` goes on without\)$"):
        load_base(BaseSpec(model=str(pico_base), device="cpu"))


@pytest.mark.skipif(not has_unsloth(), reason=f"unsloth is not installed, or before {OLDEST}: those need a GPU")
def test_the_real_one_on_a_cpu_gives_the_same_tokens_and_gradients(pico_base, tmp_path):
    done = run(PROGRAM, pico_base, LITE_CACHE=str(tmp_path))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["plain"]["imported"], found["unsloth"]["imported"]) == (False, True)
    assert found["plain"]["tokens"] == found["unsloth"]["tokens"]
    assert found["plain"]["gradient"] == pytest.approx(found["unsloth"]["gradient"], rel=1e-3)
    assert found["plain"]["scores"] == pytest.approx(found["unsloth"]["scores"], rel=1e-3)
