import pytest
from hypothesis import given
from hypothesis import strategies as st

from lite.text.selection import Choice, Scored, choose


def scored(*rows: tuple[float, int]) -> list[Scored]:
    return [Scored(k, f"answer {k}", score, tokens) for k, (score, tokens) in enumerate(rows)]


def ks(found) -> tuple[int, int]:
    assert isinstance(found, Choice)
    return found.chosen.k, found.rejected.k


def test_the_best_wins_over_the_worst():
    assert ks(choose(scored((3, 10), (5, 10), (1, 10), (4, 10)))) == (1, 2)
    assert ks(choose(scored((3, 10), (3, 9), (1, 10), (1, 11)))) == (0, 2)  # the first of equals


def test_equal_scores_are_no_pair():
    assert choose(scored((3, 10), (3, 20))) == "tie"
    assert choose(scored((3, 10), (3, 20)), rho=0.3) == "tie"


@pytest.mark.parametrize("rows", [[], [(3, 10)]])
def test_one_response_is_no_pair(rows):
    assert choose(scored(*rows)) == "too_few"


def test_length_control_by_hand():
    """max 5, min 1, rho 0.25: chosen from [4, 5] the shortest, rejected from [1, 2] the longest."""
    rows = scored((5, 50), (4, 20), (3.9, 5), (2.1, 90), (2, 80), (1, 30))
    assert ks(choose(rows, rho=0.25)) == (1, 4)
    assert ks(choose(rows)) == (0, 5)


def test_a_gap_that_is_too_small():
    rows = scored((3, 10), (2.5, 10))
    assert choose(rows, min_gap=1) == "small_gap"
    assert ks(choose(rows, min_gap=0.5)) == (0, 1)


def test_the_same_text_is_no_pair():
    assert choose([Scored(0, "Yes.", 4, 1), Scored(1, "Yes. ", 2, 1)]) == "identical"


def test_the_rejected_one_may_come_from_an_anchor():
    anchors = [Scored(0, "old", 2, 1), Scored(1, "older", 1, 1)]
    found = choose(scored((3, 10), (0, 10)), anchors=anchors)
    assert isinstance(found, Choice)
    assert (found.chosen.text, found.rejected.text, found.gap) == ("answer 0", "older", 2)
    assert choose(scored((1, 10), (0, 10)), anchors=anchors) == "tie"  # what is no better than the anchor is not preferred
    assert choose(scored((3, 10)), anchors=[]) == "too_few"
    assert isinstance(choose(scored((3, 10)), anchors=anchors), Choice)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 99)), max_size=6), st.floats(0, 0.49), st.floats(0, 5))
def test_a_pair_always_prefers_the_higher_score(rows, rho, gap):
    found = choose(scored(*rows), rho=rho, min_gap=gap)
    if isinstance(found, Choice):
        assert found.gap > 0
        assert found.gap >= gap
