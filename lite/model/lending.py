"""What a foreign trainer may change on a model that it borrows, and how it is put back.

transformers' Trainer and TRL's leave more behind than weights: ``config.use_cache`` is off after them (generation would run without
its cache), special tokens are aligned with a tokenizer, the loss patches ``forward`` of the model, hooks stay where an exception
came between. A :class:`Loan` notes these things and undoes what became of them; adapters, gradients and modes are the bank's.
"""

from typing import Any

from torch import nn

HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)


class Loan:
    def __init__(self, model: nn.Module):
        self._model = model
        self._modules = {
            module: (vars(module).get("forward"), {name: dict(vars(module)[name]) for name in HOOKS}) for module in model.modules()
        }
        configs = (getattr(model, "config", None), getattr(model, "generation_config", None))
        self._settings: list[tuple[Any, dict[str, Any]]] = [(config, dict(vars(config))) for config in configs if config is not None]

    def settle(self) -> None:
        """Patched forwards, hooks and settings as they were; modules that came since keep what they brought."""
        for module, (forward, hooks) in self._modules.items():
            if forward is not None:
                module.forward = forward
            else:
                vars(module).pop("forward", None)
            for name, were in hooks.items():
                present = vars(module)[name]
                present.clear()
                present.update(were)
        for config, were in self._settings:
            vars(config).clear()
            vars(config).update(were)
