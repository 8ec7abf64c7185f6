import json
from dataclasses import asdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lite.objectives.scores import Moments


def test_by_hand():
    moments = Moments.of(torch.tensor([1.0, 3.0, 8.0]))
    assert moments == Moments(3, 4, 26)  # 9 + 1 + 16
    assert moments.std == pytest.approx((26 / 3) ** 0.5)


def test_normalized_scores_by_hand():
    moments, scores = Moments.of(torch.tensor([1.0, 3.0])), torch.tensor([5.0])  # mean 2, std 1
    assert moments.normalize(scores, center=True, scale=True).tolist() == [3]
    wide = Moments.of(torch.tensor([0.0, 4.0]))  # mean 2, std 2
    assert wide.normalize(scores, center=True, scale=True).tolist() == [1.5]
    assert wide.normalize(scores, center=True, scale=False).tolist() == [3]
    assert wide.normalize(scores, center=False, scale=True).tolist() == [2.5]
    assert wide.normalize(scores, center=False, scale=False).tolist() == [5]


@pytest.mark.parametrize("moments", [Moments(), Moments.of(torch.tensor([2.0])), Moments.of(torch.full((7,), 0.1))])
def test_without_spread_the_scale_stays(moments):
    scores = torch.tensor([1.0, 2.0])
    assert torch.allclose(moments.normalize(scores, center=True, scale=True), scores - moments.mean)


@settings(deadline=None)
@given(st.lists(st.lists(st.floats(-100, 100, width=32), max_size=8), min_size=1, max_size=5))
def test_merging_parts_is_the_whole(parts):
    running = Moments()
    for part in parts:
        running = running.merge(Moments.of(torch.tensor(part)))
    whole = torch.tensor([x for part in parts for x in part], dtype=torch.float64)
    assert running.count == len(whole)
    if len(whole):
        assert running.mean == pytest.approx(whole.mean().item(), abs=1e-9)
        assert running.std == pytest.approx(whole.std(correction=0).item(), abs=1e-5)


def test_empty_parts_change_nothing():
    some = Moments.of(torch.tensor([1.0, 5.0]))
    assert some.merge(Moments()) == some == Moments().merge(some)
    assert Moments().merge(Moments()) == Moments()


def test_a_broken_score_is_refused():
    with pytest.raises(ValueError, match="not finite"):
        Moments.of(torch.tensor([1.0, float("nan")]))


def test_moments_survive_a_file():
    moments = Moments.of(torch.tensor([0.1, 0.7, -3.3]))
    assert Moments(**json.loads(json.dumps(asdict(moments)))) == moments
