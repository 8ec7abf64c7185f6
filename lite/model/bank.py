"""AdapterBank: the one owner of the adapters on the shared base.

Roles are LoRA adapters by name; the base itself is the role ``None`` (every adapter off). Only this class switches adapters
or touches ``requires_grad`` of the model: PEFT couples "active" with "trainable", leaves frozen adapters trainable after
``disable_adapter()`` (huggingface/peft#3447) and may freeze the wrong one on loading (#3580), so the trainable set is set anew
after every switch. Training passes go through PEFT; where nothing is learnt the base runs with all adapters off and
lite.model.lowrank adds them. Forward and backward of one role stay inside one ``using`` block: under activation checkpointing the
backward pass recomputes with the adapter that is active *then*, so a backward pass that comes late is refused.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer, LoraModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lite.errors import ArtifactError, PreconditionError
from lite.knobs import LoraSpec
from lite.model.base import Base
from lite.model.heads import ScalarHead
from lite.model.lending import Loan
from lite.model.lowrank import Stretch, added
from lite.model.memory import Budget
from lite.model.plain import CONFIG, TARGETS, WEIGHTS

Borrower = TypeVar("Borrower")


@dataclass(frozen=True, slots=True)
class _Adapter:
    key: str  # its name inside PEFT, where a role's own would not do: no dots, no name that a torch module has already
    trainable: bool
    weights: dict[str, nn.Parameter]  # by the names under which PEFT stores them
    start: dict[str, Tensor] = field(default_factory=dict)  # the same, as they were at first; fp32 on the CPU


class AdapterBank:
    def __init__(self, base: Base):
        modules = {name.rpartition(".")[2] for name, _ in base.model.named_modules()}
        if missing := [name for name in TARGETS if name not in modules]:
            raise PreconditionError(
                f"base.model: {base.source} has no layers named {', '.join(missing)}; take a base of the Llama, Mistral, Qwen or OLMo families"
            )
        self.base = base
        self.heads: dict[str, ScalarHead] = {}
        self.budget = Budget()
        self._peft: PeftModel | None = None
        self._adapters: dict[str, _Adapter] = {}
        self._made = 0  # adapters so far, for their keys
        self._blocks = 0  # blocks so far
        self._inside: str | None = None  # whose block is open
        self._survey()

    # -- which adapters there are -------------------------------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._adapters)

    def add(self, name: str, lora: LoraSpec, *, seed: int, trainable: bool = True) -> None:
        """A fresh adapter: A random, B zero, so that the role starts equal to the base. Weights are fp32."""
        config = LoraConfig(r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=list(TARGETS), task_type="CAUSAL_LM")
        self._attach(name, config, seed=seed, trainable=trainable)

    def load(self, name: str, folder: Path, *, trainable: bool = False, dropout: float | None = None) -> None:
        """An adapter from a plain PEFT folder; ``dropout`` is for one that is trained on, none: as it was trained before."""
        config, stored = _read(folder)
        if dropout is not None:
            config.lora_dropout = dropout
        self._attach(name, config, weights=stored, trainable=trainable, where=folder)

    def copy(self, source: str, name: str, *, trainable: bool = True) -> None:
        """A new adapter that starts as an exact copy of another one."""
        adapter = self._find(source)
        config = deepcopy(cast(LoraConfig, self._model().peft_config[adapter.key]))
        self._attach(name, config, weights=adapter.weights, trainable=trainable)

    def drop(self, name: str) -> None:
        """Forget an adapter and its head; with the last one the base is plain again."""
        self._must_be_outside(f"dropping {name!r}")
        self._find(name)
        self._detach(name)
        self.heads.pop(name, None)

    def clear(self) -> None:
        """Forget every adapter and head, and checkpointing with them: the plain base."""
        for name in self.names:
            self.drop(name)
        self.heads.clear()
        self.checkpointing(False)
        self._made = 0  # a stage's adapters have the same keys in every run: a trainer's checkpoints name them

    def head(self, name: str) -> ScalarHead:
        """The scalar head of a role, zero-initialised at first use."""
        if name not in self.heads:
            self.heads[name] = ScalarHead(self.base.hidden_size, self.base.device)
        return self.heads[name]

    # -- roles --------------------------------------------------------------------------------------------------------------

    @contextmanager
    def using(self, role: str | None, *, training: bool = False) -> Iterator[nn.Module]:
        """Switch to a role for the length of the block and give its trunk.

        ``training`` puts the model in train mode and makes exactly this role's adapter trainable (it must be a trainable
        one); otherwise nothing is trainable and the model is in eval mode: no dropout, and ``generate`` is safe.
        """
        adapter = None if role is None else self._find(role)
        if training and (adapter is None or not adapter.trainable):
            raise ValueError(f"{role or 'the base'} is frozen: only a trainable adapter can be used for training")
        with self._block(role or "the base"):
            if training:
                self._switch(role, True)
                watch = self._refuse_late_backward()
                try:
                    yield self.trunk
                finally:
                    watch.remove()
            else:
                with self._inferring([Stretch(None, adapter.key)] if adapter else []):
                    yield self.trunk

    @contextmanager
    def mixing(self, roles: Sequence[str | None]) -> Iterator[nn.Module]:
        """One forward pass whose rows belong to different roles; inference only. ``roles``: one per row."""
        stretches, at = [], 0
        for role, same in groupby(roles):
            n = len(list(same))
            if role is not None:
                stretches.append(Stretch(slice(at, at + n), self._find(role).key))
            at += n
        with self._block("a mixed pass"), self._inferring(stretches, of=at):
            yield self.trunk

    @contextmanager
    def lent(self, role: str, build: Callable[[PeftModel], Borrower]) -> Iterator[Borrower]:
        """Lend the model, with this role's adapter active and trainable, to the trainer that ``build`` makes of it.

        The trainer is built while everything is frozen, since TRL casts what is trainable on a 4-bit base to bf16 as it takes over.
        Afterwards the model is as it was but for the role's weights: patches, hooks, settings and strange adapters are gone.
        """
        adapter = self._find(role)
        if not adapter.trainable:
            raise ValueError(f"{role} is frozen: only a trainable adapter can be lent to a trainer")
        with self._block(f"the trainer of {role}"):
            loan = Loan(self._model())
            self._switch(role, False)
            self._model().active_adapter = adapter.key
            try:
                borrower = build(self._model())
                if recast := [k for k, p in adapter.weights.items() if p.dtype != torch.float32]:
                    raise RuntimeError(f"the trainer cast {len(recast)} weights of {role} to {adapter.weights[recast[0]].dtype}")
                self._switch(role, True)
                yield borrower
            finally:
                loan.settle()
                for key in set(self._model().peft_config) - {own.key for own in self._adapters.values()}:
                    self._model().delete_adapter(key)
                for p in adapter.weights.values():
                    p.grad = None
                self._survey()

    @property
    def trunk(self) -> nn.Module:
        """The decoder stack: token ids to hidden states, adapters of the current role included."""
        return self.base.model.get_decoder()

    @property
    def vocabulary(self) -> Tensor:
        """The output head (V, D) of the base."""
        return self.base.model.get_output_embeddings().weight  # type: ignore[union-attr,return-value]

    def checkpointing(self, on: bool) -> None:
        """Recompute activations in the backward pass instead of keeping them."""
        if on:
            self.base.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        else:
            self.base.model.gradient_checkpointing_disable()

    def parameters(self, role: str) -> list[nn.Parameter]:
        """The adapter weights of a role, in a fixed order, without its head."""
        return list(self._find(role).weights.values())

    def change(self, role: str) -> float:
        """How far a role's weights have moved, as a share of their norm at the start: 0 = where it started."""
        adapter = self._find(role)
        moved = sum(float((p.detach().float().cpu() - adapter.start[k]).square().sum()) for k, p in adapter.weights.items())
        size = sum(float(w.square().sum()) for w in adapter.start.values())
        return (moved / max(size, 1e-30)) ** 0.5

    def snapshot(self, role: str) -> dict[str, Tensor]:
        """The weights of a role, copied to the CPU, by the names under which PEFT stores them."""
        return {k: p.detach().cpu().clone() for k, p in self._find(role).weights.items()}

    def restore(self, role: str, weights: Mapping[str, Tensor]) -> None:
        """Put a snapshot back."""
        with torch.no_grad():
            for k, p in self._find(role).weights.items():
                p.copy_(weights[k])

    def save(self, role: str, folder: Path) -> None:
        """A plain PEFT folder: loads with nothing but ``PeftModel.from_pretrained``."""
        weights, config = self.snapshot(role), self._model().peft_config[self._find(role).key]
        folder.mkdir(parents=True, exist_ok=True)
        save_file({k: w.contiguous() for k, w in weights.items()}, folder / WEIGHTS, metadata={"format": "pt"})
        settings = {k: v for k, v in config.to_dict().items() if v is not None}
        settings |= {"inference_mode": True, "base_model_name_or_path": self.base.source}
        (folder / CONFIG).write_text(json.dumps(settings, indent=2, sort_keys=True, default=_plain) + "\n", encoding="utf-8")

    # -- inside -------------------------------------------------------------------------------------------------------------

    def _model(self) -> PeftModel:
        if self._peft is None:
            raise KeyError("the bank holds no adapter yet")
        return self._peft

    def _tuner(self) -> LoraModel:
        """What switches the layers."""
        return cast(LoraModel, self._model().base_model)

    def _find(self, name: str) -> _Adapter:
        if name not in self._adapters:
            raise KeyError(f"no adapter {name!r}; there are: {', '.join(self._adapters) or 'none'}")
        return self._adapters[name]

    def _survey(self) -> None:
        """List what a switch touches.

        PEFT's switches, ``Module.train`` and ``requires_grad_`` walk all modules and adapters each time, and every attribute that is
        set on a module passes through torch's checks: 40 ms per block with three adapters on 32 layers. Written where those end up, it is
        1.2 ms (CPU time). PPO opens three blocks per micro-batch.
        """
        self._parameters = list(self.base.model.parameters())
        self._layers: dict[str, Any] = {name: layer for name, layer in self.base.model.named_modules() if isinstance(layer, LoraLayer)}
        # With the PEFT wrapper among the modules: it has a train mode of its own.
        self._modules = [vars(module) for module in (self._peft or self.base.model).modules()]
        self._adapted = [vars(layer) for layer in self._layers.values()]

    def _attach(
        self,
        name: str,
        config: LoraConfig,
        *,
        trainable: bool,
        seed: int = 0,
        weights: Mapping[str, Tensor] | None = None,
        where: Path | None = None,
    ) -> None:
        """Put a new adapter on the base: drawn from ``seed``, or with ``weights`` (from ``where``)."""
        self._must_be_outside(f"a new adapter {name!r}")
        if name in self._adapters:
            raise KeyError(f"there is an adapter {name!r} already")
        self._made += 1
        key = f"adapter{self._made}"
        config.base_model_name_or_path = None  # PEFT warns where a folder has moved; ours are told apart by their shapes and the plan
        with torch.random.fork_rng(devices=[self.base.device] if self.base.device.type == "cuda" else []):
            torch.manual_seed(seed)
            if self._peft is None:
                self._peft = get_peft_model(self.base.model, config, adapter_name=key, autocast_adapter_dtype=False)  # type: ignore[assignment]
            else:
                self._peft.add_adapter(key, config, autocast_adapter_dtype=False)
        self._survey()
        own: dict[str, nn.Parameter] = {
            f"base_model.model.{place}.lora_{part}.weight": linears[key].weight
            for place, layer in self._layers.items()
            for part, linears in (("A", layer.lora_A), ("B", layer.lora_B))
            if key in linears
        }
        for p in own.values():
            p.data = p.data.float()  # in bf16 they would not move at small learning rates
        self._adapters[name] = _Adapter(key, trainable, own)
        if weights is not None:
            if strangers := _differing(own, weights):
                self._detach(name)
                raise ArtifactError(
                    f"{where or name}: the adapter is from another base, {len(strangers)} tensors do not fit, {strangers[0]} among them"
                )
            self.restore(name, weights)
        self._adapters[name].start.update({k: p.detach().cpu().clone() for k, p in own.items()})
        self._settle()

    def _detach(self, name: str) -> None:
        adapter = self._adapters.pop(name)
        if self._adapters:
            self._tuner().set_adapter(next(iter(self._adapters.values())).key)  # PEFT warns on losing the active one
            self._model().delete_adapter(adapter.key)
        else:
            self._tuner().unload()
            self._peft = None
        self._survey()
        self._settle()

    @contextmanager
    def _block(self, whose: str) -> Iterator[None]:
        self._must_be_outside(f"a switch to {whose}")
        self._inside = whose
        self._blocks += 1
        try:
            yield
        finally:
            self._inside = None
            self._settle()

    def _switch(self, role: str | None, training: bool) -> None:
        adapter = None if role is None else self._find(role)
        for layer in self._adapted:  # what PEFT's set_adapter and enable_adapters leave behind, gradients aside
            layer["_disable_adapters"] = adapter is None
            if adapter:
                layer["_active_adapter"] = [adapter.key]
        if adapter:
            self._tuner().active_adapter = adapter.key
        for p in self._parameters:
            p.requires_grad = False
        if adapter and training:
            for p in adapter.weights.values():
                p.requires_grad = True
        for module in self._modules:
            module["training"] = training

    @contextmanager
    def _inferring(self, stretches: Sequence[Stretch], of: int | None = None) -> Iterator[None]:
        self._settle()
        with added(self._layers.values(), stretches, of=of):
            yield

    def _settle(self) -> None:
        """Outside every block: the base, frozen, in eval mode."""
        self._switch(None, False)

    def _must_be_outside(self, what: str) -> None:
        if self._inside:
            raise RuntimeError(f"{what} inside the block of {self._inside}: finish its forward and backward first")

    def _refuse_late_backward(self) -> RemovableHandle:
        """Hidden states that are made in this block let no gradient through once it is over."""
        block, role = self._blocks, self._inside

        def check(grad: Tensor) -> None:
            if self._inside is None or self._blocks != block:
                raise RuntimeError(f"backward() of {role} outside its block: under checkpointing it would recompute with another adapter")

        def watch(trunk: nn.Module, positional: tuple[Any, ...], output: Any) -> None:
            if output.last_hidden_state.requires_grad:
                output.last_hidden_state.register_hook(check)

        return self.trunk.register_forward_hook(watch)


def _read(folder: Path) -> tuple[LoraConfig, dict[str, Tensor]]:
    if missing := [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]:
        raise ArtifactError(f"{folder}: not a PEFT adapter, {' and '.join(missing)} missing; run the stage that writes it again")
    try:
        return cast(LoraConfig, LoraConfig.from_pretrained(str(folder))), load_file(folder / WEIGHTS)
    except (OSError, ValueError, TypeError, SafetensorError) as e:
        raise ArtifactError(f"{folder}: not a PEFT adapter ({e}); run the stage that writes it again") from e


def _differing(own: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[str]:
    """Names that only one of the two has, or that have different shapes."""
    return sorted(k for k in own.keys() | other.keys() if k not in own or k not in other or own[k].shape != other[k].shape)


def _plain(value: object) -> Any:
    return sorted(value) if isinstance(value, set) else getattr(value, "value", str(value))
