"""Figures become charts, and no spike is lost."""

import math

import pytest

from lite.ui import charts, series
from lite.ui.series import Chart, Line


def test_known_figures_come_first_and_every_other_number_follows():
    rows = [{"at": "2026", "step": i, "kl": 0.1, "reward": 1.0, "surprise": 3, "note": "x", "flag": True} for i in (1, 2)]
    assert [chart.title for chart in series.charts(rows)] == ["Reward", "Distance from the base (KL)", "surprise"]


def test_what_is_no_number_is_left_out():
    rows = [{"step": 1, "reward": math.nan}, {"step": 2, "reward": None}, {"step": 3, "reward": 2.0}, {"reward": "x", "step": 4}]
    (chart,) = series.charts(rows)
    assert chart.lines[0].x == (3.0,) and chart.lines[0].y == (2.0,)


def test_the_axis_is_what_the_stage_counts():
    (chart,) = series.charts([{"attempt": 1, "drawn": 5, "accepted": 4}, {"attempt": 2, "drawn": 1, "accepted": 1}])
    assert chart.axis == "attempt" and [line.name for line in chart.lines] == ["drawn", "accepted"]


def test_thinning_keeps_ends_and_spikes():
    points = [(float(i), 0.0) for i in range(10_000)]
    points[4321] = (4321.0, 9.0)
    points[777] = (777.0, -9.0)
    kept = series.thin(points, 100)
    assert len(kept) <= 100
    assert kept[0] == points[0] and kept[-1] == points[-1]
    assert (4321.0, 9.0) in kept and (777.0, -9.0) in kept
    assert kept == sorted(kept)


def test_few_points_are_all_kept():
    assert series.thin([(1.0, 2.0), (2.0, 3.0)], 2) == [(1.0, 2.0), (2.0, 3.0)]


def test_two_runs_share_their_charts():
    one, other = series.charts([{"step": 1, "kl": 1.0, "reward": 1.0}]), series.charts([{"step": 1, "kl": 2.0}])
    (chart,) = series.beside(one, other, ("a", "b"))
    assert chart.title.startswith("Distance") and [line.name for line in chart.lines] == ["a", "b"]
    assert [line.y for line in chart.lines] == [(1.0,), (2.0,)]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 10, [0, 5, 10]), (0.0, 0.0, [0, 0.5, 1]), (-1, 1, [-1, 0, 1]), (3, 3, [0, 2, 4, 6]), (-2, -2, [-4, -2, 0])],
)
def test_axes_have_round_numbers_around_the_values(low, high, ticks):
    bottom, top, found = charts.scale(low, high)
    assert found == pytest.approx(ticks)
    assert bottom <= low and top >= high


def test_a_picture_stays_inside_its_frame():
    chart = Chart("t", "a", (Line("y", (1.0, 2.0, 3.0), (-5.0, 1e6, 0.0)),), band={1.0: 3.0, 2.0: 1e5, 3.0: 0.0})
    drawn = charts.picture(chart)
    path = drawn.split('d="M')[1].split('"')[0]
    for point in path.replace("Z", "").split("L"):
        x, y = map(float, point.split())
        assert 0 <= x <= charts.WIDTH and 0 <= y <= charts.HEIGHT
    assert "nan" not in drawn


@pytest.mark.parametrize(
    ("value", "written"), [(0, "0"), (0.00031, "3.1e-4"), (0.5, "0.5"), (1234, "1234"), (12345, "12.3k"), (2.5e6, "2.5M")]
)
def test_numbers_are_short(value, written):
    assert charts.number(value) == written
