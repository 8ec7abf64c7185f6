import json
import math
import random
from statistics import fmean, pstdev

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lite.errors import JudgeError
from lite.evaluate import summary
from lite.evaluate.intervals import share_interval
from lite.evaluate.judges import length_judge
from lite.evaluate.pairwise import Comparison, Judgement, Showing, Unreadable, compare
from lite.evaluate.winrate import (
    RIDGE,
    Point,
    agreement,
    bootstrap_mean,
    describe,
    fit_logistic,
    is_separable,
    length_controlled,
    points,
    require_readable,
    win_rate,
)
from lite.records import Reply

LOST = Unreadable("hm")
WORD = {"first": "A", "second": "B", "tie": "tie"}


def judged(verdict, *, prompt="p", draw=0, gap=0):
    """A judgement with this verdict, the first response ``gap`` words longer."""
    first, second = ("w " * (20 + max(gap, 0))).strip(), ("v " * (20 + max(-gap, 0))).strip()
    reading = verdict if isinstance(verdict, Unreadable) else WORD[verdict]
    return Judgement(Comparison(f"{prompt}/{draw}", prompt, first, second), (Showing("A", reading),))


def rows(*groups):
    """(verdict, gap, how many) -> judgements on a prompt each."""
    return [judged(v, prompt=f"{i}.{j}", gap=gap) for i, (v, gap, n) in enumerate(groups) for j in range(n)]


def swapped(judgement):
    c = judgement.comparison
    return Judgement(Comparison(c.id, c.prompt, c.second, c.first), tuple(Showing("B", s.reading) for s in judgement.showings))


# win rate


def test_a_tie_and_an_unreadable_verdict_are_worth_one_half_and_counted():
    found = win_rate(rows(("first", 0, 5), ("tie", 0, 2), ("second", 0, 1), (LOST, 0, 2)), seed=1)
    assert (found.win, found.tie, found.loss, found.unreadable, found.compared, found.prompts) == (5, 2, 1, 2, 10, 10)
    assert found.rate.mean == pytest.approx((5 + 2 / 2 + 2 / 2) / 10)
    assert [points(v) for v in ("first", "tie", "second", LOST)] == [1, 0.5, 0, 0.5]


def test_the_draws_of_a_prompt_are_averaged_first():
    many = [judged("first", prompt="p", draw=d) for d in range(9)]
    assert win_rate([*many, judged("second", prompt="q")], seed=1).rate.mean == 0.5


def test_repeating_every_draw_makes_nobody_surer():
    """The interval is over prompts, so nine equal draws of each leave it as it was."""
    once = [judged("first" if i % 3 else "second", prompt=f"p{i}") for i in range(60)]
    nine = [judged("first" if i % 3 else "second", prompt=f"p{i}", draw=d) for i in range(60) for d in range(9)]
    assert win_rate(nine, seed=1).rate == win_rate(once, seed=1).rate


def test_the_bootstrap_is_as_wide_as_theory_says():
    found = win_rate(rows(("first", 0, 240), ("second", 0, 160)), seed=5)
    half = 1.96 * math.sqrt(0.6 * 0.4 / 400)
    assert found.rate.mean == 0.6
    assert found.rate.high - 0.6 == pytest.approx(half, rel=0.12)
    assert 0.6 - found.rate.low == pytest.approx(half, rel=0.12)


def test_the_bootstrap_covers_what_it_should():
    hits = 0
    for trial in range(200):
        rng = random.Random(trial)
        estimate = bootstrap_mean([float(rng.random() < 0.7) for _ in range(60)], seed=trial, resamples=200)
        hits += estimate.low <= 0.7 <= estimate.high
    assert 180 <= hits <= 199


def test_the_bootstrap_is_the_same_for_the_same_seed():
    some = rows(("first", 3, 30), ("second", -2, 20), ("first", -4, 10), ("second", 1, 5))
    assert win_rate(some, seed=1) == win_rate(some, seed=1)
    assert win_rate(some, seed=1).rate != win_rate(some, seed=2).rate
    assert length_controlled(some, seed=1, resamples=50) == length_controlled(some, seed=1, resamples=50)
    assert length_controlled(some, seed=1, resamples=50) != length_controlled(some, seed=2, resamples=50)


@pytest.mark.parametrize("verdict", ["first", "second", "tie"])
def test_unanimous_verdicts_still_leave_doubt(verdict):
    found = win_rate(rows((verdict, 0, 10)), seed=1)
    assert found.rate == share_interval(10 * points(verdict), 10)
    assert found.rate.high - found.rate.low > 0.2


