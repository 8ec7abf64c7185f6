"""PPO on a model that somebody else has loaded: trained on from where it is, and given back as it came where that fails."""

from pathlib import Path

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from lite import PPO, ask, load_policy
from lite.errors import ArtifactError, PreconditionError, RecipeError
from lite.knobs import BaseSpec
from lite.micro import BASE_DIR
from lite.model.adopt import digest_of_adapter, kind_of_weights
from lite.model.base import load_base
from lite.runs.read import read_json

SMALL = {"steps": 2, "rollouts": 8, "minibatch": 4, "lr": 1e-3, "max_new_tokens": 16, "warmup_steps": 0, "kl_coef": 0.05}
QUESTIONS = ["How do I bake bread?", "How do I plant beans?", "How do I make tea?"]
PROMPTS = [ask(question) for question in QUESTIONS]


def count_words(prompts: list[str], replies: list[str]) -> list[float]:
    return [float(len(reply.split())) for reply in replies]


def one_number(prompts: list[str], replies: list[str]) -> list[float]:
    return [0.0]


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


def a_plain_model() -> nn.Module:
    return AutoModelForCausalLM.from_pretrained(BASE_DIR, dtype=torch.float32)


def a_four_bit_model() -> nn.Module:
    return load_base(BaseSpec(model="tiny", device="cpu")).model


def a_model_of_two_adapters() -> PeftModel:
    """The second one active, with a name of its own; in train mode, with checkpointing and its hook."""
    model = a_peft_model()
    model.add_adapter("second", LoraConfig(r=2, target_modules=["up_proj"], task_type="CAUSAL_LM", init_lora_weights=False))
    model.set_adapter("second")
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
    return model.train()


def state(model: nn.Module) -> dict[str, object]:
    """All of a model that a training may move."""
    return {
        "modules": [(name, id(module), module.training) for name, module in model.named_modules()],
        "weights": [(name, id(p), p.requires_grad, p.detach().double().sum().item()) for name, p in model.named_parameters()],
        "hooks": [(name, list(vars(m)["_forward_hooks"].values())) for name, m in model.named_modules() if vars(m)["_forward_hooks"]],
        "attributes": [(name, sorted(vars(module))) for name, module in model.named_modules()],
        "active": getattr(model, "active_adapters", None) if isinstance(model, PeftModel) else None,
        "config": dict(vars(model.config)),
    }


def ppo(model: nn.Module, **knobs) -> PPO:
    return PPO(model, tokenizer=AutoTokenizer.from_pretrained(BASE_DIR), **SMALL | {"steps": 1, "reward": count_words} | knobs)  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [a_plain_model, a_four_bit_model, a_peft_model, a_model_of_two_adapters])
def test_a_model_is_given_back_as_it_came_where_training_fails_and_can_be_tried_again(make, tmp_path):
    model, ids = make(), torch.tensor([[1, 2, 3]])
    training = model.training
    model.config.pretraining_tp = 2  # PEFT makes it 1 of whatever it wraps
    said = model.eval()(input_ids=ids).logits
    before = state(model.train(training))
    with pytest.raises(RecipeError, match="1 numbers for 8 replies"):
        ppo(model, reward=one_number, checkpointing=True).train(PROMPTS, out=tmp_path / "out", quiet=True)
    assert state(model) == before
    assert list((tmp_path / "out").iterdir()) == []
    assert torch.equal(model.eval()(input_ids=ids).logits, said)
    trained = ppo(model).train(PROMPTS, out=tmp_path / "out", quiet=True)
    assert trained.report["adapter_change"] > 0
    assert trained.metrics()[0]["kl"] == pytest.approx(0, abs=1e-4)


def test_a_model_is_not_touched_before_all_else_is_seen_to_be_good(tmp_path, monkeypatch):
    model = a_peft_model()
    before = state(model)
    monkeypatch.setattr("lite.model.adopt.adopted", lambda *_, **__: pytest.fail("the model was taken over"))
    (tmp_path / "start").mkdir()
    for knobs, prompts, error, words in (
        ({"max_prompt_tokens": 2}, PROMPTS, ArtifactError, "none of 3 prompts"),
        ({}, PROMPTS[0], RecipeError, "one string"),
        ({"dev_prompts": 1}, PROMPTS, RecipeError, "give both"),
        ({}, PROMPTS, ArtifactError, "start lies here"),  # where its adapter would be kept
    ):
        with pytest.raises(error, match=words):
            ppo(model, **knobs).train(prompts, out=tmp_path, quiet=True)
    assert state(model) == before
    assert list((tmp_path / "start").iterdir()) == []


