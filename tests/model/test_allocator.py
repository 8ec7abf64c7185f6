"""Host memory while a base of many shards is read: the quantised result and about a shard, counted in the process's own pages."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lite import micro
from lite.model import allocator

MIB = 2**20
ROOT = Path(allocator.__file__).parents[2]

PROGRAM = """
import json, sys
from lite.knobs import BaseSpec
from lite.model import base as base_module
from transformers import core_model_loading

def own_pages():
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("RssAnon"))

seen = []
take = core_model_loading._materialize_copy

def counted(*positional, **named):
    seen.append(own_pages())
    return take(*positional, **named)

base_module.load_base(BaseSpec(model="tiny", device="cpu"))  # what a first load brings in of libraries is not counted
core_model_loading._materialize_copy = counted
before = own_pages()
base_module.refuse_unknown_head = lambda *_: seen.append(own_pages())  # its first pass needs memory of its own
base = base_module.load_base(BaseSpec(model=sys.argv[1], device="cpu", dtype="bfloat16"))
print(json.dumps({"tensors": len(seen) - 1, "peak": max(seen) - before, "after": seen[-1] - before}))
"""


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """117 MiB in 16 bits, in shards of 8 MiB: tensors of 2 to 5.5 MiB, as large as it takes to tell them from noise."""
    folder = tmp_path_factory.mktemp("sharded")
    config = LlamaConfig(
        vocab_size=1024,
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=5,
        num_attention_heads=8,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    model = model.to_empty(device="cpu")
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(0.01)
    model.tie_weights()
    model.save_pretrained(folder, max_shard_size="8MB")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(micro.BASE_DIR / name, folder)
    return folder


def measured(folder: Path) -> dict[str, int]:
    command = [sys.executable, "-c", PROGRAM, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.skipif(allocator._glibc() is None, reason="the guard is for glibc")
def test_about_one_shard_and_the_quantised_result_are_in_memory_at_the_peak(sharded):
    shards = [file.stat().st_size for file in sharded.glob("model-*.safetensors")]
    assert len(shards) >= 12
    parameters = sum(shards) // 2
    table = 1024 * 1024
    result = (parameters - table) * 4.127 / 8 + 2 * table
    found = measured(sharded)
    assert found["tensors"] == 5 * 9 + 2
    assert found["peak"] < result + 2 * max(shards), {k: v / MIB for k, v in found.items()}
    assert found["after"] < result + max(shards)


def test_elsewhere_there_is_no_guard_and_no_harm(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert allocator._glibc() is None
    with allocator.returning():
        pass
