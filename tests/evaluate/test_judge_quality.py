"""The five metrics of a judge, by hand."""

import pytest

from lite.evaluate.judge_quality import Ranking, judge_quality
from lite.evaluate.ranks import consistency, kendall, spearman


def test_correlations_by_hand():
    assert spearman([1, 2, 3], [10, 20, 30]) == pytest.approx(1)
    assert spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert spearman([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(1 - 6 * 2 / (4 * 15))  # no ties: 1 - 6 sum d^2 / n(n^2 - 1)
    assert spearman([1, 2, 3], [1, 1, 2]) == pytest.approx(1.5 / 3**0.5)  # ranks 1.5, 1.5, 3: cov 1.5, sizes 2 and 1.5
    assert kendall([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(4 / 6)
    assert kendall([1, 2, 3], [1, 1, 2]) == pytest.approx(2 / (3 * 2) ** 0.5)
    assert spearman([1, 1], [1, 2]) is None
    assert kendall([1, 2], [3, 3]) is None
    assert kendall([1], [1]) is None


def test_consistency_is_one_half_by_chance():
    assert consistency([([1, 2, 3], [1, 2, 3])]) == 1
    assert consistency([([1, 2, 3], [3, 2, 1])]) == 0
    assert consistency([([1, 2], [1, 2]), ([1, 2], [2, 1]), ([1, 1], [1, 2])]) == 0.5  # the last tells nothing
    assert consistency([([1, 1], [1, 2])]) is None


def test_a_perfect_judge():
    found = judge_quality([Ranking((0, 1, 2), (5.0, 3.0, 1.0)), Ranking((1, 0), (2.0, 4.0))])
    assert (found.pairwise, found.exact, found.spearman, found.kendall, found.ties) == pytest.approx((1, 1, 1, 1, 0))
    assert (found.best_of_five, found.fives, found.unreadable, found.responses) == (1, 1, 0, 5)
    assert found.histogram == {0: 0, 1: 1, 2: 1, 3: 1, 4: 1, 5: 1}


def test_a_judge_by_hand():
    """Prompt 1: ranks 0 1 2, scores 4 4 2: pairs (0,1) tie, (0,2) and (1,2) right: 2.5 of 3, not exact.
    Prompt 2: ranks 0 1, scores 1 5: wrong: 0 of 1, not exact, correlations -1; its five is not the best."""
    found = judge_quality([Ranking((0, 1, 2), (4.0, 4.0, 2.0)), Ranking((0, 1), (1.0, 5.0))])
    assert found.pairwise == pytest.approx(2.5 / 4)
    assert found.ties == pytest.approx(1 / 4)
    assert (found.exact, found.best_of_five, found.fives) == (0, 0, 1)
    assert found.spearman == pytest.approx((1.5 / 3**0.5 - 1) / 2)
    assert found.kendall == pytest.approx((2 / (3 * 2) ** 0.5 - 1) / 2)


def test_the_standard_error_is_over_prompts():
    """Points 2.5 of 3 and 0 of 1, mean 2.5 / 4: residuals 2.5 - 3 * 0.625 = 0.625 and -0.625; sqrt(2 / 1 * 2 * 0.625^2) / 4."""
    found = judge_quality([Ranking((0, 1, 2), (4.0, 4.0, 2.0)), Ranking((0, 1), (1.0, 5.0))])
    assert found.pairwise_error == pytest.approx(2 * 0.625 / 4)
    assert judge_quality([Ranking((0, 1), (1.0, 5.0))]).pairwise_error is None


def test_a_judge_that_always_says_the_same_is_worth_nothing():
    found = judge_quality([Ranking((0, 1, 2), (3.0, 3.0, 3.0))])
    assert (found.pairwise, found.ties, found.exact, found.spearman, found.kendall) == (0.5, 1, 0, 0, 0)
    assert found.best_of_five is None


def test_equal_ranks_are_not_compared():
    found = judge_quality([Ranking((0, 0, 1), (5.0, 3.0, 1.0))])
    assert found.pairwise == 1
    assert found.exact == 1
    assert judge_quality([Ranking((0, 0), (5.0, 1.0))]).pairwise is None


def test_an_unreadable_response_is_left_out_and_counted():
    found = judge_quality([Ranking((0, 1, 2), (5.0, None, 1.0)), Ranking((0, 1), (None, None))])
    assert (found.pairwise, found.unreadable, found.responses) == (1, 3, 5)
    assert found.exact is None  # of no prompt is the whole ordering known
    assert sum(found.histogram.values()) == 2


def test_of_nothing_there_is_no_figure():
    found = judge_quality([])
    assert (found.pairwise, found.exact, found.spearman, found.kendall, found.ties, found.best_of_five) == (None,) * 6
