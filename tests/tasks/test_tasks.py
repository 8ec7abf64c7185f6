import pytest

from lite import tasks
from lite.errors import RecipeError

COUNTS = {"harmless": 16, "helpful": 1, "outline": 3}


def words(text):
    return text.replace(",", "").split()


def test_the_three_tasks_have_the_papers_numbers_of_axes():
    assert {name: len(tasks.load(name).phrases) for name in tasks.names()} == COUNTS


@pytest.mark.parametrize("name", COUNTS)
def test_a_task_is_called_like_its_file_and_asks_a_question(name):
    task = tasks.load(name)
    assert task.name == name
    assert task.question.endswith("?")
    assert task.lead == ("Here is a possible outline:" if name == "outline" else "")


@pytest.mark.parametrize("name", COUNTS)
def test_both_sides_of_a_phrase_are_short_and_alike(name):
    """Yang et al. 2023: the two surface forms should be as alike as possible."""
    for p in tasks.load(name).phrases:
        positive, negative = words(p.positive), words(p.negative)
        assert {len(positive), len(negative)} <= {3, 4, 5, 6, 7}, p
        shared = len(set(positive) & set(negative))
        assert max(len(positive), len(negative)) - shared <= 3, p
        assert positive != negative


@pytest.mark.parametrize("name", COUNTS)
def test_no_phrase_or_principle_serves_two_axes(name):
    phrases = tasks.load(name).phrases
    assert len({p.positive for p in phrases} | {p.negative for p in phrases}) == 2 * len(phrases)
    assert len({p.principle for p in phrases}) == len(phrases)
    assert all(p.principle.startswith("Which ") and p.principle.endswith("?") for p in phrases)


def test_an_unknown_task_is_answered_with_the_names_there_are():
    with pytest.raises(RecipeError, match="harmless, helpful, outline"):
        tasks.load("harmles")


def test_a_task_of_ones_own_is_checked(tmp_path):
    path = tmp_path / "brief.yaml"
    phrase = "{positive: in (few) words, negative: in many words, principle: 'Which is shorter?'}"
    path.write_text(f"name: brief\nabout: x\nquestion: 'Which is shorter?'\nphrases: [{phrase}]\n")
    with pytest.raises(RecipeError, match=r"phrases\.0\.positive.*no parentheses"):
        tasks.load(str(path))
    path.write_text(path.read_text().replace("(few)", "few"))
    assert tasks.load(str(path)).phrases[0].positive == "in few words"
