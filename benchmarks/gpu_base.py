"""A base of any true shape with random weights in NF4, made on the device matrix by matrix: a 30B base needs no 60 GB anywhere.

Memory and speed do not depend on what the weights say. Nothing is downloaded: the shapes are those of ``lite/fit/known_models.yaml``.
"""

from pathlib import Path
from typing import Any

import torch
import yaml
from bitsandbytes.nn import Linear4bit, Params4bit
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedConfig, PreTrainedModel
from transformers.integrations.bitsandbytes import replace_with_bnb_linear
from transformers.quantizers import AutoHfQuantizer

import lite.fit
from benchmarks.gpu_options import NAMES
from benchmarks.random_base import tokenizer
from lite.model.base import Base, stop_cpu_repacking

SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 192, "vocab_size": 320}


def config_of(name: str) -> PreTrainedConfig:
    """``small``, a short name, or a Hub id that the estimate knows. Raises ValueError with the names there are."""
    family, figures = ("llama", SMALL) if name == "small" else _known(NAMES.get(name, name))
    return AutoConfig.for_model(family, **figures, max_position_embeddings=2048, pad_token_id=0, bos_token_id=1, eos_token_id=None)


def _known(name: str) -> tuple[str, dict[str, Any]]:
    table = yaml.safe_load((Path(lite.fit.__file__).parent / "known_models.yaml").read_text(encoding="utf-8"))
    for family, models in table.items():
        if name in models:
            return family, models[name]
    raise ValueError(f"no shape called {name!r}; there are small, {', '.join(NAMES)}, {', '.join(m for ms in table.values() for m in ms)}")


@torch.no_grad()
def random_base(config: PreTrainedConfig, device: torch.device, dtype: torch.dtype, *, seed: int = 17) -> Base:
    """The base, frozen and in eval mode. At most one matrix lies there unquantised."""
    stop_cpu_repacking()
    torch.manual_seed(seed)
    quantization = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype)
    replace_with_bnb_linear(model, modules_to_not_convert=["lm_head"], quantization_config=quantization)
    made: dict[int, nn.Parameter] = {}  # a tied head is the embedding
    for name, module in list(model.named_modules()):
        for which, p in list(module.named_parameters(recurse=False)):
            if id(p) not in made:
                made[id(p)] = _filled(module, p, device, dtype)
            setattr(module, which, made[id(p)])
        if any(b.is_meta for b in module.buffers(recurse=False)):  # the frequencies of the positions
            above, _, last = name.rpartition(".")
            with device:
                setattr(model.get_submodule(above), last, type(module)(config=config))
    model.is_loaded_in_4bit = True  # type: ignore[assignment]  # by these PEFT and TRL know a quantised model
    model.is_quantized = True  # type: ignore[assignment]
    model.hf_quantizer = AutoHfQuantizer.from_config(quantization)  # its Trainer asks
    model.config.quantization_config = quantization
    model.requires_grad_(False)
    return Base(model.eval(), tokenizer(config.vocab_size), device, "random")


def _filled(module: nn.Module, p: Tensor, device: torch.device, dtype: torch.dtype) -> nn.Parameter:
    """Norms are 1, biases 0, matrices random such that the size of what goes through them stays."""
    if p.ndim == 1:
        value = torch.zeros if isinstance(module, nn.Linear) else torch.ones
        return nn.Parameter(value(p.shape, device=device, dtype=dtype), requires_grad=False)
    scale = 1.0 if isinstance(module, nn.Embedding) else 2.0 / p.shape[-1] ** 0.5
    if not isinstance(module, Linear4bit):
        return nn.Parameter(torch.randn(p.shape, device=device, dtype=dtype).mul_(scale), requires_grad=False)
    shape = (module.out_features, module.in_features)
    weight = torch.randn(shape, device=device, dtype=dtype).mul_(scale)
    return Params4bit(weight, requires_grad=False, quant_type="nf4", compress_statistics=True, module=module).to(device)  # type: ignore[return-value]
