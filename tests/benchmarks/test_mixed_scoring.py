"""The claim on scoring, small: the same scores from a third of the weight reads."""

import pytest

from benchmarks import mixed_scoring
from benchmarks.random_base import TINY, write_base


@pytest.mark.parametrize("together", [2, 4])
def test_one_mixed_pass_reads_the_weights_a_third_as_often(tmp_path, together):
    bank = mixed_scoring.prepared(write_base(tmp_path, TINY))
    found = mixed_scoring.measure(bank, mixed_scoring.rollouts(TINY, rows=4, tokens=10), together * 10)
    assert found["apart"] <= mixed_scoring.TOLERANCE
    weights = sum(m.in_features * m.out_features for m in bank.base.model.modules() if isinstance(m, mixed_scoring.Linear4bit))
    assert found["weights_read_mixed"] == 4 / together * weights
    assert found["weights_read_separate"] == 3 * found["weights_read_mixed"]
