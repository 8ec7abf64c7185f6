"""The claim on shared prefixes, small: what is forwarded is counted, what is written does not change."""

import pytest

from benchmarks import shared_prefix
from benchmarks.random_base import TINY, load_bank, write_base


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    return load_bank(write_base(tmp_path_factory.mktemp("base"), TINY))


@pytest.mark.parametrize("place", [0, 1])
def test_a_prefix_is_forwarded_once_and_changes_no_token(bank, place):
    layout = shared_prefix.layouts(TINY, prefix=40, tail=3, side=4)[place]
    found = shared_prefix.measure(bank, layout, new_tokens=6)
    assert found["same_tokens"]
    assert found["tokens_apart"] == layout.tokens == 8 * 43
    assert found["tokens_shared"] == 40 * (1, 4)[place] + 8 * 3


def test_the_rows_say_different_things(bank):
    """Else equal tokens would prove nothing."""
    layout = shared_prefix.layouts(TINY, prefix=40, tail=3, side=4)[1]
    written, _ = shared_prefix.write(bank, layout, share=True, new_tokens=6)
    assert len({g.ids for g in written}) >= 4 and all(len(g.ids) == 6 for g in written)
