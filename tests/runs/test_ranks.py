"""Several processes before they have met: which card is whose."""

import pytest

from lite.errors import PreconditionError
from lite.runs.ranks import own_card


@pytest.mark.parametrize(
    ("local", "listed", "card"),
    [
        ("0", None, "0"),
        ("3", None, "3"),
        (None, None, "0"),
        ("0", "2,3", "2"),
        ("1", "2, 3", "3"),
        ("1", "GPU-8932f937,GPU-4b1c7a12,GPU-0", "GPU-4b1c7a12"),
        ("0", "MIG-6f3e", "MIG-6f3e"),
        ("1", "4,5,-1,6", "5"),
    ],
)
def test_a_process_sees_the_card_of_its_local_rank(local, listed, card):
    given = {"LOCAL_RANK": local, "CUDA_VISIBLE_DEVICES": listed, "OTHER": "x"}
    environment = {name: value for name, value in given.items() if value is not None}
    changes = own_card(environment)
    assert changes == {"CUDA_VISIBLE_DEVICES": card, "LOCAL_RANK": "0"}
    assert own_card(environment | changes) == changes  # asked twice, the same card


@pytest.mark.parametrize("listed", ["", " ", "-1", "-1,0"])
def test_where_no_card_is_to_be_seen_none_is(listed):
    assert own_card({"LOCAL_RANK": "1", "CUDA_VISIBLE_DEVICES": listed}) == {}


@pytest.mark.parametrize("listed", ["0", "4,-1,5", "GPU-8932f937"])
def test_fewer_cards_than_processes_are_refused(listed):
    with pytest.raises(PreconditionError, match=r"names 1 GPU.*process 2.*LOCAL_RANK=1.*base.device=cpu") as e:
        own_card({"LOCAL_RANK": "1", "CUDA_VISIBLE_DEVICES": listed})
    assert e.value.exit_code == 3
