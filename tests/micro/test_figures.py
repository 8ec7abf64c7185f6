import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lite.micro import BASE_DIR, figures
from lite.micro.build import Schedule, Shape, build
from lite.micro.figures import THRESHOLDS, Sampler, directed
from lite.text.dialogue import STOP, Turn

HISTORY = [Turn("human", "How do I bake bread?"), Turn("assistant", "Go away."), Turn("human", "Where can I bake bread?")]


@pytest.fixture(scope="module")
def sampler():
    return Sampler(AutoModelForCausalLM.from_pretrained(BASE_DIR, dtype=torch.float32), AutoTokenizer.from_pretrained(BASE_DIR))


def test_the_direction_is_on_the_last_cue_and_its_opposite_on_earlier_ones():
    assert directed(HISTORY, "helpful", "positive", 0).endswith(
        "Assistant (making no effort to help): Go away.\n\nHuman: Where can I bake bread?\n\nAssistant (making every effort to help):"
    )
    assert "(" not in directed(HISTORY, "helpful", "plain", 0)
    assert directed(HISTORY[-1:], "outline", "negative", 1).endswith("Assistant (a badly arranged plan): Here is a possible outline:")


def test_greedy_continuations_are_those_of_transformers_whatever_shares_the_batch(sampler):
    prompts = [directed(HISTORY, "helpful", "plain", 0), directed(HISTORY[-1:], "helpful", "plain", 0)]
    together = sampler(prompts, stop=None, limit=12, temperature=0)
    for prompt, made in zip(prompts, together, strict=True):
        encoded = sampler.tok([prompt], return_tensors="pt")
        ids = sampler.model.generate(**encoded, do_sample=False, max_new_tokens=12)[0, encoded["input_ids"].shape[1] :]
        assert made.text == sampler.tok.decode(ids, skip_special_tokens=True)
        assert sampler([prompt], stop=None, limit=12, temperature=0) == [made]


def test_a_continuation_ends_before_the_stop(sampler):
    made = sampler([directed(HISTORY[-1:], "helpful", "plain", 0)] * 8, stop=STOP, limit=60)
    assert sum(m.stopped for m in made) >= 6
    assert not any("Human:" in m.text for m in made)


def test_a_seed_decides_the_draw(sampler):
    ask = [directed(HISTORY[-1:], "helpful", "plain", 0)] * 8
    first, again, other = (sampler(ask, stop=STOP, limit=30, seed=s) for s in (1, 1, 2))
    assert first == again != other


def test_every_threshold_has_its_figure_and_an_untrained_base_misses_most(tmp_path, capsys):
    build(
        tmp_path,
        Shape(hidden=64, layers=1, heads=2, inner=64, vocabulary=512),
        Schedule(steps=1, batch_tokens=256, tokenizer_documents=100),
    )
    measured, missed = figures.measure(tmp_path, prompts=4, draws=1)
    assert set(THRESHOLDS) <= set(measured)
    assert {"helpful.positive", "outline.plain", "facts.greedy", "copy.greedy", "review.parsed", "instruct.valid"} <= set(missed)
    assert capsys.readouterr().out.count("MISSED") == len(missed)
