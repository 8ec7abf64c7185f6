"""Labelled pairs: three forms of row, where two transcripts part, and what is counted or is a mistake."""

import pytest

from lite.sources.preferences import Preferred, Unusable, read_pair
from lite.sources.rows import SchemaError


def test_transcripts_are_cut_where_they_part(helpful, transcript):
    common = ("Hi.", "Hello!", "Which fruit?")
    found = read_pair({"chosen": transcript(*common, "An apple. "), "rejected": transcript(*common, "Go away.")}, helpful)
    assert isinstance(found, Preferred)
    assert [turn.text for turn in found.asked.turns] == list(common)
    assert found[1:] == ("An apple.", "Go away.", 1.0)
    assert found.asked.words == 4


def test_transcripts_that_part_early_are_cut_there_whatever_follows(helpful, transcript):
    found = read_pair({"chosen": transcript("Hi.", "Hello!", "Well?", "Fine."), "rejected": transcript("Hi.", "Go.")}, helpful)
    assert isinstance(found, Preferred)
    assert ([t.text for t in found.asked.turns], found.chosen, found.rejected) == (["Hi."], "Hello!", "Go.")


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason"),
    [
        (("Hi.", "Hello!"), ("Hi.", "Hello!"), "identical"),
        (("Hi.", "Hello!"), ("Hi.", " Hello!"), "identical"),
        (("Hi.", "Hello!", "And?", "So."), ("Hi.", "Hello!", "What?", "Go."), "no_common_prompt"),
        (("Hi.", "Hello!"), ("Ho.", "Go."), "no_common_prompt"),
        (("Hi.", "Hello!"), ("Hi.",), "no_common_prompt"),
        (("Hi.", "Hello!"), ("Hi.", " "), "empty_answer"),
        ((" ", "Hello!"), (" ", "Go."), "empty"),
        (("Hi.", "Assistant: Hello!"), ("Hi.", "Go."), "broken_tag"),
    ],
)
def test_transcripts_that_are_no_pair_are_counted(helpful, transcript, chosen, rejected, reason):
    assert read_pair({"chosen": transcript(*chosen), "rejected": transcript(*rejected)}, helpful) == Unusable(reason)


def test_trls_form_with_a_message_or_a_transcript_and_a_label(helpful, transcript):
    plain = read_pair({"prompt": "Which fruit?", "chosen": "An apple.", "rejected": "Go.", "label": "0.25"}, helpful)
    whole = read_pair({"prompt": transcript("Hi.", "Hello!", "Which?"), "chosen": "An apple.", "rejected": "Go."}, helpful)
    assert isinstance(plain, Preferred)
    assert isinstance(whole, Preferred)
    assert (plain.asked.turns[0].text, plain.chosen, plain.label) == ("Which fruit?", "An apple.", 0.25)
    assert (len(whole.asked.turns), whole.label) == (3, 1.0)
    assert read_pair({"prompt": "Which?", "chosen": "A", "rejected": "B", "label": 0.5}, helpful) == Unusable("tie")


@pytest.mark.parametrize(("preference", "chosen"), [(1, "An apple."), ("2", "Go.")])
def test_the_csv_form_has_the_number_of_the_better_output(helpful, preference, chosen):
    row = {"instruction": "Answer.", "input": "Which fruit?", "output_1": "An apple.", "output_2": "Go.", "preference": preference}
    found = read_pair(row, helpful)
    assert isinstance(found, Preferred)
    assert found.chosen == chosen
    assert found.asked.turns[0].text == "Answer.\n\nWhich fruit?"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"chosen": "x"}, "the columns of a labelled pair are"),
        (["x"], "an object"),
        ({"prompt": "p", "chosen": 3, "rejected": "x"}, "chosen: a text is needed"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "label": 1.5}, "label: a probability"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "label": True}, "label: a probability"),
        ({"instruction": "p", "output_1": "a", "output_2": "b", "preference": 0}, "preference: 1 or 2"),
    ],
)
def test_a_row_of_another_form_is_a_mistake_in_the_file(helpful, row, message):
    with pytest.raises(SchemaError, match=message):
        read_pair(row, helpful)
