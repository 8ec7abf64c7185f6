import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lite.objectives.metrics import accuracy, brier, expected_calibration_error, pearson


def test_accuracy_by_hand():
    # right, wrong, right (the label prefers the rejected one), undecided by the model: (1 + 0 + 1 + .5) / 4; the label .5 is left out
    difference, label = torch.tensor([2.0, -1.0, -3.0, 0.0, 9.0]), torch.tensor([1.0, 0.9, 0.2, 1.0, 0.5])
    assert accuracy(difference, label) == 0.625


def test_questions_without_an_answer_are_nan():
    none = torch.empty(0)
    assert math.isnan(accuracy(torch.ones(3), torch.full((3,), 0.5)))
    for value in (accuracy(none, none), brier(none, none), expected_calibration_error(none, none), pearson(none, none)):
        assert math.isnan(value)
    assert math.isnan(pearson(torch.full((5,), 0.1), torch.arange(5)))
    assert math.isnan(pearson(torch.arange(5), torch.full((5,), 0.1)))


def test_an_unreadable_difference_is_not_counted_as_wrong():
    assert math.isnan(accuracy(torch.tensor([float("nan"), 1.0]), torch.ones(2)))


def test_brier_by_hand():
    assert brier(torch.tensor([1.0, 0.5, 0.2]), torch.tensor([1.0, 0.0, 1.0])) == pytest.approx((0 + 0.25 + 0.64) / 3)


def test_calibration_by_hand():
    # bins of 1/2: {.1, .3} say .2, happen 1/2; {.5, .9, 1} say .8, happen 2/3
    prob, outcome = torch.tensor([0.1, 0.3, 0.5, 0.9, 1.0]), torch.tensor([0.0, 1.0, 1.0, 1.0, 0.0])
    assert expected_calibration_error(prob, outcome, bins=2) == pytest.approx((2 * 0.3 + 3 * (0.8 - 2 / 3)) / 5)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.sampled_from([0.0, 0.25, 1.0])), min_size=1, max_size=30), st.integers(1, 12))
def test_calibration_agrees_with_a_loop_over_bins(rows, bins):
    expected = 0.0
    for b in range(bins):
        inside = [(p, y) for p, y in rows if min(int(torch.tensor(p) * bins), bins - 1) == b]
        if inside:
            said, happened = sum(p for p, _ in inside) / len(inside), sum(y for _, y in inside) / len(inside)
            expected += len(inside) / len(rows) * abs(said - happened)
    prob, outcome = torch.tensor([p for p, _ in rows]), torch.tensor([y for _, y in rows])
    assert expected_calibration_error(prob, outcome, bins=bins) == pytest.approx(expected, abs=1e-5)


def test_pearson_is_torchs(table):
    x = table(40) + 300
    y = 0.5 * x + table(40, seed=1)
    assert pearson(x, y) == pytest.approx(torch.corrcoef(torch.stack([x.double(), y.double()]))[0, 1].item(), abs=1e-4)


def test_pearson_is_blind_to_scale_and_shift_and_knows_the_sign(table):
    x = table(20)
    assert pearson(x, 3 * x - 7) == pytest.approx(1)
    assert pearson(x, -0.1 * x) == pytest.approx(-1)


@pytest.mark.parametrize("metric", [accuracy, brier, expected_calibration_error, pearson])
def test_series_never_broadcast(metric):
    with pytest.raises(ValueError, match=r"shapes \(3, 1\) and \(3,\)"):
        metric(torch.ones(3, 1), torch.ones(3))
