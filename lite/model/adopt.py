"""A model that somebody else has loaded, as the shared base; and, trained, handed back as plain PEFT."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias, cast

import torch
from bitsandbytes.nn import Linear4bit
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lite.errors import PreconditionError
from lite.model.base import Base, refuse_unknown_head

AnyModel: TypeAlias = PreTrainedModel | PeftModel
Tokenizer: TypeAlias = PreTrainedTokenizerBase


@contextmanager
def adopted(model: AnyModel, tokenizer: Tokenizer, *, keep: Path) -> Iterator[tuple[Base, Path | None]]:
    """The base under a model, and the folder below ``keep`` with the adapter that was active on it (None: it had none).

    The model is taken over: its adapters are taken off it. Where the block fails it is given back as it came. Raises
    :class:`PreconditionError` where it cannot be trained on.
    """
    before = _Before(model)
    try:
        adapter, plain = _taken_off(model, keep) if isinstance(model, PeftModel) else (None, model)
        yield _base(plain, tokenizer), adapter
    except BaseException:
        before.restore()
        raise


def refuse_unfit(model: AnyModel) -> None:
    """Raise :class:`PreconditionError` where a model cannot be taken over; it is only looked at."""
    layers = [layer for layer in model.modules() if isinstance(layer, LoraLayer)]
    on_it = {name for layer in layers for name in (*layer.lora_A, *layer.lora_embedding_A)}
    own = set(model.peft_config) if isinstance(model, PeftModel) else set()
    if others := on_it - own:
        raise PreconditionError(
            f"the model carries adapters that are not its own ({', '.join(sorted(others))}): an earlier training took it over, or it lies "
            "inside a PeftModel; go on with that one, or with what Trained.as_peft() gives, or load it anew"
        )
    if isinstance(model, PeftModel) and (name := _active(model)) not in on_it:
        raise PreconditionError(
            f"the adapter {name!r} is no LoRA adapter on the model's layers: it is of another kind, or an earlier training took it over; "
            "load it anew"
        )
    if any(getattr(getattr(layer.weight, "quant_state", None), "packing_format_for_cpu", False) for layer in _four_bit(model)):
        raise PreconditionError(
            "the 4-bit model has answered on this CPU already, and its weights were repacked for a kernel without gradients; "
            "load it anew, or give its name instead of the model"
        )


def kind_of_weights(model: AnyModel) -> str:
    """``nf4`` or ``none`` where :class:`~lite.knobs.BaseSpec` has the like, else in words."""
    if layers := _four_bit(model):
        weight: Any = layers[0].weight
        usual = weight.quant_type == "nf4" and weight.blocksize == 64 and weight.compress_statistics
        return "nf4" if usual else f"{weight.quant_type}, block {weight.blocksize}, double quantisation {bool(weight.compress_statistics)}"
    config = getattr(model.config, "quantization_config", None)
    method = config.get("quant_method") if isinstance(config, dict) else getattr(config, "quant_method", None)
    return str(getattr(method, "value", method or "quantised")) if config else "none"


def digest_of_adapter(model: AnyModel | None) -> str | None:
    """Of the weights of the adapter that is active; None where there is none."""
    if not isinstance(model, PeftModel):
        return None
    digest, mark = hashlib.sha256(), f".{_active(model)}."
    for name, p in sorted(model.named_parameters()):
        if mark in f"{name}.":
            digest.update(f"{name} {p.dtype} {tuple(p.shape)}\n".encode())
            digest.update(p.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def as_peft(base: Base, adapter: Path) -> PeftModel:
    """A plain PEFT model of an adapter on the base."""
    return PeftModel.from_pretrained(base.model, str(adapter))


def _base(plain: PreTrainedModel, tokenizer: Tokenizer) -> Base:
    for layer in _four_bit(plain):
        layer.support_avx512bf16_for_cpu = False  # see lite.model.base.stop_cpu_repacking
    plain.requires_grad_(False)
    plain.eval()
    source = plain.name_or_path or type(plain).__name__
    refuse_unknown_head(plain, source)
    return Base(plain, tokenizer, plain.device, source)


def _four_bit(model: nn.Module) -> Sequence[Linear4bit]:
    return [layer for layer in model.modules() if isinstance(layer, Linear4bit)]


def _active(model: PeftModel) -> str:
    if len(model.active_adapters) != 1:
        raise PreconditionError(f"one adapter is to be active, not {', '.join(model.active_adapters) or 'none'}: call set_adapter first")
    return model.active_adapters[0]


def _taken_off(model: PeftModel, keep: Path) -> tuple[Path, PreTrainedModel]:
    """The folder of the adapter that was active, and the model without any."""
    name = _active(model)
    model.save_pretrained(str(keep), selected_adapters=[name])
    plain = cast(PreTrainedModel, model.unload())  # type: ignore[operator]
    vars(plain).pop("peft_config", None)  # or the next adapter would be taken for a second one
    return (keep if name == "default" else keep / name), plain


class _Before:
    """How a model came: its modules with all that hangs on them, its settings, and which of its weights were trainable.

    Taking adapters off and putting others on changes the tree of modules, hooks, modes and settings, but no weight of the model's: so
    the modules themselves are noted, with copies of their tables, and put back.
    """

    def __init__(self, model: nn.Module):
        settings = [getattr(model, name, None) for name in ("config", "generation_config")]
        owners = [*model.modules(), *(one for one in settings if one is not None)]
        self._noted = [(owner, dict(vars(owner)), [(t, dict(t)) for t in vars(owner).values() if isinstance(t, dict)]) for owner in owners]
        self._trainable = [(p, p.requires_grad) for p in model.parameters()]

    def restore(self) -> None:
        for owner, attributes, tables in self._noted:
            vars(owner).clear()
            vars(owner).update(attributes)
            for table, content in tables:  # the tables themselves: whoever holds a hook's handle finds it there
                table.clear()
                table.update(content)
        for p, trainable in self._trainable:
            p.requires_grad = trainable
