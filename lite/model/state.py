"""The state of a training on disk, to go on from exactly there: weights and optimiser in safetensors, other facts in JSON. No pickle.

An optimiser is restored whole or not at all: with fresh moments Adam's next steps would be other ones, and nobody would notice.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lite.errors import ArtifactError
from lite.runs.publish import write_json

WEIGHTS, OPTIMIZER, FACTS = "weights.safetensors", "optimizer.safetensors", "state.json"
Weights = Mapping[str, Mapping[str, Tensor]]
"""Tensors by role and name."""


class State(NamedTuple):
    weights: dict[str, dict[str, Tensor]]
    facts: dict[str, Any]


def save_state(folder: Path, *, weights: Weights, optimizer: torch.optim.Optimizer, facts: Mapping[str, Any]) -> None:
    """``facts``: JSON values; floats keep every bit."""
    flat = {f"{role}/{name}": t.detach().cpu().contiguous() for role, named in weights.items() for name, t in named.items()}
    save_file(flat, folder / WEIGHTS)
    save_file(_moments(optimizer), folder / OPTIMIZER)
    write_json(folder / FACTS, facts)


def load_state(folder: Path, optimizer: torch.optim.Optimizer) -> State:
    """Weights and facts of a folder; ``optimizer`` goes on as the saved one would have."""
    try:
        flat, moments = load_file(folder / WEIGHTS), load_file(folder / OPTIMIZER)
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError, SafetensorError) as e:
        raise ArtifactError(f"{folder}: the training state cannot be read ({e}); delete the folder to go on from the one before") from e
    weights: dict[str, dict[str, Tensor]] = {}
    for key, tensor in flat.items():
        role, _, name = key.partition("/")
        weights.setdefault(role, {})[name] = tensor
    _restore(optimizer, moments, folder)
    return State(weights, facts)


def save_weights(file: Path, weights: Mapping[str, Tensor]) -> None:
    """Tensors by name; the file appears whole."""
    scratch = file.with_suffix(".tmp")
    save_file({name: t.contiguous() for name, t in weights.items()}, scratch)
    scratch.replace(file)


def load_weights(file: Path) -> dict[str, Tensor]:
    return load_file(file)


def _moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of every parameter as ``<group>.<place>.<name>``; learning rates are the schedule's, by step."""
    found = {}
    for key, p in _places(optimizer):
        for name, value in optimizer.state[p].items():
            tensor = value if isinstance(value, Tensor) else torch.tensor(value)
            found[f"{key}.{name}"] = tensor.detach().cpu().clone().contiguous()
    return found


def _restore(optimizer: torch.optim.Optimizer, stored: Mapping[str, Tensor], where: Path) -> None:
    """bitsandbytes makes its buffers by itself, paged ones in memory that both sides see: they are filled, never replaced."""
    by_place: dict[str, dict[str, Tensor]] = {}
    for key, tensor in stored.items():
        group, place, name = key.split(".", 2)
        by_place.setdefault(f"{group}.{place}", {})[name] = tensor
    places = dict(_places(optimizer))
    if not stored:  # kept before the first update: in fp16 the first ones may all have been left out
        return
    if by_place.keys() != places.keys():
        raise ArtifactError(f"{where / OPTIMIZER}: the state of {len(by_place)} parameters, this training has {len(places)}")
    for g, group in enumerate(optimizer.param_groups):
        for k, p in enumerate(group["params"]):
            own = by_place[f"{g}.{k}"]
            if make_buffers := getattr(optimizer, "init_state", None):
                make_buffers(group, p, g, k)
                for name, buffer in optimizer.state[p].items():
                    if isinstance(buffer, Tensor):
                        buffer.copy_(own[name])
                    else:
                        optimizer.state[p][name] = type(buffer)(own[name].item())
            else:  # torch keeps the count of steps, a scalar, on the CPU
                optimizer.state[p] = {name: t.to(p.device) if t.dim() else t for name, t in own.items()}


def _places(optimizer: torch.optim.Optimizer) -> list[tuple[str, torch.nn.Parameter]]:
    return [(f"{g}.{k}", p) for g, group in enumerate(optimizer.param_groups) for k, p in enumerate(group["params"])]
