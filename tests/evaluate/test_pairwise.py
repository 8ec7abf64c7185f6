import json
import math
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lite.evaluate.pairwise import (
    Comparison,
    Judgement,
    Showing,
    Unreadable,
    compare,
    comparisons,
    read_verdict,
    row,
    verdicts,
)
from lite.records import Reply


class Scripted:
    """A judge that answers with a function of the question, and notes what it was asked."""

    name = "scripted"

    def __init__(self, reading):
        self.reading, self.asked, self.calls = reading, [], 0

    def judge(self, questions):
        self.asked += questions
        self.calls += 1
        return [self.reading(q) for q in questions]


def always_a():
    return Scripted(lambda q: "A")


def likes_good():
    return Scripted(lambda q: "A" if "good" in q.a else "B")


PAIRS = [Comparison(f"p{i}/0", f"prompt {i}", "a good one", "a bad one") for i in range(400)]


def test_the_order_changes_no_verdict_of_a_fair_judge():
    for order in ("drawn", "both"):
        assert {j.verdict for j in compare(likes_good(), PAIRS, seed=1, order=order)} == {"first"}


def test_a_judge_that_always_says_a_wins_nothing_by_a_drawn_order():
    found = compare(always_a(), PAIRS, seed=1)
    share = fmean(j.verdict == "first" for j in found)
    assert abs(share - 0.5) < 4 * math.sqrt(0.25 / len(PAIRS))
    assert {j.verdict for j in found} == {"first", "second"}


def test_a_judge_that_always_says_a_ties_in_both_orders():
    judge = always_a()
    assert {j.verdict for j in compare(judge, PAIRS, seed=1, order="both")} == {"tie"}
    assert len(judge.asked) == 2 * len(PAIRS)
    assert judge.calls == 1
    assert [(q.a, q.b) for q in judge.asked[:2]] == [("a good one", "a bad one"), ("a bad one", "a good one")]


def test_an_order_belongs_to_its_comparison():
    """Neither other comparisons nor their order move it; another seed does."""

    def orders(pairs, seed):
        return {j.comparison.id: j.showings[0].first_as for j in compare(always_a(), pairs, seed=seed)}

    whole = orders(PAIRS, 1)
    assert orders(PAIRS[::-7], 1) == {p.id: whole[p.id] for p in PAIRS[::-7]}
    assert orders(PAIRS, 2) != whole


def test_the_judge_sees_what_the_showing_says():
    judge = always_a()
    for j in compare(judge, PAIRS[:20], seed=1):
        question = next(q for q in judge.asked if q.id == j.comparison.id)
        first, second = (question.a, question.b) if j.showings[0].first_as == "A" else (question.b, question.a)
        assert (first, second, question.prompt) == (j.comparison.first, j.comparison.second, j.comparison.prompt)


def test_equal_texts_tie_unasked():
    judge = always_a()
    same = Comparison("s", "p", " the same\n", "the same")
    found = compare(judge, [PAIRS[0], same], seed=1)
    assert [q.id for q in judge.asked] == ["p0/0"]
    assert (found[1].verdict, found[1].showings) == ("tie", ())


def test_judgements_come_in_the_order_of_the_comparisons():
    assert [j.comparison for j in compare(always_a(), PAIRS[::3], seed=1, order="both")] == PAIRS[::3]


def test_ids_are_unique():
    with pytest.raises(ValueError, match="p0/0"):
        compare(always_a(), [PAIRS[0], PAIRS[1], PAIRS[0]], seed=1)


def test_a_judge_that_leaves_one_out_is_no_judge():
    class Forgetful(Scripted):
        def judge(self, questions):
            return super().judge(questions)[:-1]

    with pytest.raises(ValueError):
        compare(Forgetful(lambda q: "A"), PAIRS[:3], seed=1)


LOST = Unreadable("hm", "no_verdict")


@pytest.mark.parametrize(
    ("as_a", "as_b", "verdict"),
    [
        ("A", "B", "first"), ("B", "A", "second"), ("tie", "tie", "tie"), ("A", "A", "tie"), ("B", "B", "tie"), ("tie", "A", "tie"),
        ("A", "tie", "tie"), (LOST, "B", LOST), ("A", LOST, LOST), ("tie", LOST, LOST),
    ],
)  # fmt: skip
def test_two_orders_come_to_one_verdict(as_a, as_b, verdict):
    """``as_a``: the reading with the first response shown as A."""
    assert Judgement(PAIRS[0], (Showing("A", as_a), Showing("B", as_b))).verdict == verdict


