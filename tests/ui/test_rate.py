"""Blind rating: one after the other, undone, gone on with later, and counted."""

import pytest

from lite.errors import RecipeError
from lite.evaluate import human
from lite.ui import rate


def test_the_trained_model_comes_first(done_run):
    assert rate.models(done_run) == ["ppo", "base"]


def test_rows_are_rated_in_order_and_gone_on_with(done_run):
    sheet = rate.open_sheet(done_run, "ppo", "base", "helpful")
    assert (sheet.rated, sheet.next, len(sheet.rows)) == (0, 0, 4)
    rate.rate(sheet, 0, 8)
    rate.rate(sheet, 1, 1)
    again = rate.open_sheet(done_run, "ppo", "base", "helpful")
    assert (again.rated, again.next, again.last) == (2, 2, 1)
    rate.undo(again)
    assert rate.open_sheet(done_run, "ppo", "base", "helpful").rated == 1


def test_the_sheet_names_no_model_outside_the_replies(done_run):
    sheet = rate.open_sheet(done_run, "ppo", "base", "helpful")
    assert all(set(row) == {"row", "prompt", "A", "B", "rating"} for row in sheet.rows)
    assert "ppo" not in sheet.path.name


def test_the_outcome_is_that_of_the_sheet(done_run):
    """The rater always prefers ppo by the full scale; so does the judge, whose score of ppo is one higher."""
    for i in range(4):
        sheet = rate.open_sheet(done_run, "ppo", "base", "helpful")
        rate.rate(sheet, i, 1 if sheet.rows[i]["A"].startswith("ppo") else 8)
    sheet = rate.open_sheet(done_run, "ppo", "base", "helpful")
    assert sheet.next is None
    found = rate.outcome(done_run, sheet)
    assert found and (found.scores.first.mean, found.scores.preferred, found.scores.rated) == (8.0, 1.0, 4)
    assert found.judge and found.judge.decided == 4 and found.judge.decided_accuracy and found.judge.decided_accuracy.mean == 1.0
    assert human.read_sheet(sheet.path, sheet.key).unrated == 0


def test_no_rating_no_outcome(done_run):
    assert rate.outcome(done_run, rate.open_sheet(done_run, "ppo", "base", "helpful")) is None


@pytest.mark.parametrize(("one", "other"), [("ppo", "ppo"), ("ppo", "nobody"), ("../x", "base"), ("", "")])
def test_only_two_models_of_the_run_can_be_rated(done_run, one, other):
    with pytest.raises(RecipeError):
        rate.open_sheet(done_run, one, other, "helpful")


@pytest.mark.parametrize(("position", "rating"), [(0, 0), (0, 9), (-1, 4), (99, 4)])
def test_only_1_to_8_is_a_rating(done_run, position, rating):
    with pytest.raises(RecipeError):
        rate.rate(rate.open_sheet(done_run, "ppo", "base", "helpful"), position, rating)
