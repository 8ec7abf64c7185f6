import pytest

from lite.text.clean import Accepted, Rejected
from lite.text.pairing import DROP_REASONS, Dropped, Drops, Pair, drops, is_identical, pair

GOOD, BAD = Accepted("Yes.", " ", "turn"), Accepted("No.", "\n", "length")


def test_a_pair_prefers_the_answer_to_p_plus_and_keeps_separators():
    assert pair(GOOD, BAD) == Pair(chosen=" Yes.", rejected="\nNo.")
    assert pair(BAD, GOOD) == Pair(chosen="\nNo.", rejected=" Yes.")


@pytest.mark.parametrize(
    ("plus", "minus", "reason"),
    [
        (Rejected("empty"), BAD, "empty"),
        (GOOD, Rejected("end_of_text"), "end_of_text"),
        (Rejected("no_next_turn"), Rejected("empty"), "no_next_turn"),
        (GOOD, GOOD, "identical"),
        (GOOD, Accepted("Yes.", "\n", "eos"), "identical"),  # nothing to prefer in a line break
    ],
)
def test_a_pair_is_dropped_for_one_reason(plus, minus, reason):
    assert pair(plus, minus) == Dropped(reason)


def test_case_and_inner_space_tell_texts_apart():
    assert is_identical(" a b", "a b\n")
    assert not is_identical("a b", "A b")
    assert not is_identical("a b", "a  b")


def test_drops_are_counted_by_reason():
    made = drops([Pair("a", "b"), Dropped("empty"), Dropped("identical"), Dropped("empty"), Pair("a", "c")])
    assert made == Drops(kept=2, reasons={"no_next_turn": 0, "end_of_text": 0, "empty": 2, "identical": 1})
    assert made.share == 3 / 5


def test_the_share_of_nothing_is_none_and_of_no_drop_zero():
    assert drops([]).share is None
    assert drops([Pair("a", "b")]).share == 0
    assert drops([Dropped("empty")]).share == 1
    assert tuple(drops([]).reasons) == DROP_REASONS
