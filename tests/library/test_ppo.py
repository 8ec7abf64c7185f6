"""PPO without a recipe: the stage's own steps, any function for a reward, and a folder in which nothing is lost."""

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lite import PPO, ask, load_policy, tasks
from lite.artifacts import Prompts, Reward
from lite.errors import ArtifactError, DivergedError, LiteError, RecipeError
from lite.knobs import BaseSpec
from lite.knobs.ppo import PpoSpec
from lite.library.ppo import _numbers, _Voice
from lite.model.bank import AdapterBank
from lite.model.base import load_base
from lite.model.generate import Generated
from lite.records import Prompt, write_rows
from lite.runs.layout import StageFolder
from lite.runs.progress import Screen
from lite.runs.publish import digests as files
from lite.runs.read import lines
from lite.stages.bench import Bench
from lite.stages.ppo import ppo
from lite.stages.rollouts import Setting
from lite.text.dialogue import Turn

EXAMPLE = Path(__file__).parents[2] / "examples/ppo_with_a_function.py"
SMALL = {"steps": 2, "rollouts": 8, "minibatch": 4, "lr": 1e-3, "max_new_tokens": 16, "warmup_steps": 0, "kl_coef": 0.05}
QUESTIONS = ["How do I bake bread?", "How do I plant beans?", "How do I make tea?"]
PROMPTS = [ask(question) for question in QUESTIONS]


def count_words(prompts: list[str], replies: list[str]) -> list[float]:
    return [float(len(reply.split())) for reply in replies]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter/adapter_model.safetensors")


def same(one: Path, other: Path) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def scorer(tmp_path_factory) -> Path:
    """A reward model that nobody trained: an adapter and a head."""
    folder = tmp_path_factory.mktemp("reward")
    bank = AdapterBank(load_base(BaseSpec(model="tiny", device="cpu")))
    bank.add("reward", PpoSpec().lora, seed=3)
    bank.save("reward", folder / "adapter")
    bank.head("reward").randomize(3).save(folder / "head.safetensors")
    return folder


