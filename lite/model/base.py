"""Load the one base of a run: 4-bit weights from the Hub, a folder, or the package's own tiny base.

Weights are NF4 in blocks of 64 with double quantisation (Dettmers et al. 2023); embeddings, norms and the output head keep
the compute type. ``prepare_model_for_kbit_training`` is not called: it would copy embeddings and head to 32 bits.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bitsandbytes.nn.modules as bnb_modules
import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase

from lite import micro
from lite.errors import PreconditionError
from lite.knobs import BaseSpec
from lite.model import allocator, copies, unsloth
from lite.model.quiet import no_loading_bar
from lite.sources.reach import ask, looks_like_a_folder, model_folder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Base:
    """The frozen model that every role shares, and what is needed to speak to it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    source: str

    @property
    def hidden_size(self) -> int:
        return self._embedding.shape[1]

    @property
    def pad_id(self) -> int:
        """Padding is found by masks, never by its id: any id that the embedding knows will do, but never the end-of-text id."""
        for token in (self.tokenizer.pad_token_id, self.tokenizer.unk_token_id):
            if isinstance(token, int) and token != self.tokenizer.eos_token_id and token < len(self._embedding):
                return token
        return 1 if self.tokenizer.eos_token_id == 0 else 0

    @property
    def _embedding(self) -> torch.Tensor:
        return self.model.get_input_embeddings().weight  # type: ignore[union-attr,return-value]


def load_base(spec: BaseSpec) -> Base:
    """The base of a recipe, frozen, in eval mode.

    Raises :class:`PreconditionError` if a GPU is asked for and there is none, or the model cannot be had or used.
    """
    fast = unsloth.chosen(spec)
    device = pick_device(spec.device)
    dtype = pick_dtype(spec.dtype, device)
    source, is_folder = _place(spec.model)
    cached = None if is_folder else model_folder(spec.model, spec.revision)
    if not is_folder and not cached:
        ask(
            spec.model,
            spec.revision,
            f"base.model: {spec.model!r} could not be loaded",
            "give a folder, or a Hub id that is cached or reachable",
        )
    place = str(cached or source)
    # A folder never asks the Hub anything; code that comes with a model is never run, nor asked about.
    where: dict[str, Any] = {"revision": spec.revision, "local_files_only": is_folder or bool(cached), "trust_remote_code": False}
    stop_cpu_repacking()
    try:
        with no_loading_bar(), allocator.returning():
            tokenizer = AutoTokenizer.from_pretrained(place, **where)
            if fast:
                model = unsloth.read(spec, place, device, dtype, where)
            elif spec.quantize == "nf4":
                model = _four_bit(spec, place, device, dtype, where)
            else:
                model = _read(place, device, dtype, **where)
    except PreconditionError:
        raise
    except (OSError, ValueError, SafetensorError) as e:
        hint = "is the folder complete?" if is_folder else "give a folder, or a Hub id that is cached or reachable"
        raise PreconditionError(f"base.model: {spec.model!r} could not be loaded: {_first_line(e)} ({hint})") from e
    except torch.OutOfMemoryError as e:
        raise PreconditionError(
            f"base.model: {spec.model!r} does not fit on the GPU: {_first_line(e)} (take a smaller base, or `base.quantize=nf4`)"
        ) from e
    model.requires_grad_(False)
    model.eval()
    refuse_unknown_head(model, spec.model)
    return Base(model, tokenizer, device, source)


def _read(source: str, device: torch.device, dtype: torch.dtype, **options: Any) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(
        source,
        dtype=dtype,
        device_map={"": str(device)},  # without it 4-bit weights go to the GPU where there is one, `device: cpu` or not
        use_safetensors=True,
        **options,
    )


def _four_bit(spec: BaseSpec, source: str, device: torch.device, dtype: torch.dtype, where: dict[str, Any]) -> PreTrainedModel:
    """From the copy on disk where one is wanted and there, else from the original, which then leaves a copy. Both are equal to the bit."""
    copy = None
    if spec.cache_4bit:
        inside = Path(source)  # of a Hub id that is cached: the folder of its commit
        config = AutoConfig.from_pretrained(source, **where)
        commit = inside.name if inside.parent.name == "snapshots" else getattr(config, "_commit_hash", None)  # another folder has none
        copy = copies.place(spec.model if commit else source, commit, dtype=dtype, device=device)
    if copy and copies.sound(copy):
        try:
            model = _read(str(copy), device, dtype, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as e:  # written whole, yet not what this version reads
            copies.discard(copy, _first_line(e))
        else:
            log.info("read from the 4-bit copy %s", copy)
            return model
    model = _read(source, device, dtype, quantization_config=_nf4(dtype), **where)
    if copy:
        copies.store(model, copy)
    return model


def pick_device(wanted: str) -> torch.device:
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise PreconditionError(
            "base.device: cuda was asked for, but torch sees no GPU; `lite doctor` says why, `base.device=cpu` goes on without"
        )
    return torch.device(wanted)


def pick_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """The compute type: bf16 where the card has it, fp16 on older cards, fp32 on a CPU."""
    if wanted != "auto":
        return getattr(torch, wanted)
    if device.type == "cpu":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def stop_cpu_repacking() -> None:
    """Keep bitsandbytes' CPU layers on the kernel that has a gradient.

    On CPUs with AVX512-BF16 the first forward pass in eval mode repacks a layer's weights in place, and every later training
    pass then runs a kernel without autograd: the gradients of the adapters below it are silently wrong.
    """
    bnb_modules.has_avx512bf16 = lambda: False


def _place(model: str) -> tuple[str, bool]:
    """Where the weights are, and whether that is a folder."""
    if model == "tiny":
        return str(micro.BASE_DIR), True
    path = Path(model).expanduser()
    if path.is_dir():
        return str(path), True
    if looks_like_a_folder(model):
        raise PreconditionError(f"base.model: there is no folder {model!r} (a relative one counts from {Path.cwd()})")
    return model, False


def _nf4(dtype: torch.dtype) -> BitsAndBytesConfig:
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(": ")


@torch.no_grad()
def refuse_unknown_head(model: PreTrainedModel, name: str) -> None:
    """Log-probs and samples are made from hidden states and the head's weight alone, for speed; not every family's are so."""
    ids = torch.tensor([[0, 1]], device=model.device)
    hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    ours = torch.nn.functional.linear(hidden, model.get_output_embeddings().weight)  # type: ignore[union-attr,arg-type]
    theirs = model(input_ids=ids, use_cache=False).logits
    if not torch.allclose(ours.float(), theirs.float(), rtol=1e-2, atol=1e-2 * float(ours.abs().max())):
        raise PreconditionError(
            f"base.model: the output head of {name!r} does more than one product (a bias, a scale or a cap), which lite does not know; "
            "take a base of the Llama, Mistral, Qwen or OLMo families"
        )
