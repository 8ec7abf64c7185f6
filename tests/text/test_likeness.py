import pytest

from lite import tasks
from lite.text.likeness import edit_distance, likeness


@pytest.mark.parametrize(("one", "other", "edits"), [("", "abc", 3), ("kitten", "sitting", 3), ("flaw", "lawn", 2), ("same", "same", 0)])
def test_the_distance_of_known_words(one, other, edits):
    assert edit_distance(one, other) == edit_distance(other, one) == edits


@pytest.mark.parametrize("name", tasks.names())
def test_no_built_in_pair_raises_a_concern(name):
    assert [p for p in tasks.load(name).phrases if likeness(p.positive, p.negative).concern] == []


@pytest.mark.parametrize(
    ("positive", "negative", "said"),
    [
        ("kind", "not at all kind to anyone", "1 words against 6"),
        ("a warm friendly voice", "some cold brutish grunt", "% of the characters differ"),
        ("making every effort to help", "making no effort to help", None),
    ],
)
def test_unlike_phrases_are_named(positive, negative, said):
    concern = likeness(positive, negative).concern
    assert concern is None if said is None else said in str(concern)
