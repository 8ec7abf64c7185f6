"""An optimiser that is stored and restored takes the same steps, to the bit, and is never restored in part."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lite.errors import ArtifactError
from lite.model.optim import adamw
from lite.model.state import OPTIMIZER, load_state, save_state


def paged_8bit(groups):
    from bitsandbytes.optim import PagedAdamW8bit

    return PagedAdamW8bit([{"params": ps, "lr": lr, "base_lr": lr} for ps, lr in groups])


def parameters():
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(96, 96)), nn.Parameter(torch.randn(1, 64)), nn.Parameter(torch.randn(1))]


def train(ps, optimizer, steps):
    for step in steps:
        torch.manual_seed(step)
        for p in ps:
            p.grad = torch.randn_like(p)
        optimizer.step()


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize("make", [adamw, paged_8bit])
def test_a_restored_optimiser_takes_the_same_steps(make, tmp_path):
    whole = parameters()
    optimizer = make([(whole[:2], 1e-2), (whole[2:], 1e-3)])
    train(whole, optimizer, range(3))
    save_state(tmp_path, weights={"w": {str(i): p for i, p in enumerate(whole)}}, optimizer=optimizer, facts={"x": 0.1 + 0.2})
    train(whole, optimizer, range(3, 6))

    again = parameters()
    restored = make([(again[:2], 1e-2), (again[2:], 1e-3)])
    state = load_state(tmp_path, restored)
    assert state.facts == {"x": 0.1 + 0.2}
    with torch.no_grad():
        for i, p in enumerate(again):
            p.copy_(state.weights["w"][str(i)])
    train(again, restored, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))


def test_a_state_from_before_the_first_update_begins_with_a_fresh_optimiser(tmp_path):
    save_state(tmp_path, weights={}, optimizer=adamw([(parameters(), 1e-2)]), facts={})
    fresh = adamw([(parameters(), 1e-2)])
    load_state(tmp_path, fresh)
    assert not fresh.state


def test_a_state_of_fewer_parameters_is_refused(tmp_path):
    ps = parameters()
    optimizer = adamw([(ps, 1e-2)])
    train(ps, optimizer, range(1))
    save_state(tmp_path, weights={}, optimizer=optimizer, facts={})
    stored = load_file(tmp_path / OPTIMIZER)
    save_file({k: t for k, t in stored.items() if not k.startswith("0.1.")}, tmp_path / OPTIMIZER)
    fresh = adamw([(parameters(), 1e-2)])
    with pytest.raises(ArtifactError, match="the state of 2 parameters, this training has 3"):
        load_state(tmp_path, fresh)
    assert not fresh.state


@pytest.mark.parametrize("damage", ["empty", "cut", "missing"])
def test_a_damaged_state_is_an_error_that_names_the_folder(damage, tmp_path):
    ps = parameters()
    optimizer = adamw([(ps, 1e-2)])
    train(ps, optimizer, range(1))
    save_state(tmp_path, weights={}, optimizer=optimizer, facts={})
    file = tmp_path / OPTIMIZER
    whole = file.read_bytes()
    file.unlink() if damage == "missing" else file.write_bytes(b"" if damage == "empty" else whole[: len(whole) // 2])
    with pytest.raises(ArtifactError, match=str(tmp_path)):
        load_state(tmp_path, adamw([(parameters(), 1e-2)]))
