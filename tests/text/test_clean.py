import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lite.text.clean import Accepted, Rejected, accept, as_response, decode_reply, join
from lite.text.dialogue import ASSISTANT_TAG, HUMAN_TAG, STOP

PIECES = [
    "\n", "\n\n", " ", "\t", "\r", "\x0b", ":", "(", ")", "x", "Sure.", "1. a", "Human", "Human:", "Human (odd):", "human:", "SuperHuman:",
    "Assistant", "Assistant:", "Assistant (kind):", "assistant:", "User:", "user:", STOP,
]  # fmt: skip
scraps = st.lists(st.sampled_from(PIECES), max_size=12).map("".join) | st.text(max_size=30)
stops = st.sampled_from(["turn", "eos", "length"])
PROMPT = "\n\nHuman: Hi.\n\nAssistant:"


# 1. the next turn


@pytest.mark.parametrize(("stop", "reason"), [("length", "no_next_turn"), ("turn", "no_next_turn"), ("eos", "end_of_text")])
def test_without_a_next_turn_it_is_rejected_by_what_ended_it(stop, reason):
    assert accept(" Sure.\nOf course.\n", stop) == Rejected(reason)


@pytest.mark.parametrize(
    "raw",
    [
        " The Human body has 206 bones.\n\nHumans are mammals.\n",
        " SuperHuman: a word.\n",
        " I am\n\nHuman",  # the limit fell between the word and its colon
        " human: Hi.\n",
        " Human (a\nb): c\n",
    ],
)
def test_a_word_is_no_turn(raw):
    assert accept(raw, "length") == Rejected("no_next_turn")


@pytest.mark.parametrize(
    "tail", [STOP, STOP + " And?", "\nHuman: And?", "\n\nHuman (angry): And?", "\n\nHuman : And?", "\n\n\n Human: And?\n\nHuman: So?"]
)
@pytest.mark.parametrize("stop", ["turn", "eos", "length"])
def test_the_next_turn_may_stand_behind_any_line_break(tail, stop):
    assert accept(" Sure." + tail, stop) == Accepted("Sure.", " ", stop)


def test_the_first_of_several_turns_counts():
    assert accept(" One.\n\nHuman: a\n\nAssistant: Two.\n\nHuman: b", "turn") == Accepted("One.", " ", "turn")


def test_a_bare_word_before_the_turn_cuts_nothing():
    assert accept(" The Human body\nis old.\n\nHuman: And?", "turn") == Accepted("The Human body\nis old.", " ", "turn")


# 2. the last newline


def test_newlines_inside_are_kept():
    assert accept("\n1. a\n2. b\n3. c\n\nHuman: Thanks", "turn") == Accepted("1. a\n2. b\n3. c", "\n", "turn")


def test_only_the_unfinished_line_is_dropped():
    assert accept("\n1. a\n2. b\n3. Human: Thanks", "turn") == Accepted("1. a\n2. b", "\n", "turn")


@pytest.mark.parametrize("raw", [" Sure. Human: And?", "\n1. a Human: And?", " Human: And?", "Human: And?", STOP, " \n\t\n\nHuman:"])
def test_with_no_finished_line_nothing_is_left(raw):
    assert accept(raw, "turn") == Rejected("empty")


# 3. stray tags


@pytest.mark.parametrize("tag", ["Assistant:", "Assistant (kind):", "Assistant :", "Assistant (very, very kind) :"])
@pytest.mark.parametrize("before", ["", " ", "\n\n", " No.\n\n", " As an ", " No.\n\nAssistant: Well.\n\n", "Assistant: Assistant: "])
def test_what_follows_the_last_stray_tag_is_kept(before, tag):
    assert accept(f"{before}{tag} Yes.\nIndeed.\n\nHuman: And?", "turn") == Accepted("Yes.\nIndeed.", " ", "turn")


@pytest.mark.parametrize("raw", [" Sure.\n\nAssistant:\n\nHuman: And?", " Sure.\n\nAssistant (kind):\n\nHuman: And?"])
def test_a_stray_tag_with_nothing_behind_it_leaves_nothing(raw):
    assert accept(raw, "turn") == Rejected("empty")