@pytest.mark.parametrize("make", [a_plain_model, a_peft_model])
def test_a_model_that_a_training_took_over_is_refused(make, tmp_path):
    model = make()
    trained = ppo(model).train(PROMPTS, out=tmp_path / "one", quiet=True)
    with pytest.raises(PreconditionError, match="an earlier training took it over"):
        ppo(model).train(PROMPTS, out=tmp_path / "two", quiet=True)
    assert not (tmp_path / "two").exists()
    on = ppo(trained.as_peft()).train(PROMPTS, out=tmp_path / "two", quiet=True)
    assert on.report["adapter_change"] > 0
    on.model.bank.clear()
    if make is a_peft_model:
        with pytest.raises(PreconditionError, match="no LoRA adapter on the model's layers"):
            ppo(model).train(PROMPTS, out=tmp_path / "three", quiet=True)


def test_the_inside_of_a_peft_model_is_refused(tmp_path):
    with pytest.raises(PreconditionError, match=r"not its own \(default\).* it lies inside a PeftModel"):
        ppo(a_peft_model().get_base_model()).train(PROMPTS, out=tmp_path, quiet=True)


def test_a_finished_training_of_a_loaded_model_is_given_back_and_that_of_another_adapter_refused(tmp_path):
    trained = ppo(a_peft_model()).train(PROMPTS, out=tmp_path, quiet=True)
    again = ppo(a_peft_model()).train(PROMPTS, out=tmp_path, resume=True, quiet=True)
    assert again.model.reply(QUESTIONS, seed=1, max_new_tokens=8) == trained.model.reply(QUESTIONS, seed=1, max_new_tokens=8)
    other = a_peft_model()
    with torch.no_grad():
        next(p for name, p in other.named_parameters() if "lora_A" in name).mul_(1.001)
    with pytest.raises(ArtifactError, match="another training: other weights at the start"):
        ppo(other).train(PROMPTS, out=tmp_path, resume=True, quiet=True)


def test_an_adapter_is_loaded_on_the_kind_of_base_that_it_was_trained_on(tmp_path):
    trained = ppo(a_plain_model()).train(PROMPTS, out=tmp_path / "loaded", quiet=True)
    named = PPO(BaseSpec(model="tiny", quantize="none"), reward=count_words, **SMALL | {"steps": 1})
    named.train(PROMPTS, out=tmp_path / "named", quiet=True)
    assert read_json(tmp_path / "loaded/ppo.json")["base"] == {"model": str(BASE_DIR), "quantize": "none"}

    def four_bit(source: Path, **how) -> bool:
        return any(isinstance(module, Linear4bit) for module in load_policy(source, **how).bank.base.model.modules())

    for folder in (tmp_path / "loaded", tmp_path / "loaded/adapter", tmp_path / "named", tmp_path / "named/adapter"):
        assert not four_bit(folder)
        assert not four_bit(folder, base=str(BASE_DIR))
        assert four_bit(folder, base=BaseSpec(model="tiny"))
    policy = load_policy(tmp_path / "loaded")
    assert policy.reply(QUESTIONS, seed=1, max_new_tokens=16) == trained.model.reply(QUESTIONS, seed=1, max_new_tokens=16)
    (tmp_path / "named/adapter").rename(tmp_path / "alone")
    assert four_bit(tmp_path / "alone", base="tiny")  # nothing is noted there


def test_what_kind_of_weights_a_model_has():
    assert kind_of_weights(a_plain_model()) == "none"  # type: ignore[arg-type]
    model = a_four_bit_model()
    assert kind_of_weights(model) == "nf4"  # type: ignore[arg-type]
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.weight.compress_statistics = False
    assert kind_of_weights(model) == "nf4, block 64, double quantisation False"


def test_the_digest_is_of_the_active_adapter_alone():
    model = a_model_of_two_adapters()
    second = digest_of_adapter(model)
    with torch.no_grad():
        next(p for name, p in model.named_parameters() if "lora_A.default" in name).mul_(2)
    assert digest_of_adapter(model) == second
    with torch.no_grad():
        next(p for name, p in model.named_parameters() if "lora_A.second" in name).mul_(2)
    assert digest_of_adapter(model) != second
    assert digest_of_adapter(a_plain_model()) is None  # type: ignore[arg-type]