def test_the_example_shows_a_reward_that_rises(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("ppo_with_a_function", EXAMPLE)
    assert spec and spec.loader
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    first, last = example.main(tmp_path / "policy")
    assert last > first + 0.3
    assert "mean reward" in capsys.readouterr().out
    reply = load_policy(tmp_path / "policy").reply([QUESTIONS[0]], seed=1, max_new_tokens=16)
    assert reply == load_policy(tmp_path / "policy/adapter").reply([QUESTIONS[0]], seed=1, max_new_tokens=16)


def test_with_a_reward_model_it_is_the_stage_to_the_bit(scorer, tmp_path):
    PPO("tiny", reward=scorer, seed=17, **SMALL).train(PROMPTS, out=tmp_path / "alone", quiet=True)
    asked = tmp_path / "prompts"
    asked.mkdir()
    for split in ("train", "dev"):
        write_rows(asked / f"{split}.jsonl", [Prompt(f"p{i}", (Turn("human", q),)) for i, q in enumerate(QUESTIONS)])
    out = tmp_path / "stage"
    out.mkdir()
    bank = AdapterBank(load_base(BaseSpec(model="tiny")))
    voice = _Voice(StageFolder(tmp_path), Screen(quiet=True))
    (tmp_path / "ckpt").mkdir()
    bench = Bench(task=tasks.load("helpful"), seed=17, stage="ppo", ckpt=tmp_path / "ckpt", reporter=voice, load_bank=lambda: bank)
    ppo(PpoSpec(**SMALL), prompts=Prompts(asked), reward=Reward(scorer), policy=None, out=out, bench=bench)
    assert same(tmp_path / "alone", out)


def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path):
    calls = 0

    def until_the_third(prompts: list[str], replies: list[str]) -> list[float]:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return count_words(prompts, replies)

    knobs = SMALL | {"steps": 3, "save_every": 1}
    until_the_third.__qualname__ = count_words.__qualname__
    PPO("tiny", reward=count_words, **knobs).train(PROMPTS, out=tmp_path / "whole", quiet=True)
    with pytest.raises(KeyboardInterrupt):
        PPO("tiny", reward=until_the_third, **knobs).train(PROMPTS, out=tmp_path / "broken", quiet=True)
    with pytest.raises(ArtifactError, match="another training"):
        PPO("tiny", reward=count_words, **knobs | {"lr": 0.5}).train(PROMPTS, out=tmp_path / "broken", resume=True, quiet=True)
    trained = PPO("tiny", reward=count_words, **knobs).train(PROMPTS, out=tmp_path / "broken", resume=True, quiet=True)
    assert same(tmp_path / "whole", tmp_path / "broken")
    assert [m["step"] for m in trained.metrics()] == [1, 2, 3]
    assert not (tmp_path / "broken/ckpt").exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([0.0], "1 numbers for 3 replies"),
        ([0.0] * 4, "4 numbers for 3 replies"),
        (None, "gave None, not a number for each of 3"),
        (1.5, "gave 1.5, not a number for each"),
        (torch.tensor(1.5), "not a number for each"),
        ("123", "gave '123', not a number for each"),
        ({0: 1.0, 1: 1.0, 2: 1.0}, "not a number for each"),
        ([0.0, math.nan, 0.0], r"gave nan for reply 2 of 3 \('b'\)"),
        ([0.0, 0.0, -math.inf], "gave -inf for reply 3 of 3"),
        ([None, 0.0, 0.0], "gave None for reply 1 of 3"),
        (["1", 0.0, 0.0], "gave '1' for reply 1 of 3"),
        ([[0.0], [0.0], [0.0]], r"gave \[0.0\] for reply 1 of 3"),
        (torch.zeros(3, 1), "for reply 1 of 3"),
        (np.zeros((3, 1)), "for reply 1 of 3"),
    ],
    ids=str,
)
def test_what_is_no_number_for_each_reply_is_refused(given, words):
    with pytest.raises(RecipeError, match=words):
        _numbers(lambda prompts, replies: given, ["p"] * 3, ["a", "b", "c"])


@pytest.mark.parametrize(
    "given",
    [[1, 2, 3], (True, 2.0, 3), torch.tensor([1.0, 2, 3]), np.array([1, 2, 3]), iter([1.0, 2.0, 3.0])],
    ids=lambda x: type(x).__name__,
)
def test_numbers_of_any_library_are_taken(given):
    assert _numbers(lambda prompts, replies: given, ["p"] * 3, ["a", "b", "c"]) == [1.0, 2.0, 3.0]


def test_a_reward_that_makes_no_sense_ends_the_training_and_nothing_is_in_the_way_of_the_next(tmp_path):
    with pytest.raises(RecipeError, match="1 numbers for 8 replies") as error:
        PPO("tiny", reward=lambda prompts, replies: [0.0], **SMALL).train(PROMPTS, out=tmp_path / "out", quiet=True)
    assert isinstance(error.value, LiteError)
    assert list((tmp_path / "out").iterdir()) == []
    PPO("tiny", reward=count_words, **SMALL | {"steps": 1}).train(PROMPTS, out=tmp_path / "out", quiet=True)


def test_a_reward_that_is_nan_on_dev_prompts_alone_is_never_compared(tmp_path):
    dev = [ask("How do I sew a shirt?")]

    def nan_on_dev(prompts: list[str], replies: list[str]) -> list[float]:
        return [math.nan if prompt in dev else 1.0 for prompt in prompts]

    with pytest.raises(RecipeError, match="gave nan for reply 1 of 1"):
        PPO("tiny", reward=nan_on_dev, dev_prompts=1, **SMALL | {"save_every": 1}).train(PROMPTS, dev=dev, out=tmp_path, quiet=True)
    assert [set(row) & {"reward", "dev_reward"} for row in lines(tmp_path / "metrics.jsonl")] == [{"reward"}]


