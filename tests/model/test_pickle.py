"""Nothing is unpickled: what is only there as a pickle is refused, what lies beside is not looked at (S9)."""

import pickle
import shutil
import warnings

import pytest
import torch

from lite.errors import ArtifactError, PreconditionError
from lite.knobs import BaseSpec, LoraSpec
from lite.model.bank import AdapterBank
from lite.model.base import load_base
from lite.model.state import OPTIMIZER, WEIGHTS, load_state, save_state
from tests.pickles import bomb, plant


@pytest.fixture
def canary(tmp_path):
    """A file that must not appear."""
    found = tmp_path / "canary"
    yield found
    assert not found.exists()


def test_the_bomb_goes_off_where_somebody_unpickles(tmp_path):
    """Or the tests below would prove nothing."""
    (tmp_path / "a.pt").write_bytes(bomb(tmp_path / "first"))
    plant(tmp_path, tmp_path / "second")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.load(tmp_path / "a.pt", weights_only=False)
        pickle.loads((tmp_path / "scheduler.pt").read_bytes()).close()  # noqa: S301 that it is unsafe is what is shown
    assert (tmp_path / "first").exists() and (tmp_path / "second").exists()


@pytest.mark.parametrize("quantize", ["nf4", "none"])
def test_a_base_whose_weights_are_pickled_is_refused(pico_base, tmp_path, canary, quantize):
    folder = shutil.copytree(pico_base, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    plant(folder, canary)
    with pytest.raises(PreconditionError, match="safetensors"):
        load_base(BaseSpec(model=str(folder), quantize=quantize, device="cpu"))


def test_pickles_beside_the_weights_of_a_base_are_left_alone(pico_base, tmp_path, canary):
    folder = shutil.copytree(pico_base, tmp_path / "model")
    plant(folder, canary)
    load_base(BaseSpec(model=str(folder), device="cpu"))


def test_an_adapter_that_is_pickled_is_refused(base, tmp_path, canary):
    bank = AdapterBank(base)
    bank.add("mine", LoraSpec(r=4, alpha=8), seed=1)
    bank.save("mine", tmp_path / "adapter")
    bank.clear()
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    plant(tmp_path / "adapter", canary)
    with pytest.raises(ArtifactError, match="missing"):
        bank.load("mine", tmp_path / "adapter")


@pytest.mark.parametrize("file", [WEIGHTS, OPTIMIZER])
def test_a_training_state_that_is_a_pickle_by_another_name_is_refused(tmp_path, canary, file):
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    save_state(tmp_path, weights={"policy": {"w": weight}}, optimizer=optimizer, facts={"step": 1})
    (tmp_path / file).write_bytes(bomb(canary))
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_state(tmp_path, optimizer)
