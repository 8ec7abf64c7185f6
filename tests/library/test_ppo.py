"""PPO without a recipe: the stage's own steps, any function for a reward, and models that somebody else loaded."""

import importlib.util
import math
from pathlib import Path

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from lite import PPO, ask, load_policy, tasks
from lite.artifacts import Prompts, Reward
from lite.errors import ArtifactError, DivergedError, PreconditionError, RecipeError
from lite.knobs import BaseSpec
from lite.knobs.ppo import PpoSpec
from lite.library.ppo import _Voice
from lite.micro import BASE_DIR
from lite.model.bank import AdapterBank
from lite.model.base import load_base
from lite.model.generate import Generated
from lite.records import Prompt, write_rows
from lite.runs.layout import StageFolder
from lite.runs.progress import Screen
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


def a_peft_model() -> PeftModel:
    torch.manual_seed(5)
    plain = AutoModelForCausalLM.from_pretrained(BASE_DIR, dtype=torch.float32)
    model = get_peft_model(plain, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.mul_(0.2)
    return model


def test_a_peft_model_is_trained_on_from_its_adapter_and_held_to_it(tmp_path):
    told: list[str] = []

    def watched(prompts: list[str], replies: list[str]) -> list[float]:
        told.extend(prompts)
        return count_words(prompts, replies)

    before = {k: p.detach().clone() for k, p in a_peft_model().named_parameters() if "lora" in k}
    ppo = PPO(a_peft_model(), tokenizer=AutoTokenizer.from_pretrained(BASE_DIR), reward=watched, value="joint", **SMALL)
    trained = ppo.train(PROMPTS, out=tmp_path, quiet=True)
    steps = trained.metrics()
    assert steps[0]["kl"] == pytest.approx(0, abs=1e-4)  # held to the adapter: to the base it would be far from 0
    assert steps[1]["kl"] != 0
    assert set(told) == set(PROMPTS)
    after = trained.as_peft()
    assert isinstance(after, PeftModel)
    assert after.peft_config["default"].r == 4
    moved = [float((p - before[k]).abs().max()) for k, p in after.named_parameters() if "lora" in k]
    assert len(moved) == len(before)
    assert 0 < max(moved) < 0.1


def test_a_plain_model_gets_a_fresh_adapter(tmp_path):
    model = AutoModelForCausalLM.from_pretrained(BASE_DIR, dtype=torch.float32)
    ppo = PPO(model, tokenizer=AutoTokenizer.from_pretrained(BASE_DIR), reward=count_words, **SMALL | {"steps": 1})
    trained = ppo.train(PROMPTS, out=tmp_path, quiet=True)
    assert trained.report["adapter_change"] > 0
    assert len(trained.model.reply(QUESTIONS, max_new_tokens=8)) == 3


def test_two_active_adapters_are_refused(tmp_path):
    model = a_peft_model()
    model.add_adapter("other", LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    model.base_model.set_adapter(["default", "other"])
    with pytest.raises(PreconditionError, match="one adapter is to be active"):
        PPO(model, tokenizer=AutoTokenizer.from_pretrained(BASE_DIR), reward=count_words).train(PROMPTS, out=tmp_path, quiet=True)


def test_a_4_bit_model_that_was_repacked_is_refused(tmp_path):
    """After its first answer on a CPU with AVX512-BF16 its layers run a kernel without gradients."""
    model = load_base(BaseSpec(model="tiny", device="cpu")).model
    layer = next(module for module in model.modules() if isinstance(module, Linear4bit))
    layer.weight.quant_state.packing_format_for_cpu = True
    with pytest.raises(PreconditionError, match="load it anew"):
        PPO(model, tokenizer=AutoTokenizer.from_pretrained(BASE_DIR), reward=count_words).train(PROMPTS, out=tmp_path, quiet=True)


@pytest.mark.parametrize(
    ("reward", "error", "words"),
    [
        (lambda prompts, replies: [0.0], ValueError, "1 numbers for 8 replies"),
        (lambda prompts, replies: [math.nan] * len(replies), DivergedError, "reward is nan"),
    ],
)
def test_a_reward_that_makes_no_sense_ends_the_training(tmp_path, reward, error, words):
    with pytest.raises(error, match=words):
        PPO("tiny", reward=reward, **SMALL).train(PROMPTS, out=tmp_path, quiet=True)


def test_mistakes_are_said_at_once():
    with pytest.raises(RecipeError, match="klcoef: no such key; did you mean 'kl_coef'"):
        PPO("tiny", reward=count_words, klcoef=0.1)
    with pytest.raises(RecipeError, match="a function has no head"):
        PPO("tiny", reward=count_words, value_init="reward")
    with pytest.raises(RecipeError, match="a loaded model needs one"):
        PPO(object(), reward=count_words)  # type: ignore[arg-type]


def test_no_prompt_that_is_short_enough_is_said(tmp_path):
    with pytest.raises(ArtifactError, match="none of 3 prompts"):
        PPO("tiny", reward=count_words, max_prompt_tokens=2).train(PROMPTS, out=tmp_path, quiet=True)


def test_where_a_response_ends():
    turn, eos = Generated((1,), " Yes.\n\nHuman:", "turn"), Generated((1,), " Yes.", "eos")
    assert Setting().finished(turn) and not Setting().finished(eos)
    assert Setting(stop=None).finished(eos) and not Setting(stop=None).finished(turn)
    assert Setting(stop="##").reply(" a ## b") == "a"
    assert not Setting().finished(Generated((1,), "\n\nHuman:", "turn"))
