from dataclasses import replace

import pytest

from lite.evaluate.gates import Health, Limits, gates

LIMITS = Limits(min_readable=0.8, min_ended=0.8, judge_drop=0.1, longer=1.5, min_change=1e-4, min_win_rate=0.4)
GOOD = Health(readable=0.95, pairwise=0.80, ended=0.98, tokens=20.0, moved=0.1)


def shut(now: Health, before: Health | None = GOOD, win_rate: float | None = 0.5) -> list[str]:
    return [gate.sign for gate in gates(now, before, LIMITS, win_rate=win_rate) if not gate.open]


def test_a_model_as_good_as_the_one_before_goes_on():
    assert shut(GOOD) == []
    assert shut(GOOD, None) == []


@pytest.mark.parametrize(
    ("change", "signs"),
    [
        ({"readable": 0.79}, ["parse_rate"]),
        ({"readable": 0.80}, []),
        ({"readable": None}, ["parse_rate"]),
        ({"ended": 0.5}, ["endings"]),
        ({"pairwise": 0.69}, ["judge_regression"]),
        ({"pairwise": 0.71}, []),
        ({"pairwise": None}, ["judge_regression"]),
        ({"tokens": 30.0}, []),
        ({"tokens": 30.1}, ["length"]),
        ({"tokens": 5.0}, []),
        ({"moved": 0.0}, ["stalled_adapter"]),
        ({"moved": 9e-5}, ["stalled_adapter"]),
        ({"moved": None}, ["stalled_adapter"]),
        ({"readable": 0.1, "pairwise": 0.5, "ended": 0.1, "tokens": 90.0}, ["parse_rate", "endings", "judge_regression", "length"]),
    ],
)
def test_each_sign_shuts_its_own_gate(change, signs):
    assert shut(replace(GOOD, **change)) == signs


@pytest.mark.parametrize(("win_rate", "signs"), [(0.39, ["replies"]), (0.4, []), (None, ["replies"])])
def test_replies_that_lose_to_the_model_before_shut_the_gate(win_rate, signs):
    """Its judge may be better than ever: a replay of reviews alone once took the answers from .71 to .34 of success."""
    assert shut(GOOD, win_rate=win_rate) == signs
    assert shut(GOOD, None, win_rate) == []


def test_without_a_model_before_only_what_stands_alone_is_judged():
    assert shut(replace(GOOD, pairwise=0.1, tokens=900.0), None) == []


def test_a_gate_says_what_it_saw_and_what_it_wanted():
    says = {gate.sign: gate.says for gate in gates(replace(GOOD, tokens=60.0), GOOD, LIMITS, win_rate=0.5)}
    assert says["length"] == "tokens of a reply, 20.0 before: 60.0, at most 30.0"
    assert says["judge_regression"] == "pairwise accuracy as a judge, 0.800 before: 0.800, at least 0.700"