def test_the_cut_comes_before_the_stray_tag():
    assert accept(" One.\nAssistant: Two. Human: And?\n", "turn") == Accepted("One.", " ", "turn")


@pytest.mark.parametrize("text", ["My Assistants: a, b", "CoAssistant: a", "The Assistant (or helper) said: x", "an assistant: x"])
def test_a_word_is_no_stray_tag(text):
    assert accept(f" {text}\n\nHuman: And?", "turn") == Accepted(text, " ", "turn")


# the separator


@pytest.mark.parametrize("separator", ["", " ", "  ", "\n", "\n\n", " \n "])
def test_the_separator_is_what_the_model_wrote(separator):
    made = accept(separator + "1. a \n\nHuman:", "turn")
    assert isinstance(made, Accepted)
    assert made == Accepted("1. a", separator, "turn")
    assert made.response == separator + "1. a"


def test_joined_it_is_what_was_generated_up_to_the_tail():
    raw = "\n1. a\n2. b" + STOP
    made = accept(raw, "turn")
    assert isinstance(made, Accepted)
    assert join(PROMPT, made.response) + STOP == PROMPT + raw


@settings(deadline=None)
@given(scraps, stops)
def test_what_is_cut_is_white_space_and_one_unfinished_line(raw, stop):
    made = accept(raw, stop)
    turn = HUMAN_TAG.search(raw)
    if isinstance(made, Rejected) or turn is None or ASSISTANT_TAG.search(raw):
        return
    whole, joined = PROMPT + raw, join(PROMPT, made.response)
    assert whole.startswith(joined)
    tail = whole[len(joined) : len(PROMPT) + turn.start()]
    assert "\n" in tail and not tail[: tail.rindex("\n")].strip()


@settings(deadline=None)
@given(scraps, scraps, stops)
def test_an_accepted_text_is_a_part_of_what_was_written_and_has_no_tag(a, b, stop):
    made = accept(a + "\n" + b + STOP, stop)
    if isinstance(made, Rejected):
        assert made.reason == "empty"
        return
    assert made.text and made.text == made.text.strip() and not made.separator.strip()
    assert made.response in a + "\n" + b
    assert not HUMAN_TAG.search(made.response) and not ASSISTANT_TAG.search(made.response)
    assert STOP not in join(PROMPT, made.response)[len(PROMPT) - 1 :]


@settings(deadline=None)
@given(scraps, stops)
def test_any_text_has_an_outcome_and_clean_text_stays(raw, stop):
    made = accept(raw, stop)
    if isinstance(made, Accepted):
        assert accept(made.response + STOP, stop) == made
    elif stop != "eos":
        assert made.reason in ("empty", "no_next_turn")


@pytest.mark.parametrize(("text", "response"), [("Sure. ", " Sure."), (" Sure.", " Sure."), ("\n1. a\n", "\n1. a"), ("", " ")])
def test_a_text_that_nobody_generated_gets_one_space(text, response):
    assert as_response(text) == response


# decoded replies


@pytest.mark.parametrize(
    ("raw", "reply"),
    [
        (" Sure.", "Sure."),
        (" Sure.\nYes." + STOP + " And?", "Sure.\nYes."),
        (STOP + " And?", ""),  # stopped at once: an empty reply, not the human's words
        ("", ""),
        (" Assistant: Sure.", "Sure."),
        ("\n\nAssistant (kind): human: User: Sure.", "Sure."),
        (" Sure.\nHuman: And?", "Sure."),
        (" Sure. Human: And?", "Sure."),
        (" Sure.\n\nAssistant: Also.", "Sure."),
        (" Sure.\n  user: And?", "Sure."),
        (" Log in as user: admin", "Log in as user: admin"),
        (" The Human body\nHumans: x", "The Human body\nHumans: x"),
        (" Cut off in the mid", "Cut off in the mid"),
    ],
)
def test_replies_by_hand(raw, reply):
    assert decode_reply(raw) == reply


@settings(deadline=None)
@given(scraps)
def test_a_decoded_reply_is_a_part_of_the_text_and_stays(raw):
    reply = decode_reply(raw)
    assert reply in raw.partition(STOP)[0]
    assert decode_reply(reply) == reply == reply.strip()
    assert not HUMAN_TAG.search(reply) and not ASSISTANT_TAG.search(reply)
