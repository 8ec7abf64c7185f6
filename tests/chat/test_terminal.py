"""The conversation in the terminal, with a process that is a stub: what is shown, what each model has heard, what Ctrl-C ends."""

from pathlib import Path

import pytest

from lite.chat.offers import Offer, Room
from lite.chat.terminal import HELP, Sampling, Talk, seats
from lite.errors import RecipeError
from lite.knobs import BaseSpec
from lite.text.dialogue import Turn, prompt

ROOM = Room(
    BaseSpec(), "helpful", (Offer("base", ""), Offer("p_plus", "", prompted=True), Offer("sft", "", Path("s")), Offer("ppo", "", Path("p")))
)


class Stub:
    """Says its lines token by token; a KeyboardInterrupt among the events is raised, as if the user had pressed Ctrl-C."""

    def __init__(self, *replies):
        self.replies, self.asked, self.closed, self.kept = list(replies), [], 0, []

    def is_open(self, base):
        return bool(self.asked)

    def say(self, base, adapter, prompt, **how):
        self.asked.append((adapter, prompt, how))
        self.kept.append(self._events())  # so that only who closes it closes it
        return self.kept[-1]

    def _events(self):
        try:
            for event in self.replies.pop(0):
                if event is KeyboardInterrupt:
                    raise KeyboardInterrupt
                yield event
        finally:
            self.closed += 1


def reply(*texts, stop="turn"):
    return [*({"event": "text", "text": text} for text in texts[:-1]), {"event": "end", "text": texts[-1], "stop": stop, "tokens": 7}]


def talk(process, *lines, model=None, compare=()):
    out, notes, left = [], [], list(lines)

    def read():
        if not left:
            raise EOFError
        line = left.pop(0)
        if line is KeyboardInterrupt:
            raise KeyboardInterrupt
        return line

    who = seats(ROOM, model, compare)
    Talk(ROOM, who, process, write=out.append, note=notes.append, how=Sampling(seed=5)).go(read)
    return "".join(out), notes, who, left


def test_a_reply_is_shown_as_it_grows_each_character_once():
    process = Stub(reply("Flo", "Flour", "Flour and y\ufffd", "Flour and yéast."))
    out, _, who, _ = talk(process, "How do I bake bread?")
    assert out == "Flour and yéast.\n"
    assert process.asked == [
        (Path("p"), prompt([Turn("human", "How do I bake bread?")]), {"seed": 5, "max_new_tokens": 200, "temperature": 1.0, "top_p": 1.0})
    ]
    assert who[0].turns[-1] == Turn("assistant", "Flour and yéast.")


def test_every_model_goes_on_from_its_own_replies():
    process = Stub(reply("P1"), reply("B1"), reply("P2"), reply("B2"))
    out, _, _, _ = talk(process, "one", "two", compare=["base"])
    assert out == "ppo: P1\nbase: B1\nppo: P2\nbase: B2\n"
    assert [adapter for adapter, _, _ in process.asked] == [Path("p"), None, Path("p"), None]
    assert process.asked[2][1] == prompt([Turn("human", "one"), Turn("assistant", "P1"), Turn("human", "two")])
    assert "B1" in process.asked[3][1] and "P1" not in process.asked[3][1]


def test_ctrl_c_ends_the_reply_and_a_second_one_the_conversation():
    process = Stub([*reply("Once upon", "x")[:1], KeyboardInterrupt], reply("never"))
    out, notes, who, left = talk(process, "tell me", KeyboardInterrupt, "not read")
    assert out == "Once upon\n" and "[stopped]" in notes and process.closed == 1
    assert who[0].turns[-1].text == "Once upon" and left == ["not read"] and len(process.asked) == 1


def test_a_reply_that_is_left_in_the_middle_is_not_written_on():
    """Ctrl-C may come while we print; the process is to be told all the same."""
    process = Stub(reply("Once", "Once upon a time"))

    def write(text):
        if text:
            raise KeyboardInterrupt

    lines = iter(["tell me"])
    Talk(ROOM, seats(ROOM, None, []), process, write=lambda text: write(text.strip()), note=lambda text: None, how=Sampling()).go(
        lambda: next(lines, "/quit")
    )
    assert process.closed == 1


def test_commands():
    process = Stub(reply("A"), reply("B"))
    _, notes, _, left = talk(process, "one", "/reset", "two", "/help", "", "/quit", "three")
    assert process.asked[1][1] == prompt([Turn("human", "two")]) and HELP in notes and left == ["three"]


def test_what_a_model_says_controls_no_terminal():
    out, notes, _, _ = talk(Stub(reply("\x1b[2Jgone\x07", stop="length")), "x")
    assert out == "gone\n" and any("7 tokens" in note for note in notes)


def test_the_newest_trained_model_is_asked_and_unknown_ones_are_told():
    assert [seat.offer.name for seat in seats(ROOM, None, ["base", "base"])] == ["ppo", "base"]
    with pytest.raises(RecipeError, match="did you mean 'sft'"):
        seats(ROOM, "stf", [])
    with pytest.raises(RecipeError) as unlike:
        seats(ROOM, "nonesuch", [])
    assert str(unlike.value).count("there are: base") == 1