def test_nothing_compared_is_no_win_rate():
    with pytest.raises(ValueError):
        win_rate([], seed=1)
    with pytest.raises(ValueError):
        length_controlled([], seed=1)


def test_too_few_readable_verdicts_are_an_error_that_shows_one():
    some = rows(("first", 0, 7), (Unreadable("I like both."), 0, 2), (Unreadable("", "no_answer"), 0, 1))
    require_readable(some, share=0.7)
    with pytest.raises(JudgeError, match=r"only 7 of 10 .*2 no_verdict, 1 no_answer.*I like both"):
        require_readable(some, share=0.71)
    require_readable([], share=1.0)


# length control


def test_length_control_by_hand():
    """Two gaps, +k and -k: the model is saturated, so it reproduces the win rate of each side.

    +k: 3 of 4 won, log-odds log 3. -k: 2 of 4 won, log-odds 0. In the middle log(3) / 2, so the rate is sqrt(3) / (1 + sqrt(3)).
    The standard deviation of the gaps is k, so z = tanh(1) and the slope is log(3) / 2 / tanh(1).
    """
    found = length_controlled(rows(("first", 7, 3), ("second", 7, 1), ("first", -7, 2), ("second", -7, 2)), seed=1, resamples=20)
    assert found.rate.mean == pytest.approx(math.sqrt(3) / (1 + math.sqrt(3)), abs=1e-9)
    assert found.slope == pytest.approx(math.log(3) / 2 / math.tanh(1), abs=1e-8)
    assert (found.scale, found.ridge) == (7, False)
    assert found.rate.low < found.rate.mean < found.rate.high


def test_a_tie_is_half_a_win_and_half_a_loss_by_hand():
    """+k: 2 wins, 2 ties = 3 of 4. -k: 2 ties, 2 unreadable = 2 of 4."""
    found = length_controlled(rows(("first", 7, 2), ("tie", 7, 2), ("tie", -7, 2), (LOST, -7, 2)), seed=1, resamples=5)
    assert found.rate.mean == pytest.approx(math.sqrt(3) / (1 + math.sqrt(3)), abs=1e-9)


def test_every_prompt_weighs_the_same_by_hand():
    """+k: a prompt with 2 of 3 draws won and a prompt lost = 1/3, log-odds -log 2; -k: 1 of 2. In the middle -log(2) / 2."""
    some = [judged(v, prompt="p", draw=d, gap=4) for d, v in enumerate(("first", "first", "second"))]
    some += [judged("second", prompt="q", gap=4), judged("first", prompt="r", gap=-4), judged("second", prompt="s", gap=-4)]
    found = length_controlled(some, seed=1, resamples=5)
    assert math.log(found.rate.mean / (1 - found.rate.mean)) == pytest.approx(-math.log(2) / 2, abs=1e-9)
    assert found.scale == pytest.approx(4 * math.sqrt(8) / 3)


def test_without_any_difference_in_length_nothing_changes():
    some = rows(("first", 0, 6), ("second", 0, 3), ("tie", 0, 1))
    found = length_controlled(some, seed=1)
    assert (found.rate.mean, found.slope, found.ridge) == (win_rate(some, seed=1).rate.mean, 0, False)


def test_a_rate_beyond_all_gaps_is_marked():
    """Where one model is always longer, equal lengths were never seen: the rate there is the curve's, not anybody's."""
    never_equal = rows(("first", 5, 6), ("second", 5, 3), ("first", 9, 4), ("second", 9, 1))
    assert length_controlled(never_equal, seed=1, resamples=5).extrapolated
    assert not length_controlled([*never_equal, *rows(("first", 0, 1))], seed=1, resamples=5).extrapolated
    assert not length_controlled([*never_equal, *rows(("first", -3, 1))], seed=1, resamples=5).extrapolated


def test_one_and_the_same_difference_cannot_be_told_from_quality():
    assert length_controlled(rows(("first", 5, 6), ("second", 5, 3)), seed=1) is None


def test_swapping_the_models_mirrors_the_rate():
    some = rows(("first", 9, 8), ("second", 2, 3), ("first", -4, 2), ("second", -6, 5), ("tie", 1, 2))
    ours, theirs = length_controlled(some, seed=1, resamples=50), length_controlled([swapped(j) for j in some], seed=1, resamples=50)
    assert theirs.rate.mean == pytest.approx(1 - ours.rate.mean)
    assert theirs.rate.low == pytest.approx(1 - ours.rate.high, abs=0.08)
    assert theirs.slope == pytest.approx(ours.slope)


