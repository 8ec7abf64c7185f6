"""One 4-bit base and three adapters take at most 0.30 of the weight memory of four 4-bit models, at the shapes of LLaMA-7B.

Counted, not timed and not sampled: the model is built on the meta device and every tensor that stays resident is added up.

- NF4 as bitsandbytes stores it: packed halves of bytes; one uint8 scale per block of 64; one fp32 scale per 256 of those; and per
  matrix a code of 16, a nested code of 256 and an offset, in fp32. Before it counts, the script quantises a small model for real and
  compares with every byte that bitsandbytes holds for it.
- Embeddings, output head and norms are bf16. Adapters (r = 16 on all seven linear layers) and scalar heads are fp32, as trained.
- Ours: one base; adapters for policy, reward and value; heads for reward and value. The reference is the base with adapters off.
- Four models: policy, reference, reward and value loaded one by one, the trained three each with the same adapter and head.

Optimiser state, activations and the cache are not weights and not here; both sides would hold the same.

    python -m benchmarks.memory
"""

import argparse
import tempfile
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from benchmarks.random_base import TINY, write_base
from benchmarks.report import publish, table
from lite.knobs import BaseSpec, LoraSpec
from lite.model.bank import TARGETS, AdapterBank
from lite.model.base import load_base

CLAIM = "Shared base + three LoRA adapters hold at most 0.30 of the weight bytes of four NF4 models (LLaMA-7B)"
LIMIT = 0.30
LLAMA_7B = LlamaConfig(
    hidden_size=4096,
    num_hidden_layers=32,
    num_attention_heads=32,
    intermediate_size=11008,
    vocab_size=32000,
    max_position_embeddings=2048,
    tie_word_embeddings=False,
)
ADAPTERS = ("policy", "reward", "value")
HEADS = ("reward", "value")
BLOCK, NESTED_BLOCK = 64, 256
CODE, NESTED_CODE, OFFSET = 16 * 4, 256 * 4, 4
GIB = 2**30


def nf4_bytes(weights: int) -> int:
    """What a matrix of so many weights takes in NF4 with double quantisation, its tables included."""
    blocks = -(-weights // BLOCK)
    return -(-weights // 2) + blocks + 4 * -(-blocks // NESTED_BLOCK) + CODE + NESTED_CODE + OFFSET


def counted_base(config: LlamaConfig, *, other: int = 2) -> int:
    """Bytes of one NF4 base, from shapes alone; ``other``: bytes per weight of what is not quantised."""
    model = on_meta(config)
    matrices = {f"{name}.weight" for name, m in model.named_modules() if isinstance(m, nn.Linear) and name.rpartition(".")[2] in TARGETS}
    weights = sum(nf4_bytes(p.numel()) if name in matrices else other * p.numel() for name, p in model.named_parameters())
    return weights + sum(b.numel() * b.element_size() for b in model.buffers())


def counted_adapter(config: LlamaConfig, lora: LoraSpec) -> int:
    """Bytes of one fp32 adapter, from shapes alone."""
    spec = LoraConfig(r=lora.r, lora_alpha=lora.alpha, target_modules=list(TARGETS), task_type="CAUSAL_LM")
    model = get_peft_model(on_meta(config), spec)
    return 4 * sum(p.numel() for name, p in model.named_parameters() if "lora_" in name)


def counted_head(config: LlamaConfig) -> int:
    return 4 * (config.hidden_size + 1)


def on_meta(config: LlamaConfig) -> LlamaForCausalLM:
    with torch.device("meta"):
        return LlamaForCausalLM(config)


def stored_base(model: PreTrainedModel) -> int:
    """Bytes that a really quantised model holds, adapters left out: each tensor once, with all that bitsandbytes keeps beside it."""
    tensors: list[torch.Tensor] = list(model.buffers())
    for name, p in model.named_parameters():
        if "lora_" in name:
            continue
        tensors.append(p)
        if (state := getattr(p, "quant_state", None)) is not None:
            tensors += [state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code]
    return stored(tensors)


def stored(tensors: list[torch.Tensor]) -> int:
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def check_formula(folder: Path) -> None:
    """Counted equals stored, to the byte, on a small model that is quantised for real with three adapters and two heads on it."""
    write_base(folder, TINY)
    halves, wholes = (BaseSpec(model=str(folder), dtype=dtype, device="cpu") for dtype in ("bfloat16", "float32"))
    for spec, width in ((halves, 2), (wholes, 4)):
        bank = AdapterBank(load_base(spec))
        config, lora = LlamaConfig.from_pretrained(folder), LoraSpec()
        for k, name in enumerate(ADAPTERS):
            bank.add(name, lora, seed=k)
        _same(f"base, {spec.dtype}", counted_base(config, other=width), stored_base(bank.base.model))
        for name in ADAPTERS:
            _same(name, counted_adapter(config, lora), stored([p.data for p in bank.parameters(name)]))
        for name in HEADS:
            _same(f"head of {name}", counted_head(config), stored([p.data for p in bank.head(name).parameters()]))


def _same(what: str, counted: int, found: int) -> None:
    if counted != found:
        raise AssertionError(f"{what}: counted {counted} bytes, bitsandbytes holds {found}")


def measure(config: LlamaConfig, lora: LoraSpec) -> dict[str, float]:
    """Bytes of both sides, and their ratio with and without adapters on the side of the four models."""
    base, adapters = counted_base(config), len(ADAPTERS) * counted_adapter(config, lora) + len(HEADS) * counted_head(config)
    ours, four = base + adapters, 4 * base
    return {
        "base": base,
        "adapters_and_heads": adapters,
        "ours": ours,
        "four_with_adapters": four + adapters,
        "four_without_adapters": four,
        "ratio_with_adapters": ours / (four + adapters),
        "ratio_without_adapters": ours / four,
    }


def main() -> int:
    argparse.ArgumentParser(
        prog="python -m benchmarks.memory", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        check_formula(Path(folder))
    figures = measure(LLAMA_7B, LoraSpec(r=16))
    rows = [
        ["one NF4 base", f"{figures['base'] / GIB:.3f} GiB", ""],
        ["three adapters, two heads (fp32)", f"{figures['adapters_and_heads'] / GIB:.3f} GiB", ""],
        ["**ours**: one base, adapters, heads", f"{figures['ours'] / GIB:.3f} GiB", "1"],
        ["four NF4 models, bare", f"{figures['four_without_adapters'] / GIB:.3f} GiB", f"**{figures['ratio_without_adapters']:.3f}**"],
        [
            "four NF4 models, trained ones with adapter and head",
            f"{figures['four_with_adapters'] / GIB:.3f} GiB",
            f"**{figures['ratio_with_adapters']:.3f}**",
        ],
    ]
    holds = max(figures["ratio_with_adapters"], figures["ratio_without_adapters"]) <= LIMIT
    text = table(["resident weights", "size", "ours / this"], rows)
    text += "\n\nThe byte formula was first held against a small model that bitsandbytes really quantised: equal to the byte."
    publish("memory", claim=CLAIM, holds=holds, figures=figures, text=text)
    return 0 if holds else 1


if __name__ == "__main__":
    raise SystemExit(main())
