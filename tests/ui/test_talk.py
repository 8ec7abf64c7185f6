"""Conversations: who sits where, what each model is asked, and what a vote leaves."""

import json

import pytest
import yaml

from lite.chat.offers import can_chat, room
from lite.ui import talk
from lite.ui.talk import Talk
from lite.validate import pairs_file


def test_a_run_offers_its_base_prompted_base_and_policies(done_run):
    found = room(done_run)
    assert [offer.name for offer in found.offers] == ["base", "p_plus", "ppo"]
    assert found.offer("ppo").adapter.is_relative_to(done_run.folder.path)  # type: ignore[union-attr]
    assert can_chat(done_run)
    assert talk.defaults(found) == ("base", "ppo")


def test_a_run_without_a_recipe_offers_nobody(done_run):
    done_run.folder.resolved.write_text("x: [", encoding="utf-8")
    assert not can_chat(done_run)


def test_every_model_goes_on_from_its_own_replies(done_run):
    offered = room(done_run)
    begun, asked = talk.ask(talk.seat(Talk(), "r", ["base", "p_plus", "ppo"], False), offered, "First?", 3)
    assert next(prompt for _, prompt in asked) == "\n\nHuman: First?\n\nAssistant:" == asked[2][1]
    assert "Assistant (" in asked[1][1]
    for pane, text in enumerate(("one", "two", "three")):
        begun = talk.heard(begun, pane, text, "turn")
    _, asked = talk.ask(begun, offered, "Second?", 3)
    assert asked[0][1] == "\n\nHuman: First?\n\nAssistant: one\n\nHuman: Second?\n\nAssistant:"
    assert asked[2][1] == "\n\nHuman: First?\n\nAssistant: three\n\nHuman: Second?\n\nAssistant:"


def test_blind_panes_are_letters_until_the_vote(done_run):
    begun = talk.seat(Talk(), "r", ["base", "ppo"], True)
    assert sorted(begun.seats) == ["base", "ppo"]
    assert [begun.label(i) for i in (0, 1)] == ["Model A", "Model B"]
    assert Talk("r", ("ppo", "base"), True, voted=True).label(0) == "ppo"
    seen = {talk.seat(Talk(), "r", ["base", "ppo"], True).seats for _ in range(60)}
    assert len(seen) == 2  # 1 in 2^59 says otherwise


def test_other_models_begin_a_new_conversation(done_run):
    offered = room(done_run)
    begun, _ = talk.ask(talk.seat(Talk(), "r", ["base", "ppo"], False), offered, "First?", 1)
    assert talk.seat(begun, "r", ["ppo", "base"], False) is begun
    assert talk.seat(begun, "r", ["base"], False).exchanges == ()
    assert talk.seat(begun, "other", ["base", "ppo"], False).exchanges == ()


def test_a_vote_adds_a_row_for_every_reply_that_lost(done_run):
    offered = room(done_run)
    begun, _ = talk.ask(talk.seat(Talk(), "r", ["base", "p_plus", "ppo"], False), offered, "How?", 3)
    for pane, text in enumerate(("bad", "good", "bad too")):
        begun = talk.heard(begun, pane, text, "turn")
    assert talk.vote(begun, done_run, offered, 1) == 2
    rows = [json.loads(line) for line in done_run.folder.votes.read_text(encoding="utf-8").splitlines()]
    assert [(r["chosen_model"], r["rejected_model"], r["chosen"], r["rejected"]) for r in rows] == [
        ("p_plus", "base", " good", " bad"), ("p_plus", "ppo", " good", " bad too"),
    ]  # fmt: skip
    assert {r["prompt"] for r in rows} == {"\n\nHuman: How?\n\nAssistant:"}  # without the stage direction
    assert pairs_file(done_run.folder.votes) == 2


def test_equal_and_empty_replies_are_no_pairs(done_run):
    offered = room(done_run)
    begun, _ = talk.ask(talk.seat(Talk(), "r", ["base", "ppo"], False), offered, "How?", 3)
    assert talk.vote(begun, done_run, offered, 0) == 0
    begun = talk.heard(talk.heard(begun, 0, "same", "turn"), 1, "same", "turn")
    assert talk.vote(begun, done_run, offered, 0) == 0
    assert not done_run.folder.votes.exists()


@pytest.mark.parametrize("lead", ["", "Here is an outline:"])
def test_the_lead_of_a_task_is_part_of_what_is_read(done_run, tmp_path, lead):
    from lite import tasks
    from lite.chat.offers import Room

    body = tasks.load("helpful").model_dump(mode="json") | {"lead": lead}
    file = tmp_path / f"t{len(lead)}.yaml"
    file.write_text(yaml.safe_dump(body), encoding="utf-8")
    offered = room(done_run)
    _, asked = talk.ask(talk.seat(Talk(), "r", ["base"], False), Room(offered.base, str(file), offered.offers), "How?", 1)
    assert asked[0][1].endswith(f"Assistant: {lead}" if lead else "Assistant:")
