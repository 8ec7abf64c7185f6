"""Pairs from one base, a policy on another, through the engine on real weights: the paper's setting in small."""

import json
import shutil
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from lite import engine, recipe
from lite.knobs import BaseSpec
from lite.micro import BASE_DIR
from lite.runs.progress import Screen

TEXT = """
base: {model: tiny, device: cpu}
task: helpful
stages:
  - prompts: {train: 24, dev: 1, test: 4}
  - contrast: {max_new_tokens: 48, attempts: 2}
  - reward: {max_tokens: 96}
  - ppo: {steps: 1, rollouts: 4, minibatch: 4, epochs: 1, max_new_tokens: 16}
  - evaluate: {draws: 1, max_new_tokens: 16}
"""


@pytest.fixture(scope="module")
def other_words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded base with its vocabulary in the opposite order: it says the same things in other ids."""
    folder = tmp_path_factory.mktemp("other") / "base"
    shutil.copytree(BASE_DIR, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    first, last = 3, len(vocabulary) - 1  # the special tokens stay
    tokenizer["model"]["vocab"] = {word: id if id < first else first + last - id for word, id in vocabulary.items()}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    weights = load_file(folder / "model.safetensors")
    table = weights["model.embed_tokens.weight"]
    table[first : last + 1] = table[first : last + 1].flip(0)
    save_file({name: w.contiguous() for name, w in weights.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


class Watched:
    """The engine's own tools; notes which models are still in memory when the next one is loaded."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.alive: list[int] = []
        self._parameters: list[weakref.ref] = []

    def tools(self) -> engine.Tools:
        return replace(engine.Tools(), load_bank=self.load_bank)

    def load_bank(self, spec: BaseSpec) -> object:
        self.alive.append(sum(p() is not None for p in self._parameters))
        bank = engine.load_bank(spec)
        self.loaded.append(spec.model)
        self._parameters = [weakref.ref(p) for p in bank.base.model.parameters()]
        return bank


def test_a_simulator_with_another_tokenizer_writes_the_pairs_of_a_policy_and_leaves_the_memory(other_words, tmp_path):
    watched = Watched()
    loaded = recipe.loads(TEXT, [f"contrast.base.model={other_words}"], name="sim")
    outcome = engine.execute(loaded, TEXT, runs=tmp_path, screen=Screen(quiet=True), tools=watched.tools())
    assert outcome.state == "done", outcome.error
    assert watched.loaded == [str(other_words), "tiny"]
    assert watched.alive == [0, 0]  # not one tensor of the first base was left when the second was loaded
    pairs = outcome.run.report()["diagnostics"]["pairs"]
    assert pairs["pairs"] >= 20  # a policy's tokenizer on a simulator's ids would read noise, and the oracle would see it
    assert pairs["labels"]["decided"] > 10
    log = outcome.run.folder.log.read_text(encoding="utf-8")
    assert log.index(f"loading {other_words}") < log.index(f"releasing {other_words}") < log.index("loading tiny")
    adapter = json.loads((outcome.run.folder.path / "stages/04-ppo/out/adapter/adapter_config.json").read_text(encoding="utf-8"))
    assert adapter["base_model_name_or_path"] == str(BASE_DIR)
