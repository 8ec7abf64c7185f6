"""A model that somebody else has loaded, as the shared base; and, trained, handed back as plain PEFT."""

from pathlib import Path
from typing import TypeAlias, cast

from bitsandbytes.nn import Linear4bit
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lite.errors import PreconditionError
from lite.model.base import Base, refuse_unknown_head

AnyModel: TypeAlias = PreTrainedModel | PeftModel
Tokenizer: TypeAlias = PreTrainedTokenizerBase


def adopt(model: AnyModel, tokenizer: Tokenizer, *, keep: Path) -> tuple[Base, Path | None]:
    """The base under a model, and the folder below ``keep`` with the adapter that was active on it (None: it had none).

    The model is taken over: its adapters are taken off it. Raises :class:`PreconditionError` where it cannot be trained on.
    """
    adapter, plain = _taken_off(model, keep) if isinstance(model, PeftModel) else (None, model)
    for layer in plain.modules():
        if isinstance(layer, Linear4bit):
            if getattr(getattr(layer.weight, "quant_state", None), "packing_format_for_cpu", False):
                raise PreconditionError(
                    "the 4-bit model has answered on this CPU already, and its weights were repacked for a kernel without gradients; "
                    "load it anew, or give its name instead of the model"
                )
            layer.support_avx512bf16_for_cpu = False  # see lite.model.base.stop_cpu_repacking
    plain.requires_grad_(False)
    plain.eval()
    source = plain.name_or_path or type(plain).__name__
    refuse_unknown_head(plain, source)
    return Base(plain, tokenizer, plain.device, source), adapter


def _taken_off(model: PeftModel, keep: Path) -> tuple[Path, PreTrainedModel]:
    """The folder of the adapter that was active, and the model without any."""
    if len(model.active_adapters) != 1:
        raise PreconditionError(f"one adapter is to be active, not {', '.join(model.active_adapters) or 'none'}: call set_adapter first")
    (name,) = model.active_adapters
    model.save_pretrained(str(keep), selected_adapters=[name])
    plain = cast(PreTrainedModel, model.unload())  # type: ignore[operator]
    vars(plain).pop("peft_config", None)  # or the next adapter would be taken for a second one
    return (keep if name == "default" else keep / name), plain


def as_peft(base: Base, adapter: Path) -> PeftModel:
    """A plain PEFT model of an adapter on the base."""
    return PeftModel.from_pretrained(base.model, str(adapter))