def test_adapters_are_compared_on_dev_prompts_that_are_short_enough(tmp_path):
    asked: list[list[str]] = []

    def watched(prompts: list[str], replies: list[str]) -> list[float]:
        asked.append(prompts)
        return count_words(prompts, replies)

    dev = [ask("How do I sew a shirt?"), ask("How do I sew a shirt? " * 60), ask("How do I plant a tree?")]
    knobs = SMALL | {"steps": 1, "dev_prompts": 2}
    trained = PPO("tiny", reward=watched, **knobs).train(PROMPTS, dev=dev, out=tmp_path / "out", quiet=True)
    assert asked[-1] == dev[:1]  # the second is too long, the third one too many
    assert trained.report["dev_reward"].keys() == {"1"}
    with pytest.raises(ArtifactError, match="none of 1 dev prompts"):
        PPO("tiny", reward=watched, **knobs).train(PROMPTS, dev=dev[1:2], out=tmp_path / "long", quiet=True)


@pytest.mark.parametrize(("dev", "wanted"), [(PROMPTS[:1], 0), ([], 2)])
def test_dev_prompts_without_their_number_and_the_reverse_are_refused(tmp_path, dev, wanted):
    with pytest.raises(RecipeError, match=rf"{len(dev)} texts, and dev_prompts = {wanted}: give both, or neither"):
        PPO("tiny", reward=count_words, dev_prompts=wanted, **SMALL).train(PROMPTS, dev=dev, out=tmp_path, quiet=True)


