"""A sample of `python -m benchmarks.faults`: kill -9 at counted moments, resume, compare."""

from benchmarks.faults import SAMPLE, SMALLER, kill_all


def test_kills_lose_nothing_and_change_nothing(tmp_path):
    for found in kill_all(SAMPLE, tmp_path, SMALLER):
        assert found.kills == SAMPLE[found.stage]
        assert (found.lost, found.doubled, found.other_bytes, found.difference) == (0, 0, 0, 0.0), found.stage
        assert len(found.redone) == found.kills
        assert max(found.redone) <= found.allowed, found.stage
