import pytest

from lite.evaluate.diagnostics import describe, label_accuracy, polarity
from lite.records import Pair

ASK = "\n\nHuman: How can I bake bread?\n\nAssistant:"
GOOD, BAD = " You need flour and yeast. Use the oven for it.", " I don't know."


def pair(chosen, rejected, label=1.0, prompt=ASK):
    return Pair("p", prompt, chosen, rejected, label, prompt, prompt, 0, 1, "turn", "turn")


def test_labels_are_counted_by_hand():
    labels, scores = [0.9, 0.6, 0.5, 1.0, 0.7], [(3, 1), (1, 3), (2, 0), (2, 2), None]
    found = label_accuracy(labels, scores)
    assert found["accuracy"] == pytest.approx((1 + 0 + 0.5) / 3)
    assert found["probability"] == pytest.approx((0.9 + 0.4 + 0.5) / 3)
    assert (found["decided"], found["tied"]) == (3, 1)
    assert found["decided_polarity"] == pytest.approx((0.4 + 0.1 + 0) / 3)
    assert found["tied_polarity"] == pytest.approx(0.5)
    assert found["alarm"] is None


@pytest.mark.parametrize(("right", "alarm"), [(10, "below chance"), (22, None), (30, None)])
def test_the_alarm_rings_only_where_the_whole_interval_is_below_chance(right, alarm):
    scores = [(1, 0)] * right + [(0, 1)] * (50 - right)
    assert label_accuracy([1.0] * 50, scores)["alarm"] == alarm


def test_polarity_is_the_distance_from_one_half():
    found = polarity([0.5, 0.76, 1.0, 0.0])
    assert found["mean"] == pytest.approx((0 + 0.26 + 0.5 + 0.5) / 4)
    assert found["histogram"] == [0.25, 0, 0, 0, 0, 0.25, 0, 0, 0, 0.5]
    assert polarity([]) is None


def test_pairs_of_the_embedded_world_are_held_against_its_oracle():
    found = describe([pair(GOOD, BAD), pair(BAD, GOOD), pair(BAD, GOOD, 0.5), pair(BAD, " Nobody cares.")], "helpful")
    assert found["labels"]["decided"] == 3
    assert found["labels"]["accuracy"] == pytest.approx(0.5)
    assert found["labels"]["tied"] == 1
    assert found["words"]["gap"] == pytest.approx((10 + 3 * 3) / 4 - (3 + 2 * 10 + 2) / 4)


def test_the_oracle_is_silent_about_a_task_that_is_not_its_own():
    assert describe([pair(GOOD, BAD), pair(BAD, GOOD)], "polite")["labels"] is None


@pytest.mark.parametrize("prompt", ["\n\nHuman: What is love?\n\nAssistant:", "no dialogue at all"])
def test_nobody_knows_about_other_prompts_even_if_one_is_alike(prompt):
    assert describe([pair(GOOD, BAD, prompt=prompt), pair(GOOD, BAD)], "helpful")["labels"] is None
