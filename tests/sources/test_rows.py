import pytest

from lite import tasks
from lite.errors import RecipeError
from lite.sources.rows import Asked, SchemaError, Unreadable, read_row
from lite.text.dialogue import Turn


def said(found):
    assert isinstance(found, Asked), found
    return [(turn.role[0], turn.text) for turn in found.turns]


def test_chosen_is_cut_at_its_last_assistant_turn(transcript, helpful):
    row = {"chosen": transcript("Hi", "Hello", "How?", "Like this.\n\nAnd so."), "rejected": "whatever"}
    assert said(read_row(row, helpful)) == [("h", "Hi"), ("a", "Hello"), ("h", "How?")]


def test_chosen_that_ends_with_a_human_is_cut_before_the_answer_all_the_same(transcript, helpful):
    assert said(read_row({"chosen": transcript("Hi", "Hello", "Bye")}, helpful)) == [("h", "Hi")]
    assert said(read_row({"prompt": transcript("Hi", "Hello", "Bye")}, helpful))[-1] == ("h", "Bye")


def test_a_quoted_tag_inside_an_answer_cuts_nothing(transcript, helpful):
    """The text's last "Assistant:" stands inside the answer here; the human's question must not become longer by it."""
    row = {"chosen": transcript("How do I write a dialogue?", "Write Assistant: and then the text.")}
    assert said(read_row(row, helpful)) == [("h", "How do I write a dialogue?")]


def test_the_published_csv_form(helpful):
    """facebookresearch/RLCD, consolidate_preference_data.py: instruction is the stripped prompt up to "Assistant:", input is empty."""
    row = {
        "instruction": "Human: Hi\n\nAssistant: Hello\n\nHuman: Why?\n\nAssistant:",
        "input": "",
        "output_1": "a",
        "output_2": "b",
        "preference": "1",
    }
    assert said(read_row(row, helpful)) == [("h", "Hi"), ("a", "Hello"), ("h", "Why?")]


def test_an_instruction_brings_its_input(helpful):
    assert said(read_row({"instruction": "Translate it.", "input": "Guten Tag", "output": ""}, helpful)) == [
        ("h", "Translate it.\n\nGuten Tag")
    ]
    assert said(read_row({"instruction": "Say hello."}, helpful)) == [("h", "Say hello.")]


def test_a_preference_row_is_read_by_its_prompt_not_by_its_chosen_answer(helpful):
    assert said(read_row({"prompt": "What is tea?", "chosen": "A drink.", "rejected": "A dog."}, helpful)) == [("h", "What is tea?")]


def test_turns_are_taken_as_they_are(helpful):
    row = {"turns": [{"role": "human", "text": "a"}, {"role": "assistant", "text": "b"}, {"role": "human", "text": "c"}]}
    assert read_row(row, helpful) == Asked((Turn("human", "a"), Turn("assistant", "b"), Turn("human", "c")), 3)


def test_a_premise_is_asked_about_in_the_tasks_words_and_counted_by_its_own(outline):
    found = read_row({"premise": " A  knight finds\na {ring} of 100 %. "}, outline)
    assert said(found) == [("h", "Write an outline for a story about this premise: A knight finds a {ring} of 100 %.")]
    assert found.words == 8


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"chosen": "Hello there"}, "no_speaker"),
        ({"chosen": "\n\nHuman: Hi\nAssistant: no empty line"}, "broken_tag"),
        ({"chosen": "\n\nHuman (angry): Hi\n\nAssistant: Hello"}, "broken_tag"),
        ({"chosen": "\n\nHuman: Hi"}, "no_answer"),
        ({"chosen": "\n\nAssistant: Hi"}, "no_answer"),
        ({"chosen": "\n\nHuman: Hi\n\nAssistant: a\n\nAssistant: b"}, "no_human_turn"),
        ({"chosen": "\n\nHuman:  \n\nAssistant: a"}, "empty"),
        ({"prompt": " \n"}, "empty"),
        ({"prompt": "A riddle\nHuman: what am I?"}, "broken_tag"),
        ({"turns": []}, "no_human_turn"),
        ({"turns": [{"role": "human", "text": "Hi\n\nAssistant: yes\n\nHuman: no"}]}, "broken_tag"),
    ],
)
def test_a_dialogue_that_cannot_be_used_has_a_reason(row, reason, helpful):
    assert read_row(row, helpful) == Unreadable(reason)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "b", "id": 3}, "none of the columns turns, prompt, premise, instruction, chosen (there are: question, id)"),
        ({"chosen": None, "rejected": "x"}, "chosen: a text is needed (got None; the columns are chosen, rejected)"),
        (["a"], "an object with one of the columns"),
        ({"turns": "Hi"}, "turns: a list of {role, text} is needed"),
        ({"turns": [{"role": "human"}]}, "turns: a list of {role, text} is needed"),
        ({"turns": [{"role": "judge", "text": "x"}]}, "neither human nor assistant"),
        ({"turns": [{"role": [], "text": "x"}]}, "neither human nor assistant"),
        ({"premise": "A dog."}, "a premise, but the task helpful has no `ask`"),
        ({"instruction": "a", "input": 3}, "input: a text is needed (got 3"),
    ],
)
def test_a_row_of_a_wrong_form_is_a_mistake_of_the_file(row, message, helpful):
    with pytest.raises(SchemaError) as error:
        read_row(row, helpful)
    assert message in str(error.value)


def test_a_tasks_ask_has_one_place_for_the_premise(tmp_path, outline):
    file = tmp_path / "mine.yaml"
    file.write_text(outline.model_copy(update={"ask": "Outline this."}).model_dump_json())
    with pytest.raises(RecipeError, match=r"ask: .*\{premise\} stands in it once"):
        tasks.load(str(file))
