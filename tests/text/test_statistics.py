import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lite.text.statistics import LengthGap, Report, distinct, length_gap, report, share_identical

texts = st.lists(st.text(alphabet="ab \n", max_size=12), max_size=6)


def test_length_gap_by_hand():
    # words 3 v 1, 2 v 2, 0 v 1: means 5/3 and 4/3; longer once, equal once, shorter once
    made = length_gap([(" a b\nc", "a"), ("a b", "c  d"), ("", "a")])
    assert made == LengthGap(chosen=5 / 3, rejected=4 / 3, chosen_longer=0.5)
    assert made is not None and made.gap == pytest.approx(1 / 3)


def test_chosen_longer_has_a_direction():
    made = length_gap([("a b", "c"), ("a b", "c"), ("a", "b"), ("a", "b c")])
    assert made is not None and made.chosen_longer == 2.5 / 4


def test_distinct_by_hand():
    # words a b a b / a b: 6 unigrams, 2 kinds; bigrams ab ba ab ab, 2 of 4; trigrams aba bab, 2 of 2
    assert distinct(["a b a b", "a b"], 1) == 2 / 6
    assert distinct(["a b a b", "a b"], 2) == 2 / 4
    assert distinct(["a b a b", "a b"], 3) == 1


def test_words_are_as_written():
    assert distinct(["a A a."], 1) == 1


def test_no_gram_reaches_from_text_to_text():
    assert distinct(["a b", "c d"], 3) is None
    assert distinct(["a b", "b a"], 2) == 1


def test_an_ngram_of_no_words_is_refused():
    with pytest.raises(ValueError, match="at least one word, not 0"):
        distinct(["a"], 0)


def test_share_identical_by_hand():
    assert share_identical([("a", " a"), ("a", "b"), ("a", "a"), ("a", "c")]) == 0.5


def test_nothing_has_no_figure():
    assert report([]) == Report(pairs=0, length=None, distinct={1: None, 2: None, 3: None}, identical=None)
    assert length_gap([]) is None and share_identical([]) is None and distinct([], 1) is None


def test_the_report_gathers_the_figures():
    pairs = [("a b a b", "a b"), ("c", "c")]
    made = report(pairs)
    assert made.pairs == 2 and made.identical == 0.5
    assert made.length == LengthGap(chosen=2.5, rejected=1.5, chosen_longer=0.75)
    assert made.distinct == {1: 3 / 8, 2: 2 / 4, 3: 1.0}


@settings(deadline=None)
@given(texts, st.integers(1, 3))
def test_distinct_is_a_share_and_repeating_all_texts_halves_it(some, n):
    share = distinct(some, n)
    if share is None:
        assert distinct(some + some, n) is None
        return
    assert 0 < share <= 1
    assert distinct(some + some, n) == pytest.approx(share / 2)


@settings(deadline=None)
@given(texts, texts)
def test_swapped_sides_turn_the_gap_round(a, b):
    pairs = list(zip(a, b, strict=False))
    there, back = length_gap(pairs), length_gap([(y, x) for x, y in pairs])
    if there is None or back is None:
        assert there is back and not pairs
        return
    assert there.gap == -back.gap
    assert there.chosen_longer + back.chosen_longer == pytest.approx(1)