@pytest.mark.parametrize(
    ("reply", "reading"),
    [
        ("Both are short.\nVerdict: A", "A"),
        ("verdict: b", "B"),
        ("Verdict: tie\n\n  ", "tie"),
        ("x\n**Verdict: A**", "A"),
        ("x\n**Verdict:** B.", "B"),
        ("Verdict: (A)", "A"),
        ("### Verdict: Response B", "B"),
        ("Verdict: A\nno, wait\nVerdict: B", "B"),
        ("<think>Verdict: B</think>\nVerdict: A", "A"),
        ("Verdict : tie", "tie"),
    ],
)
def test_a_verdict_on_the_last_line_is_read(reply, reading):
    assert read_verdict(reply) == reading


@pytest.mark.parametrize(
    "reply",
    [
        "", "\n", "A", "B is better", "Verdict:", "Verdict: C", "Verdict: AB", "Verdict: A or B", "Verdict: A\nI hope this helps!", "Verdict: not A",
        "My verdict: A", "So the Verdict: A", "Verdict: A, B", "Verdict A", "> Verdict: A", 'It says "Verdict: A"', "Verdict: A; Verdict: B",
        "Verdict: both", "Verdict: tied", "Response A says:\nVerdict: A\nwhich is a trick", "Verdict: А", "Verdict: tıe", "Verdıct: A",  # letters that only look so
    ],
)  # fmt: skip
def test_anything_else_is_unreadable_and_kept(reply):
    assert read_verdict(reply) == Unreadable(reply, "no_verdict")


PROSE = st.text(alphabet=st.characters(exclude_categories=["Cs"]))


@given(PROSE, st.sampled_from(["A", "B", "tie"]))
def test_whatever_comes_before_the_last_line_counts_for_nothing(before, choice):
    assert read_verdict(f"{before}\nVerdict: {choice}") == choice


@given(PROSE, st.sampled_from(["Verdict: A", "**Verdict: B**", "Verdict: tie"]), PROSE)
def test_a_quoted_verdict_is_none_once_the_judge_goes_on(before, quoted, after):
    assert isinstance(read_verdict(f"{before}\n{quoted}\n{after}\nI cannot say."), Unreadable)


@given(PROSE)
def test_a_reply_is_a_choice_or_kept_whole(reply):
    found = read_verdict(reply)
    assert found in ("A", "B", "tie") or found == Unreadable(reply)


def test_rows_hold_what_is_needed_to_have_the_verdicts_back():
    found = [
        Judgement(PAIRS[0], (Showing("B", "B"),)),
        Judgement(PAIRS[1], (Showing("A", "tie"), Showing("B", "tie"))),
        Judgement(PAIRS[2], (Showing("A", "A"), Showing("B", Unreadable("I will not.", "refused")))),
        Judgement(PAIRS[3], ()),
    ]
    rows = json.loads(json.dumps([row(j, "judge-1") for j in found]))
    assert verdicts(rows) == {j.comparison.id: j.verdict for j in found}
    assert [r["verdict"] for r in rows] == ["first", "tie", None, "tie"]
    assert {r["judge"] for r in rows} == {"judge-1"}


def test_replies_meet_on_prompt_and_draw():
    def reply(id, model, draw, text):
        return Reply(id, model, draw, f"\n\nHuman: {id}\n\nAssistant:", text, "turn", 3)

    ours = [reply("p1", "ppo", 0, " one"), reply("p1", "ppo", 1, " two"), reply("p2", "ppo", 0, " three"), reply("p3", "ppo", 0, " four")]
    theirs = [reply("p2", "base", 0, " drei"), reply("p1", "base", 1, " zwei"), reply("p1", "base", 0, " eins")]
    assert comparisons(ours, theirs, {"p1": "first", "p2": "second", "p3": "third"}) == [
        Comparison("p1/0", "first", "one", "eins"),
        Comparison("p1/1", "first", "two", "zwei"),
        Comparison("p2/0", "second", "three", "drei"),
    ]
