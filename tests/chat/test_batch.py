"""Replies to a file of questions: addressed chance, resumed shard by shard, every turn of a question after the one before it."""

from dataclasses import replace

import pytest

from lite.chat import batch
from lite.chat.batch import Drawing, answer, journal_of
from lite.chat.formats import Question
from lite.chat.offers import Offer, Room
from lite.engine import load_bank
from lite.errors import Stopped
from lite.knobs import BaseSpec
from lite.text.dialogue import Turn

BASE = Offer("base", "")
ROOM = Room(BaseSpec(), "helpful", (BASE, Offer("p_plus", "", prompted=True)))
ASKED = [Question(f"q{i}", (Turn("human", text),)) for i, text in enumerate(("How do I sew a shirt?", "Where can I fly a kite?", "Hi!"))]
DRAWING = Drawing(seed=17, temperature=1.0, top_p=0.9, max_new_tokens=24, rows=2)


@pytest.fixture(scope="module")
def bank():
    return load_bank(BaseSpec(device="cpu"))


def test_batch_and_order_change_no_reply(bank, tmp_path):
    together = answer(bank, ROOM, BASE, ASKED, DRAWING, tmp_path / "a")
    turned = answer(bank, ROOM, BASE, ASKED[::-1], replace(DRAWING, rows=1), tmp_path / "b")
    assert [a.replies for a in together] == [a.replies for a in turned[::-1]]
    assert len({a.seed for a in together}) == 3
    other = answer(bank, ROOM, BASE, ASKED, replace(DRAWING, seed=18), tmp_path / "c")
    assert [a.replies for a in other] != [a.replies for a in together]


def test_what_was_answered_before_a_stop_is_not_asked_again(bank, tmp_path, monkeypatch):
    whole = answer(bank, ROOM, BASE, ASKED, DRAWING, tmp_path / "whole")
    monkeypatch.setattr(batch, "BATCHES", 1)
    written: list[int] = []
    generate = batch.generate

    def counted(bank, role, prompts, **rest):
        written.append(len(prompts))
        return generate(bank, role, prompts, **rest)

    monkeypatch.setattr(batch, "generate", counted)
    with pytest.raises(Stopped):
        answer(bank, ROOM, BASE, ASKED, DRAWING, tmp_path / "part", stop_asked=lambda: len(written) == 1)
    told: list[int] = []
    found = answer(bank, ROOM, BASE, ASKED, DRAWING, tmp_path / "part", done=told.append)
    assert written == [2, 1] and told == [2, 1] and found == whole


def test_a_second_turn_follows_the_first_reply(bank, tmp_path, monkeypatch):
    asked: list[list[str]] = []
    generate = batch.generate

    def heard(bank, role, prompts, **rest):
        asked.append([bank.base.tokenizer.decode(ids, skip_special_tokens=True) for ids in prompts])
        return generate(bank, role, prompts, **rest)

    monkeypatch.setattr(batch, "generate", heard)
    questions = [replace(ASKED[0], later=("And when?",)), ASKED[1]]
    first, second = answer(bank, ROOM, BASE, questions, DRAWING, tmp_path / "turns")
    assert [len(prompts) for prompts in asked] == [2, 1] and (len(first.replies), len(second.replies)) == (2, 1)
    assert first.replies[0] in asked[1][0] and asked[1][0].rstrip().endswith("Human: And when?\n\nAssistant:")


def test_another_model_or_way_of_drawing_keeps_its_work_elsewhere(tmp_path):
    out = tmp_path / "replies.jsonl"
    places = {journal_of(out, ROOM, offer, d) for offer in ROOM.offers for d in (DRAWING, replace(DRAWING, seed=1))}
    assert len(places) == 4 and journal_of(out, ROOM, BASE, replace(DRAWING, rows=9)) in places
