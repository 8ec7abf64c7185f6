"""Talking to a policy: which texts are taken, which base it stands on, and that nobody is asked where that is wanted."""

import json
import socket
import sys
from pathlib import Path

import huggingface_hub
import pytest

import lite
from lite import recipe
from lite.errors import ArtifactError, PreconditionError, RecipeError
from lite.knobs import BaseSpec, LoraSpec
from lite.library.policy import _base_of
from lite.library.texts import texts
from lite.model.bank import AdapterBank
from lite.model.base import load_base

QUESTIONS = ["How do I bake bread?", "How do I make tea?"]


@pytest.fixture(scope="module")
def adapter(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("some") / "adapter"
    bank = AdapterBank(load_base(BaseSpec(model="tiny", device="cpu")))
    bank.add("policy", LoraSpec(), seed=3)
    bank.save("policy", folder)
    return folder


def noted(folder: Path, base: object) -> Path:
    """The folder of an adapter that notes its base as PPO alone does."""
    for place in ("adapter", "ckpt/last-good"):
        (folder / place).mkdir(parents=True)
        (folder / place / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/elsewhere"}))
    (folder / "ppo.json").write_text(json.dumps({"base": base}))
    return folder


def test_a_policy_takes_any_list_of_texts_and_no_single_one(adapter):
    policy = lite.load_policy(adapter)
    listed = policy.reply(QUESTIONS, seed=1, max_new_tokens=8)
    assert len(listed) == 2
    assert policy.reply((q for q in QUESTIONS), seed=1, max_new_tokens=8) == listed
    for ask in (policy.reply, policy.write, policy.base.reply):
        with pytest.raises(RecipeError, match="one string, where a list of texts is needed"):
            ask(QUESTIONS[0])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("How?", r"one string, .*\[text\]"),
        ([], "nothing in it"),
        (iter(()), "nothing in it"),
        (7, r"a list of texts is needed \(got int\)"),
        (None, r"\(got NoneType\)"),
        (["How?", "", "Why?"], r"\[1\]: a text is needed \(got ''\)"),
        (["How?", 7, None], r"(?s)2 problem.*\[1\]: a text is needed \(got 7\).*\[2\]: .*None"),
        ([1] * 9, "and 4 more"),
        (b"How?", r"\[0\]: a text is needed"),
    ],
)
def test_what_is_no_list_of_texts_is_refused(given, words):
    with pytest.raises(RecipeError, match=words):
        texts(given, "questions")


def test_texts_are_gone_through_once():
    assert texts((t for t in ("a", "b")), "prompts") == ["a", "b"]
    assert texts((), "dev", none=True) == []


def test_the_base_of_an_adapter_is_the_one_that_is_given_or_noted_or_named(tmp_path):
    out = noted(tmp_path / "out", {"model": "org/mine", "revision": "v1", "quantize": "none"})
    for adapter in (out / "adapter", out / "ckpt/last-good"):
        assert _base_of(adapter, None) == BaseSpec(model="org/mine", revision="v1", quantize="none")
        assert _base_of(adapter, "/mnt/mine") == BaseSpec(model="/mnt/mine", quantize="none")
        assert _base_of(adapter, BaseSpec(model="tiny")) == BaseSpec(model="tiny")
    other = out / "other"  # an adapter that only lies beside
    (out / "adapter").rename(other)
    assert _base_of(other, None) == BaseSpec(model="org/elsewhere")
    assert _base_of(other, "tiny") == BaseSpec(model="tiny")


@pytest.mark.parametrize("base", [{"model": "org/mine", "quantize": "gptq"}, {"model": None, "quantize": "none"}])
def test_a_base_that_cannot_be_loaded_alike_is_to_be_named(tmp_path, base):
    out = noted(tmp_path, base)
    with pytest.raises(ArtifactError, match=r"loaded by hand .*base=lite.knobs.BaseSpec\("):
        _base_of(out / "adapter", None)
    assert _base_of(out / "adapter", BaseSpec(model="tiny")) == BaseSpec(model="tiny")


def test_the_adapter_of_a_runs_stage_stands_on_the_runs_base(tmp_path):
    text = recipe.load(recipe.built_in()["tiny_dpo_helpful"], ["base.quantize=none"]).to_yaml()
    (tmp_path / "resolved.yaml").write_text(text)
    adapter = tmp_path / "stages/03-dpo/out/adapter"
    adapter.mkdir(parents=True)
    assert _base_of(adapter, None) == BaseSpec(model="tiny", quantize="none")


@pytest.fixture
def asked(monkeypatch) -> list[object]:
    """Every try to reach anybody, in a process that has imported the Hub's client with the network on."""
    tried: list[object] = []

    def refuse(*words: object, **_: object) -> None:
        tried.append(words[:2])
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    assert "transformers" in sys.modules
    return tried


def test_offline_a_policy_asks_nobody_and_afterwards_the_program_may(adapter, asked):
    with pytest.raises(PreconditionError, match="offline, and it is not in the cache"):
        lite.load_policy(adapter, base="org/none-such", offline=True)
    assert asked == []
    assert not huggingface_hub.is_offline_mode()
    with pytest.raises(PreconditionError, match="out of reach"):
        lite.load_policy(adapter, base="org/none-such")
    assert asked


def test_offline_a_run_asks_nobody(tmp_path, asked):
    file = tmp_path / "small.yaml"
    file.write_text("{base: {model: org/none-such}, task: helpful, stages: [prompts: {train: 4, dev: 1, test: 1}, contrast]}")
    with pytest.raises(PreconditionError, match="offline, and not in the cache"):
        lite.run(file, runs=tmp_path / "runs", offline=True, quiet=True)
    assert asked == []
    assert not huggingface_hub.is_offline_mode()


def test_nobody_is_told_of_us(adapter):
    lite.load_policy(adapter)
    assert huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY
