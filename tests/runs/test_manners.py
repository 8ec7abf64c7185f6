"""What libraries read from the environment as they are imported: set before, and in those that have read it already."""

import importlib
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from lite.runs import manners
from lite.runs.manners import offline_while, prepare_environment

OFFLINE, TELEMETRY = "HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"


@pytest.fixture
def imported(monkeypatch) -> dict[str, SimpleNamespace]:
    """The Hub's client and `datasets`, imported with the network on and telemetry too."""
    for name in (OFFLINE, TELEMETRY):
        monkeypatch.setenv(name, "")  # so that what a test sets is taken back
        monkeypatch.delenv(name)
    from huggingface_hub import constants

    monkeypatch.setattr(constants, OFFLINE, False)
    monkeypatch.setattr(constants, TELEMETRY, False)
    datasets = SimpleNamespace(**{OFFLINE: False})
    monkeypatch.setitem(sys.modules, "datasets.config", datasets)  # type: ignore[arg-type]
    return {"hub": constants, "datasets": datasets}  # type: ignore[dict-item]


def flags(imported: dict[str, SimpleNamespace]) -> tuple[bool, bool]:
    return imported["hub"].HF_HUB_OFFLINE, imported["datasets"].HF_HUB_OFFLINE


def test_what_is_imported_already_is_told_too(imported):
    prepare_environment(offline=False)
    assert imported["hub"].HF_HUB_DISABLE_TELEMETRY
    assert flags(imported) == (False, False)
    prepare_environment(offline=True)
    assert flags(imported) == (True, True)


def test_what_the_user_set_stays(imported, monkeypatch):
    monkeypatch.setenv(TELEMETRY, "0")
    monkeypatch.setenv(OFFLINE, "yes")
    prepare_environment(offline=False)
    assert not imported["hub"].HF_HUB_DISABLE_TELEMETRY
    assert os.environ[OFFLINE] == "yes"
    assert flags(imported) == (True, True)


@pytest.mark.parametrize("variable", [None, "0"])
def test_offline_lasts_as_long_as_the_block(imported, monkeypatch, variable):
    if variable:
        monkeypatch.setenv(OFFLINE, variable)

    def fail() -> None:
        with offline_while(True):
            assert os.environ[OFFLINE] == "1"
            assert flags(imported) == (True, True)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert os.environ.get(OFFLINE) == variable
    assert flags(imported) == (False, False)


def test_whoever_is_offline_stays_so(imported):
    imported["hub"].HF_HUB_OFFLINE = True
    with offline_while(True):
        pass
    assert flags(imported) == (True, False)
    with offline_while(False):
        assert flags(imported) == (True, False)


def test_a_library_that_is_imported_inside_is_not_offline_for_good(imported, monkeypatch):
    monkeypatch.delitem(sys.modules, "datasets.config")
    with offline_while(True):
        monkeypatch.setitem(sys.modules, "datasets.config", SimpleNamespace(**{OFFLINE: True}))  # type: ignore[arg-type]
    assert sys.modules["datasets.config"].HF_HUB_OFFLINE is False


def test_the_modules_that_keep_it_are_still_these():
    """A new version of a library that keeps a flag elsewhere would ask where it should not."""
    for name, modules in manners.KEPT_IN.items():
        assert all(isinstance(getattr(importlib.import_module(module), name), bool) for module in modules)


def test_the_library_prepares_before_anything_heavy_is_imported():
    code = (
        "import os, sys, lite; assert 'torch' not in sys.modules; lite.load_policy; from huggingface_hub import constants;"
        "sys.exit(not constants.HF_HUB_DISABLE_TELEMETRY or 'TQDM_DISABLE' in os.environ)"
    )
    bare = {name: value for name, value in os.environ.items() if name not in manners.ENVIRONMENT | manners.QUIET_ENVIRONMENT}
    assert subprocess.run([sys.executable, "-c", code], env=bare, check=False).returncode == 0