def test_the_length_of_a_response_is_the_callers_choice():
    some = rows(("first", 7, 3), ("second", 7, 1), ("first", -7, 2), ("second", -7, 2))
    by_characters = length_controlled(some, seed=1, resamples=5, length=len)
    assert by_characters.scale == 14
    assert by_characters.rate.mean == pytest.approx(length_controlled(some, seed=1, resamples=5).rate.mean)


@pytest.mark.parametrize("longer", [0, 6, 12, 40])
def test_a_judge_that_only_counts_words_is_found_out(longer):
    """The control: the longer a model's responses, the higher its win rate, and nothing is left once length is controlled."""
    rng = random.Random(longer)
    pairs = [Comparison(str(i), str(i), "w " * max(1, 45 + longer + round(rng.gauss(0, 8))), "v " * 45) for i in range(150)]
    found = compare(length_judge(), pairs, seed=1)
    raw, controlled = win_rate(found, seed=1).rate.mean, length_controlled(found, seed=1, resamples=20)
    assert raw >= {0: 0.4, 6: 0.7, 12: 0.9, 40: 1.0}[longer]
    assert controlled.rate.mean == pytest.approx(0.5, abs=0.1)
    assert controlled.ridge
    assert controlled.extrapolated == (longer == 40)


def test_a_judge_that_likes_length_and_quality_is_split_into_both():
    rng = random.Random(4)
    some = []
    for i in range(1500):
        gap = round(rng.gauss(6, 8))
        p = 1 / (1 + math.exp(-(0.4 + 1.5 * math.tanh(gap / 8))))
        some.append(judged("first" if rng.random() < p else "second", prompt=str(i), gap=gap))
    truth = 1 / (1 + math.exp(-0.4))
    found = length_controlled(some, seed=1, resamples=60)
    assert found.rate.low <= truth <= found.rate.high
    assert win_rate(some, seed=1).rate.low > found.rate.high


def test_the_shape_of_a_gap_is_that_of_alpaca_eval():
    """tanh of the gap over its standard deviation: the score equations hold with that z and no other."""
    some = rows(("first", 30, 5), ("second", 30, 1), ("first", 4, 3), ("second", 4, 3), ("first", -10, 2), ("second", -10, 4))
    gaps = [30] * 6 + [4] * 6 + [-10] * 6
    found = length_controlled(some, seed=1, resamples=5)
    a = math.log(found.rate.mean / (1 - found.rate.mean))
    left = [
        (points(j.verdict) - 1 / (1 + math.exp(-(a + found.slope * math.tanh(gap / pstdev(gaps))))), math.tanh(gap / pstdev(gaps)))
        for j, gap in zip(some, gaps, strict=True)
    ]
    assert sum(r for r, _ in left) == pytest.approx(0, abs=1e-7)
    assert sum(r * z for r, z in left) == pytest.approx(0, abs=1e-7)


POINTS = st.builds(
    Point, y=st.sampled_from([0.0, 0.5, 1.0]), z=st.floats(-1, 1).map(lambda z: round(z, 3)), weight=st.sampled_from([0.25, 0.5, 1.0])
)


@settings(deadline=None, max_examples=300)
@given(st.lists(POINTS, min_size=1, max_size=40))
def test_the_fit_is_at_the_top_of_the_likelihood(some):
    """The gradient is zero there, whatever the points; where they are separable, that of the likelihood with its ridge."""
    ridge = RIDGE if is_separable(some) else (0.0, 0.0)
    a, b = fit_logistic(some, ridge=ridge)
    residuals = [p.weight * (p.y - 1 / (1 + math.exp(-(a + b * p.z)))) for p in some]
    assert sum(residuals) - ridge[0] * a == pytest.approx(0, abs=1e-5)
    assert sum(r * p.z for r, p in zip(residuals, some, strict=True)) - ridge[1] * b == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    ("wins", "losses", "separable"),
    [
        ([1, 2], [3, 4], True), ([3, 4], [1, 2], True), ([1, 3], [2, 4], False), ([1, 2], [2, 3], True), ([2], [1, 3], False), ([1], [1, 3], True),
        ([1, 2], [], True), ([], [1], True), ([1], [1], True), ([1, 3], [1, 3], False),
    ],
)  # fmt: skip
def test_when_wins_and_losses_are_separable(wins, losses, separable):
    assert is_separable([Point(1.0, z, 1.0) for z in wins] + [Point(0.0, z, 1.0) for z in losses]) is separable


