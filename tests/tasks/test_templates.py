import pytest

from lite import templates
from lite.errors import RecipeError
from lite.templates import Template

SLOTS = {
    "choice": {"dialogue", "principle", "a", "b"},
    "judge_micro": {"question", "response"},
    "judge_additive": {"question", "response"},
    "instruct_micro": {"examples"},
    "instruct_eight": {"examples"},
}


@pytest.mark.parametrize("name", SLOTS)
def test_the_built_in_templates_declare_their_slots(name):
    assert templates.load(name).slots == SLOTS[name]
    assert name in templates.names()


def test_filled_text_with_braces_passes_through_untouched():
    form = Template("t", "Q: {question}\nA: {response}")
    assert form.render(question="{response} {x}", response="{question} {}") == "Q: {response} {x}\nA: {question} {}"


def test_braces_that_are_no_slot_are_text():
    assert Template("t", 'say {"a": 1} to {name}').render(name="Ann") == 'say {"a": 1} to Ann'


@pytest.mark.parametrize("values", [{}, {"question": "q"}, {"question": "q", "response": "r", "other": "o"}])
def test_the_names_must_be_exactly_the_slots(values):
    with pytest.raises(ValueError, match=r"slots \['question', 'response'\]"):
        templates.load("judge_micro").render(**values)


def test_the_hash_changes_with_the_text_alone():
    assert Template("a", "x {y}").hash == Template("b", "x {y}").hash != Template("a", "x  {y}").hash


def test_a_choice_ends_where_the_letter_comes():
    text = templates.load("choice").render(dialogue="\n\nHuman: Hi.", principle="Which is better?", a="No.", b="Yes.")
    assert text.endswith(" (")
    assert text.index("Human: Hi.") < text.index("(A) No.") < text.index("(B) Yes.")


def test_a_review_asks_for_the_reasons_before_the_score():
    text = templates.load("judge_micro").text
    assert text.index("reasons first") < text.index("{response}")
    assert text.endswith("Review:")


def test_the_additive_rubric_gives_five_points_for_five_statements_and_ends_where_the_judge_begins():
    text = templates.load("judge_additive").text
    assert [f"\n{n}. " in text for n in range(1, 7)] == [True] * 5 + [False]
    assert text.startswith("\n\nHuman: ")
    assert text.endswith("\n\nAssistant:")
    assert text.index("{question}") < text.index("{response}") < text.index("reasons") < text.index('"Score: "')


def test_a_writer_goes_on_with_the_label_of_its_examples():
    assert templates.load("instruct_eight").text.endswith("{examples}\nRequest:")
    assert templates.load("instruct_micro").text.endswith("{examples}\nQuestion:")


def test_an_unknown_template_is_answered_with_the_names_there_are(tmp_path):
    with pytest.raises(RecipeError, match="choice, instruct_eight, instruct_micro, judge_additive, judge_micro"):
        templates.load("chioce")
    mine = tmp_path / "mine.txt"
    mine.write_text("{response}?")
    assert templates.load(str(mine)).render(response="{ok}") == "{ok}?"