def test_prompts_may_come_from_a_generator_and_are_no_single_text(tmp_path):
    trained = PPO("tiny", reward=count_words, **SMALL | {"steps": 1}).train((p for p in PROMPTS), out=tmp_path / "out", quiet=True)
    assert trained.report["prompts"] == 3
    with pytest.raises(RecipeError, match="one string, where a list of texts is needed"):
        PPO("tiny", reward=count_words).train(PROMPTS[0], out=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_cell_that_is_run_again_loses_nothing(tmp_path):
    """Neither of a training that was stopped nor of one that is done; and what resume=True does is told."""
    stop_at = [3]

    def until_told(prompts: list[str], replies: list[str]) -> list[float]:
        stop_at[0] -= 1
        if stop_at[0] == 0:
            raise RuntimeError("stopped")
        return count_words(prompts, replies)

    def cell(**how):
        return PPO("tiny", reward=until_told, **SMALL | {"steps": 3, "save_every": 1}).train(PROMPTS, out=tmp_path, quiet=True, **how)

    with pytest.raises(RuntimeError, match="stopped"):
        cell()
    kept = files(tmp_path)
    assert any("checkpoint-2" in name for name in kept)
    with pytest.raises(
        ArtifactError, match=r"not finished; train\(..., resume=True\) goes on from step 2 of 3; to train anew choose another"
    ):
        cell()
    assert files(tmp_path) == kept
    trained = cell(resume=True)
    kept = files(tmp_path)
    with pytest.raises(ArtifactError, match=r"finished; train\(..., resume=True\) gives it back"):
        cell()
    stop_at[0] = 1  # a training would be stopped by its first reward
    again = cell(resume=True)
    assert files(tmp_path) == kept
    assert (again.path, again.report) == (trained.path, trained.report)
    assert again.model.reply(QUESTIONS, seed=1, max_new_tokens=8) == trained.model.reply(QUESTIONS, seed=1, max_new_tokens=8)
    with pytest.raises(ArtifactError, match=r"PPO.seed changed 17 -> 18; other prompts"):
        PPO("tiny", reward=until_told, seed=18, **SMALL | {"steps": 3, "save_every": 1}).train(PROMPTS[1:], out=tmp_path, resume=True)
    assert files(tmp_path) == kept


def test_what_lies_in_the_folder_already_is_not_touched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ckpt").mkdir()
    (tmp_path / "ckpt/mine.pt").write_text("weights")
    (tmp_path / "metrics.jsonl").write_text("mine\n")
    before = files(tmp_path)
    for resume in (False, True):
        with pytest.raises(ArtifactError, match=r"metrics.jsonl, ckpt lies here, and no PPO training wrote it .*choose another folder"):
            PPO("tiny", reward=count_words, **SMALL).train(PROMPTS, out=".", resume=resume, quiet=True)
    assert files(tmp_path) == before


def test_the_last_good_adapter_of_a_training_that_diverged_is_not_lost(tmp_path):
    kept = tmp_path / "ckpt/last-good/adapter_model.safetensors"

    def broken(prompts: list[str], replies: list[str]) -> list[float]:
        raise RuntimeError("broken")

    broken.__qualname__ = count_words.__qualname__
    for reward, how, error, words in (
        (count_words, {}, DivergedError, "last-good"),
        (count_words, {}, ArtifactError, "holds a training already, not finished"),
        (broken, {"resume": True}, RuntimeError, "broken"),
    ):
        with pytest.raises(error, match=words):
            PPO("tiny", reward=reward, max_kl=1e-9, **SMALL | {"lr": 0.05}).train(PROMPTS, out=tmp_path, quiet=True, **how)
        assert kept.is_file()


@pytest.mark.parametrize(("gib", "on"), [(None, False), (80.0, False), (0.5, True)])
def test_checkpointing_auto_is_decided_for_the_card(tmp_path, monkeypatch, gib, on):
    switched: list[bool] = []
    switch = AdapterBank.checkpointing
    monkeypatch.setattr("lite.fit.cards.this_card", lambda: gib)
    monkeypatch.setattr(AdapterBank, "checkpointing", lambda bank, on: (switched.append(on), switch(bank, on)))
    PPO("tiny", reward=count_words, checkpointing="auto", **SMALL | {"steps": 1}).train(PROMPTS, out=tmp_path, quiet=True)
    assert switched[0] is on


def test_a_preset_with_a_reward_head_does_without_one_where_a_function_rewards():
    spec = PPO("tiny", reward=count_words, preset="n_plus").spec
    assert (spec.value_init, spec.kl_coef) == ("zero", 0.05)


def test_mistakes_are_said_at_once(scorer, tmp_path):
    with pytest.raises(RecipeError, match="klcoef: no such key; did you mean 'kl_coef'"):
        PPO("tiny", reward=count_words, klcoef=0.1)
    with pytest.raises(RecipeError, match=r"a function has no head .* take value_init='zero'"):
        PPO("tiny", reward=count_words, value_init="reward")
    with pytest.raises(RecipeError, match="a loaded model needs one"):
        PPO(object(), reward=count_words)  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="a function or a reward stage's folder is needed"):
        PPO("tiny", reward=None)  # type: ignore[arg-type]
    with pytest.raises(
        ArtifactError, match=r"reward: nowhere has no adapter/adapter_config.json and no .*a function is needed, or the folder"
    ):
        PPO("tiny", reward="nowhere")
    with pytest.raises(ArtifactError, match=r"reward: .*adapter has no adapter/"):
        PPO("tiny", reward=scorer / "adapter")
    with pytest.raises(ArtifactError, match=r"start: .* has no adapter_config.json"):
        PPO("tiny", reward=scorer, start=tmp_path)


def test_no_prompt_that_is_short_enough_is_said(tmp_path):
    with pytest.raises(ArtifactError, match="none of 3 prompts"):
        PPO("tiny", reward=count_words, max_prompt_tokens=2).train(PROMPTS, out=tmp_path, quiet=True)


def test_where_a_response_ends():
    turn, eos = Generated((1,), " Yes.\n\nHuman:", "turn"), Generated((1,), " Yes.", "eos")
    assert Setting().finished(turn) and not Setting().finished(eos)
    assert Setting(stop=None).finished(eos) and not Setting(stop=None).finished(turn)
    assert Setting(stop="##").reply(" a ## b") == "a"
    assert not Setting().finished(Generated((1,), "\n\nHuman:", "turn"))
