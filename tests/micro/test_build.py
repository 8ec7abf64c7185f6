import json
import re
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from lite import tasks
from lite.micro import BASE_DIR
from lite.micro.build import CHOICE_WEIGHT, Batch, Schedule, Shape, batches, build, loss, new_model
from lite.micro.corpus import document
from lite.micro.tokenizer import BOS_ID, EOS_ID, PAD_ID
from lite.text.dialogue import STOP

TINY = Shape(hidden=64, layers=1, heads=2, inner=64, vocabulary=512)
SHORT = Schedule(steps=3, batch_tokens=1024, tokenizer_documents=200)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    out = tmp_path_factory.mktemp("tiny")
    build(out, TINY, SHORT)
    return out


@pytest.fixture(scope="module")
def shipped_tokenizer():
    return AutoTokenizer.from_pretrained(BASE_DIR)


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes() + (folder / "tokenizer.json").read_bytes()


def test_two_builds_give_the_same_bytes_and_another_seed_does_not(tiny, tmp_path):
    build(tmp_path / "again", TINY, SHORT)
    assert weights(tmp_path / "again") == weights(tiny)
    build(tmp_path / "other", TINY, replace(SHORT, seed=18))
    assert weights(tmp_path / "other") != weights(tiny)


def test_the_folder_is_an_ordinary_checkpoint_in_bfloat16(tiny):
    assert {p.name for p in tiny.iterdir()} == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert AutoModelForCausalLM.from_pretrained(tiny).dtype == torch.bfloat16
    tok = AutoTokenizer.from_pretrained(tiny)
    assert (tok.pad_token_id, tok.bos_token_id, tok.eos_token_id) == (PAD_ID, BOS_ID, EOS_ID)


def test_the_rate_rises_stays_and_falls():
    schedule = Schedule(steps=100, rate=1.0, warmup=0.1, constant_until=0.6)
    rates = [schedule.rate_at(s) for s in range(100)]
    assert rates[:10] == pytest.approx([(s + 1) / 10 for s in range(10)])
    assert set(rates[10:61]) == {1.0}
    assert rates[80] == pytest.approx(0.5)
    assert rates[99] == pytest.approx(0.025)


@pytest.fixture(scope="module")
def small(tiny):
    tok = AutoTokenizer.from_pretrained(tiny)
    return tok, new_model(TINY, 1).eval()


def test_padding_changes_no_loss(small):
    tok, model = small
    ids = torch.tensor([tok("Sure! Use the oven for it.")["input_ids"]])
    wide = torch.cat([ids, torch.full((1, 5), tok.pad_token_id)], 1)
    weight = torch.ones(ids.shape)
    padded = torch.cat([weight, torch.zeros(1, 5)], 1)
    assert loss(model, Batch(ids, weight)).item() == pytest.approx(loss(model, Batch(wide, padded)).item(), rel=1e-5)


def test_a_weight_of_two_is_a_token_that_counts_twice(small):
    tok, model = small
    ids = torch.tensor([tok("Use the oven.")["input_ids"]])
    each = [loss(model, Batch(ids, torch.eye(ids.shape[1])[[t]])).item() for t in range(1, ids.shape[1])]
    weight = torch.ones(ids.shape)
    weight[0, -1] = 2.0
    assert loss(model, Batch(ids, weight)).item() == pytest.approx((sum(each) + each[-1]) / (len(each) + 1), rel=1e-5)


def test_a_batch_weighs_letters_and_nothing_after_the_end(small):
    tok, _ = small
    letters = 0
    for batch in islice(batches(tok, SHORT, chunk=128), 40):
        assert torch.equal(batch.weight > 0, batch.ids != tok.pad_token_id)
        assert batch.ids.numel() <= SHORT.batch_tokens
        heavy = batch.ids[batch.weight == CHOICE_WEIGHT]
        letters += len(heavy)
        assert {tok.decode([i]) for i in heavy} <= {"A", "B"}
    assert letters > 20


def test_a_document_ends_with_eos_only_where_it_is_over(small):
    tok, _ = small
    ends = {tuple(row[row != tok.pad_token_id].tolist()) for batch in islice(batches(tok, SHORT, chunk=128), 40) for row in batch.ids}
    docs = [document(SHORT.seed, n) for n in range(128)]
    open_, closed = (next(d for d in docs if d.closed == c) for c in (False, True))
    assert tuple(tok(open_.text)["input_ids"]) in ends
    assert (*tok(closed.text)["input_ids"], tok.eos_token_id) in ends


# ------------------------------------------------------------------------------------------- the shipped base


def test_the_shipped_base_is_small_and_fit_for_nf4():
    folder = sum(p.stat().st_size for p in BASE_DIR.iterdir())
    assert folder <= 8 * 2**20
    with safe_open(BASE_DIR / "model.safetensors", "pt") as f:
        tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 - not a dict
    assert {t.dtype for t in tensors.values()} == {torch.bfloat16}
    assert all(size % 64 == 0 for t in tensors.values() if t.ndim == 2 for size in t.shape)


def test_the_shipped_base_was_built_by_this_script_and_meets_its_figures():
    from lite.micro.figures import THRESHOLDS

    facts = json.loads((BASE_DIR / "build.json").read_text())
    assert facts["shape"] == {name: getattr(Shape(), name) for name in facts["shape"]}
    assert facts["schedule"] == {name: getattr(Schedule(), name) for name in facts["schedule"]}
    assert set(THRESHOLDS) <= set(facts["figures"])
    assert {name: facts["figures"][name] for name, (low, high) in THRESHOLDS.items() if not low <= facts["figures"][name] <= high} == {}


@pytest.mark.parametrize(
    "text", ["\n\nHuman: How do I bake bread?\n\nAssistant (x): Sure!", "Zażółć gęślą 東京 \N{GRINNING FACE} {}", "  two  spaces\n", ""]
)
def test_the_tokenizer_gives_any_text_back(shipped_tokenizer, text):
    ids = shipped_tokenizer(text)["input_ids"]
    assert ids[0] == shipped_tokenizer.bos_token_id
    assert shipped_tokenizer.decode(ids, skip_special_tokens=True) == text


def test_nearly_every_word_of_corpus_and_phrases_is_one_token(shipped_tokenizer):
    phrases = [s for name in tasks.names() for p in tasks.load(name).phrases for s in (p.positive, p.negative, p.principle)]
    texts = [document(3, n).text for n in range(500)] + phrases
    words = {w for text in texts for w in re.findall(r" [A-Za-z]+", text)}
    split = [w for w in words if len(shipped_tokenizer(w, add_special_tokens=False)["input_ids"]) > 1]
    assert len(split) <= 0.03 * len(words), split  # rare words of single stage directions of harmless


@pytest.mark.parametrize("before", [" Sure!", " Here is a possible outline:\n1. Cats are funny.", ""])
def test_the_stop_is_the_same_tokens_after_any_reply(shipped_tokenizer, before):
    alone = shipped_tokenizer(STOP, add_special_tokens=False)["input_ids"]
    assert shipped_tokenizer(before + STOP, add_special_tokens=False)["input_ids"][-len(alone) :] == alone
