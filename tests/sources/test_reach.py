"""Offline first: with a warm cache nothing tries to connect; with a cold one and no network the answer comes at once."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lite.errors import PreconditionError
from lite.plan import tiny_folder
from lite.sources import reach

ROOT = Path(__file__).parent.parent.parent
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def into_cache(hub: Path, *, leave_out: str = "") -> Path:
    """The tiny base as if it had been fetched from the Hub."""
    repo = hub / "models--org--small"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(COMMIT)
    folder = repo / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    for file in tiny_folder().iterdir():
        if file.is_file() and file.name != leave_out:
            shutil.copy(file, folder / file.name)
    return folder


@pytest.fixture
def hub(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("leave_out", ["", "config.json", "model.safetensors"])
def test_a_cached_model_is_whole_or_not_cached(hub, leave_out):
    folder = into_cache(hub, leave_out=leave_out)
    expected = None if leave_out else folder
    assert reach.model_folder("org/small", None) == expected
    assert reach.model_folder("org/small", "main") == expected
    assert reach.model_folder("org/small", "v2") is None
    assert reach.model_folder("org/other", None) is None


def test_every_part_of_the_weights_is_asked_for(hub):
    folder = into_cache(hub, leave_out="model.safetensors")
    (folder / reach.INDEX).write_text('{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}')
    (folder / "model-1.safetensors").touch()
    assert not reach.model_folder("org/small", None)
    (folder / "model-2.safetensors").touch()
    assert reach.model_folder("org/small", None)


WARM = """
import socket, sys
tried = []
def refuse(self, address):
    tried.append(address)
    raise OSError("no network in this test")
socket.socket.connect = socket.socket.connect_ex = refuse
socket.getaddrinfo = lambda *a, **k: refuse(None, a[:2])
sys.path.insert(0, sys.argv[1])
from lite.knobs import BaseSpec
from lite.model.base import load_base
base = load_base(BaseSpec(model="org/small", device="cpu"))
assert base.source == "org/small"
assert not tried, tried
"""


def test_a_warm_cache_makes_no_connection(tmp_path):
    import os

    into_cache(tmp_path)
    words = [sys.executable, "-W", "ignore", "-c", WARM, str(ROOT)]
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr


def test_a_cold_cache_without_a_network_is_told_in_seconds(hub, monkeypatch):
    import socket

    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    tried = []

    def refuse(*place, **_):
        tried.append(place[:2])
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    began = time.monotonic()
    with pytest.raises(PreconditionError, match=r"org/small.*: not in the cache, and the Hub is out of reach .*give a folder"):
        reach.ask("org/small", None, "base.model: 'org/small' cannot be had", "give a folder")
    assert time.monotonic() - began < 5
    assert len(tried) <= 2  # a name is looked up twice at most, nothing is tried again for a minute


@pytest.mark.parametrize("allowed", [True, False])
def test_a_gated_model_is_told_before_anything_is_fetched(monkeypatch, allowed):
    from types import SimpleNamespace

    import huggingface_hub
    from huggingface_hub import errors

    def check(api, repo):
        if not allowed:
            raise errors.GatedRepoError.__new__(errors.GatedRepoError)

    monkeypatch.setattr(huggingface_hub, "is_offline_mode", lambda: False)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: SimpleNamespace(gated="manual"))
    monkeypatch.setattr(huggingface_hub.HfApi, "auth_check", check)
    if allowed:
        reach.ask("org/gated", None, "base.model", "give a folder")
    else:
        with pytest.raises(PreconditionError, match=r"accept its terms at https://huggingface\.co/org/gated"):
            reach.ask("org/gated", None, "base.model", "give a folder")


def test_whether_the_hub_answers_is_told_in_seconds(monkeypatch):
    import httpx

    def head(answer):
        monkeypatch.setattr(httpx, "head", lambda *_, **__: answer())

    head(lambda: httpx.Response(200))
    assert reach.trouble() is None
    head(lambda: httpx.Response(503))
    assert reach.trouble() == "it answers 503"

    def refused():
        raise httpx.ConnectError("no route to host\nand more")

    head(refused)
    assert reach.trouble() == "no route to host"
    monkeypatch.setattr(reach, "SECONDS", 0.05)
    head(lambda: (time.sleep(0.2), httpx.Response(200))[1])
    assert reach.trouble() == "no answer within 0 s"


def test_doctor_asks_nobody_when_offline(monkeypatch):
    import huggingface_hub

    from lite import doctor

    asked = []
    monkeypatch.setattr(reach, "trouble", lambda: asked.append(1) or "no route")
    monkeypatch.setattr(huggingface_hub, "is_offline_mode", lambda: True)
    assert doctor._network().level == "green"
    assert not asked
    monkeypatch.setattr(huggingface_hub, "is_offline_mode", lambda: False)
    assert doctor._network().level == "amber"
    assert "no route" in doctor._network().found


def test_offline_asks_nobody(hub, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "is_offline_mode", lambda: True)
    with pytest.raises(PreconditionError, match="offline, and it is not in the cache"):
        reach.ask("org/small", None, "base.model", "give a folder")


def test_what_is_fetched_of_a_model_is_each_weight_once(tmp_path, monkeypatch):
    """Config and index first, then the files that the index names; others in the repository are left there."""
    import huggingface_hub

    asked = []

    def download(repo, *, revision=None, allow_patterns=None, local_files_only=False, repo_type=None):
        if local_files_only:
            raise huggingface_hub.errors.LocalEntryNotFoundError("nothing is cached")
        asked.append(allow_patterns)
        (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}')
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(reach, "ask", lambda *words: None)
    assert reach.fetch("org/large", None) == tmp_path
    assert asked == [list(reach.SMALL), [*reach.SMALL, *sorted(asked[1][len(reach.SMALL) :])]]
    assert set(asked[1][len(reach.SMALL) :]) == {"m-1.safetensors", "m-2.safetensors"}
    assert not any(pattern.endswith("safetensors") for pattern in reach.SMALL)
