import json

import pytest

from lite.objectives.kl_control import AdaptiveKl, FixedKl, KlControl


def test_fixed_stays():
    control: KlControl = FixedKl(0.004)
    control.update(1e6, 512)
    assert control.coef == 0.004
    assert control.state_dict() == {}
    control.load_state_dict({})
    with pytest.raises(ValueError, match="has no state"):
        control.load_state_dict({"coef": 1.0})


def test_adaptive_by_hand():
    control = AdaptiveKl(0.2, target=6.0, horizon=10_000)
    control.update(6.6, 500)  # error .1: 0.2 * (1 + .1 * 500 / 10000)
    assert control.coef == pytest.approx(0.2 * 1.005)
    control.update(6.0, 500)  # on target
    assert control.coef == pytest.approx(0.2 * 1.005)


@pytest.mark.parametrize(("kl", "factor"), [(1e9, 1.01), (float("inf"), 1.01), (0.0, 0.99), (-50.0, 0.99), (5.7, 0.9975)])
def test_the_error_is_clipped_on_both_sides(kl, factor):
    control = AdaptiveKl(1.0, target=6.0, horizon=10_000)
    control.update(kl, 500)  # .2 * 500 / 10000 = .01
    assert control.coef == pytest.approx(factor)


def test_one_horizon_off_target_moves_by_about_e_to_a_fifth():
    control = AdaptiveKl(1.0, target=6.0, horizon=10_000)
    for _ in range(1000):
        control.update(100.0, 10)
    assert control.coef == pytest.approx(2.71828**0.2, rel=1e-3)


def test_it_finds_the_target():
    """A world whose KL is 1 / coef: the controller settles where KL equals the target."""
    control = AdaptiveKl(0.01, target=5.0, horizon=1000)
    for _ in range(500):
        control.update(1 / control.coef, 256)
    assert 1 / control.coef == pytest.approx(5.0, rel=0.01)


def test_a_nan_is_not_read_as_too_far():
    control = AdaptiveKl(1.0, target=6.0, horizon=100)
    with pytest.raises(ValueError, match="NaN"):
        control.update(float("nan"), 10)
    assert control.coef == 1.0


def test_the_coefficient_never_turns_negative():
    control = AdaptiveKl(1.0, target=6.0, horizon=100)
    with pytest.raises(ValueError, match="horizon 100 is too short"):
        control.update(0.0, 500)  # 1 - .2 * 500 / 100 = 0
    assert control.coef == 1.0


@pytest.mark.parametrize("bad", [{"coef": 0.0}, {"target": 0.0}, {"horizon": -1.0}])
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ValueError, match="must be above 0"):
        AdaptiveKl(**{"coef": 0.1, "target": 6.0, "horizon": 100.0, **bad})


def test_resuming_changes_nothing():
    straight, first = (AdaptiveKl(0.1, target=6.0, horizon=1000) for _ in range(2))
    for kl in (9.0, 7.0, 3.0):
        straight.update(kl, 64)
    first.update(9.0, 64)
    second = AdaptiveKl(0.1, target=6.0, horizon=1000)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for kl in (7.0, 3.0):
        second.update(kl, 64)
    assert second.coef == straight.coef
