import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lite.text.dialogue import STOP, Turn, cut_after_last_assistant_tag, has_tag, parse, prompt, render

H, A = "human", "assistant"
PIECES = ["\n", "\n\n", " ", ":", "(", ")", "Human", "Assistant", "human", "Human:", "Assistant:", "Assistant (kind):", "a", "Ü", "\r"]
scraps = st.lists(st.sampled_from(PIECES), max_size=8).map("".join) | st.text(max_size=20)
turn = st.builds(Turn, role=st.sampled_from([H, A]), text=scraps.filter(lambda text: not has_tag(text)))


def test_a_transcript_by_hand():
    assert parse("\n\nHuman: Hi.\n\nAssistant: Hello!\nHow are you?\n\nHuman: Fine.\n\nAssistant: Good.") == [
        Turn(H, "Hi."),
        Turn(A, "Hello!\nHow are you?"),
        Turn(H, "Fine."),
        Turn(A, "Good."),
    ]


@pytest.mark.parametrize("before", ["", "\n", "\n\n", "\n\n\n", "  \n\t"])
def test_white_space_before_the_first_tag_is_free(before):
    assert parse(before + "Human: Hi.") == [Turn(H, "Hi.")]


@pytest.mark.parametrize(
    ("text", "turns"),
    [
        ("Human:Hi.", [Turn(H, "Hi.")]),
        ("Human:  Hi. ", [Turn(H, " Hi. ")]),  # one space belongs to the tag, the others to the turn
        ("Human:\nHi.", [Turn(H, "\nHi.")]),
        ("Human: Hi.\n\n\nAssistant: Yes.\n", [Turn(H, "Hi.\n"), Turn(A, "Yes.\n")]),
        ("Human: Hi.\n\nAssistant:", [Turn(H, "Hi."), Turn(A, "")]),  # an open tag
        ("Human: a\n\nHuman: b", [Turn(H, "a"), Turn(H, "b")]),
        ("Assistant: a\n\nHuman: b", [Turn(A, "a"), Turn(H, "b")]),
        ("Human: What is an Assistant: a person?", [Turn(H, "What is an Assistant: a person?")]),
        ("Human: a\n\nHumans: b\n\nhuman: c\n\nHuman", [Turn(H, "a\n\nHumans: b\n\nhuman: c\n\nHuman")]),
    ],
)
def test_edges_of_a_turn(text, turns):
    assert parse(text) == turns


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "begins with .* this one with ''"),
        (" \n ", "begins with .* this one with ''"),
        ("Hello.\n\nHuman: Hi.", "begins with .* this one with 'Hello"),
        ("\n\nHuman: a\nb\nAssistant: c", "line 5: there is no empty line before 'Assistant:'"),
        ("Human: a\n\nAssistant: b\n\nAssistant (kind): c", r"line 5: the tag 'Assistant \(kind\):' should be 'Assistant:'"),
        ("\nHuman : a", "line 2: the tag 'Human :' should be 'Human:'"),
        ("\n \n\n\nHuman : a", "line 5: the tag"),
        ("Human: a\r\n\r\nAssistant: b", "line 3: there is no empty line"),
    ],
)
def test_what_could_hide_a_turn_is_an_error_with_its_place(text, message):
    with pytest.raises(ValueError, match=message):
        parse(text)


@settings(deadline=None)
@given(st.lists(turn, min_size=1, max_size=5))
def test_parse_inverts_render(turns):
    assert parse(render(turns)) == turns


@settings(deadline=None)
@given(scraps)
def test_parse_loses_no_character_or_refuses(text):
    try:
        turns = parse(text)
    except ValueError:
        return
    assert "".join(render(turns).split()) == "".join(text.split())


@pytest.mark.parametrize("text", ["Human: x", "a\nAssistant: b", "a\n\nAssistant (kind): b"])
def test_a_line_that_begins_with_a_tag_has_a_tag(text):
    assert has_tag(text)


@pytest.mark.parametrize("text", ["", "Human", "my Human: x", "Assistants: x", "assistant: x"])
def test_a_tag_inside_a_line_is_text(text):
    assert not has_tag(text)


def test_the_cut_drops_the_last_reply_and_what_follows_it():
    a, b, c, d, _ = turns = [Turn(H, "1"), Turn(A, "2"), Turn(H, "3"), Turn(A, "4"), Turn(H, "5")]
    assert cut_after_last_assistant_tag(turns[:4]) == [a, b, c]
    assert cut_after_last_assistant_tag(turns) == [a, b, c]
    assert cut_after_last_assistant_tag([a, b, d]) == [a, b]
    assert cut_after_last_assistant_tag([a, b]) == [a]


@pytest.mark.parametrize("turns", [[], [Turn(H, "1")], [Turn(A, "1")], [Turn(A, "1"), Turn(H, "2")]])
def test_without_a_reply_there_is_nothing_to_cut(turns):
    with pytest.raises(ValueError, match="no assistant turn that answers"):
        cut_after_last_assistant_tag(turns)


def test_a_cut_transcript_is_the_text_up_to_its_last_tag():
    text = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d"
    assert prompt(cut_after_last_assistant_tag(parse(text))) == text[: text.rindex("Assistant:") + len("Assistant:")]


def test_the_stop_string_is_how_a_human_turn_begins():
    assert render([Turn(A, "a"), Turn(H, "b")]).endswith(STOP + " b")
