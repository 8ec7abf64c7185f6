import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lite.text.rouge import common_subsequence, more_alike_than, rouge_l, words

ABC = st.lists(st.sampled_from("abcd"), max_size=12)


def test_words_are_runs_of_letters_and_digits_in_lower_case():
    assert words("How DO I bake 2 breads, it's well-known?") == ("how", "do", "i", "bake", "2", "breads", "it", "s", "well", "known")
    assert words("¿Qué?") == ("qu",)
    assert words(" -- ") == ()


@pytest.mark.parametrize(
    ("a", "b", "f1"),
    [
        # Lin 2004, section 3.1: "police killed the gunman" v "police kill the gunman" (3 of 4) and "the gunman kill police" (2 of 4)
        ("police killed the gunman", "police kill the gunman", 3 / 4),
        ("police killed the gunman", "the gunman kill police", 2 / 4),
        ("a b c d e", "a c e", 2 * 3 / 8),
        ("a b", "c d", 0),
        ("a", "", 0),
        ("", "", 0),
        ("same words", "Same, words!", 1),
    ],
)
def test_f1_by_hand(a, b, f1):
    assert rouge_l(words(a), words(b)) == pytest.approx(f1)
    assert rouge_l(words(b), words(a)) == pytest.approx(f1)


@given(ABC, ABC)
def test_the_bits_count_what_the_table_counts(a, b):
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
    assert common_subsequence(a, b) == table[-1][-1]


def test_long_texts_need_more_than_one_machine_word():
    rng = random.Random(1)
    a = [rng.choice("xyz") for _ in range(200)]
    assert common_subsequence(a, a) == 200
    assert common_subsequence(a, a[::2]) == 100


@given(ABC, ABC, st.floats(0, 1))
def test_the_short_cut_by_length_changes_no_answer(a, b, threshold):
    assert more_alike_than(a, b, threshold) == (rouge_l(a, b) > threshold)
