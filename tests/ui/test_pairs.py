"""Pairs: what differs, what is odd, and decisions that leave the stage's result alone."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lite.export.rows import exported
from lite.runs import publish
from lite.ui import dialogueview, pairs
from tests.ui.conftest import pair_row


@given(st.text(max_size=60), st.text(max_size=60))
def test_the_pieces_are_the_texts(one, other):
    left, right = pairs.differences(one, other)
    assert "".join(t for t, _ in left) == one and "".join(t for t, _ in right) == other
    assert [t for t, differs in left if not differs] == [t for t, differs in right if not differs]


def test_one_word_that_differs_is_marked():
    left, right = pairs.differences("make every effort", "make no effort")
    assert [t for t, d in left if d] == [" every"] and [t for t, d in right if d] == [" no"]


def test_flags_and_filters(done_run, add_pairs):
    add_pairs(done_run, [
        pair_row(1), pair_row(2, prompt=pair_row(1)["prompt"]), pair_row(3, chosen="I'm sorry, I cannot."), pair_row(4, chosen="a " * 20, rejected="b"),
        pair_row(5, rejected="b " * 20, label=0.52), {"broken": 1},
    ])  # fmt: skip
    found = {row.id: row.flags for row in pairs.rows(done_run, "contrast")}
    assert found == {
        "p1": ("same prompt",), "p2": ("same prompt",), "p3": ("refusal preferred",), "p4": ("much longer",), "p5": ("much shorter", "uncertain"),
    }  # fmt: skip
    rows = pairs.rows(done_run, "contrast")
    assert [r.id for r in pairs.filtered(rows, flag="same prompt")] == ["p1", "p2"]
    assert [r.id for r in pairs.filtered(rows, words="QUESTION 5")] == ["p5"]
    assert pairs.filtered(rows, words="5 sorry") == []


def test_decisions_are_added_and_the_last_one_counts(done_run):
    before = publish.digests(next(r.folder.out for r in done_run.stages() if r.id == "contrast"))
    for action in ("exclude", "flip"):
        pairs.decide(done_run, "contrast", "p1", action)
    pairs.decide(done_run, "contrast", "p2", "exclude")
    assert [r.review for r in pairs.rows(done_run, "contrast")] == ["flip", "exclude", "keep"]
    assert len(done_run.folder.reviews("contrast").read_text(encoding="utf-8").splitlines()) == 3
    assert publish.digests(next(r.folder.out for r in done_run.stages() if r.id == "contrast")) == before


def test_the_export_follows_the_decisions(done_run, tmp_path):
    pairs.decide(done_run, "contrast", "p1", "flip")
    pairs.decide(done_run, "contrast", "p2", "exclude")
    lines = [json.loads(line) for line in exported(done_run, "contrast").splitlines()]
    assert [(row["id"], row["chosen"], row["review"]) for row in lines] == [
        ("p1", " A bad answer 1.", "flip"),
        ("p3", " A good answer 3.", "keep"),
    ]
    from lite.validate import pairs_file

    (tmp_path / "x.jsonl").write_text(exported(done_run, "contrast"), encoding="utf-8")
    assert pairs_file(tmp_path / "x.jsonl") == 2


@pytest.mark.parametrize(("id", "action"), [("nobody", "keep"), ("p1", "delete"), ("../x", "flip")])
def test_a_decision_on_nothing_is_refused(done_run, id, action):
    with pytest.raises(ValueError):
        pairs.decide(done_run, "contrast", id, action)
    assert not done_run.folder.reviews("contrast").exists()


@pytest.mark.parametrize("stage", ["nothing", "../../x", "", "reward"])
def test_a_stage_without_pairs_has_none(done_run, stage):
    assert pairs.rows(done_run, stage) == [] and exported(done_run, stage) == ""


def test_a_pair_shows_its_turns_and_what_was_decided(done_run):
    pairs.decide(done_run, "contrast", "p1", "flip")
    shown = dialogueview.pair(pairs.rows(done_run, "contrast")[0])
    assert "<b>Human</b>" in shown and "Question 1?" in shown and "flipped by you" in shown and "<mark> good</mark>" in shown