def test_a_tie_stands_on_both_sides():
    assert not is_separable([Point(0.5, -1, 1.0), Point(0.5, 1, 1.0)])
    assert is_separable([Point(0.5, 0, 1.0), Point(1.0, 1, 1.0)])


def test_a_model_that_always_wins_keeps_a_finite_rate_that_grows_with_the_evidence():
    few, many = (length_controlled(rows(("first", 3, n), ("first", -3, n)), seed=1, resamples=20).rate.mean for n in (5, 100))
    assert 0.75 < few < many < 1


# agreement


def test_kappa_by_hand():
    """20 + 15 of 50 agree; by chance 25 * 30 + 25 * 20 of 2500: (0.7 - 0.5) / (1 - 0.5)."""
    table = [("first", "first")] * 20 + [("first", "second")] * 5 + [("second", "first")] * 10 + [("second", "second")] * 15
    one, other = ({str(i): pair[k] for i, pair in enumerate(table)} for k in (0, 1))
    found = agreement(one, other)
    assert found.kappa == pytest.approx(0.4)
    assert found.accuracy == share_interval(35, 50)
    assert (found.compared, found.unreadable, found.decided, found.decided_accuracy) == (50, 0, 50, found.accuracy)


def test_ties_and_unreadable_verdicts_in_an_agreement():
    one = {"a": "first", "b": "tie", "c": "second", "d": LOST, "e": "tie", "f": "first", "x": "first"}
    other = {"a": "first", "b": "tie", "c": "first", "d": "first", "e": "second", "f": LOST, "y": "first"}
    found = agreement(one, other)
    assert (found.compared, found.unreadable, found.decided) == (4, 2, 2)
    assert found.accuracy.mean == 0.5
    assert found.decided_accuracy.mean == 0.5
    assert found.kappa == pytest.approx((4 * 2 - (1 * 2 + 2 * 1 + 1 * 1)) / (16 - 5))


def test_kappa_of_judges_that_know_one_word_is_unknown():
    same = {"a": "first", "b": "first"}
    assert agreement(same, same).kappa is None
    assert agreement(same, {}).accuracy is None
    assert agreement(same, {}).kappa is None


def test_an_agreement_with_oneself_is_whole_and_has_no_order():
    some = {str(i): v for i, v in enumerate(["first", "second", "tie", "first"])}
    assert agreement(some, some).kappa == 1
    other = {str(i): v for i, v in enumerate(["second", "second", "first", "first"])}
    assert agreement(some, other) == agreement(other, some)


# in a report


def test_a_head_to_head_has_the_fields_of_the_oracles_and_goes_into_json():
    some = [*rows(("first", 3, 3), ("second", -2, 1), ("tie", 1, 2)), judged(Unreadable("", "cut"), prompt="u")]
    found = describe("ppo", "base", some, seed=1)
    replies = [[Reply("p", m, 0, "q", " t", "turn", 3, score=1.0, success=True)] for m in ("ppo", "base")]
    assert summary.compare(*replies).keys() <= found.keys()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["win"] + found["tie"] + found["loss"] + found["unreadable"] == pytest.approx(1)
    assert found["unreadable_why"] == {"cut": 1}
    assert found["win_rate"] == pytest.approx((3 + 1.5) / 7)
    assert found["compared"] == found["prompts"] == 7
    assert 0 < found["length_controlled"]["rate"]["mean"] < 1


def test_the_habits_of_a_judge_are_in_the_report():
    c = [Comparison(str(i), str(i), "x", "y") for i in range(4)]
    both = [
        Judgement(c[0], (Showing("A", "A"), Showing("B", "A"))),  # A whatever it is
        Judgement(c[1], (Showing("A", "A"), Showing("B", "B"))),
        Judgement(c[2], (Showing("A", "A"), Showing("B", LOST))),
        Judgement(c[3], (Showing("A", "tie"), Showing("B", "tie"))),
    ]
    found = describe("a", "b", both, seed=1)
    assert found["says_a"] == pytest.approx(4 / 5)
    assert found["contradicts_itself"] == pytest.approx(1 / 3)
    once = describe("a", "b", rows(("first", 0, 3)), seed=1)
    assert (once["says_a"], once["contradicts_itself"]) == (1, None)


def test_verdicts_by_id():
    said = {j.comparison.id: j.verdict for j in rows(("first", 0, 1), ("tie", 0, 1))}
    assert said == {"0.0/0": "first", "1.0/0": "tie"}
    assert fmean(points(v) for v in said.values()) == 0.75
