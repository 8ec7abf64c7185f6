import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lite.tasks import Phrases, Task
from lite.text.contrast import contrast, draw_index, shared_prefix
from lite.text.dialogue import Turn, has_tag, prompt

H, A = "human", "assistant"
KIND = Phrases(positive="in a kind voice", negative="in a cruel voice", principle="Which is kinder?")
CALM = Phrases(positive="calmly", negative="angrily", principle="Which is calmer?")
TASK = Task(name="tone", about="tone", phrases=(KIND, CALM), question="Which?")
OUTLINE = Task(name="outline", about="outline", lead="Here is a plan:", phrases=(KIND,), question="Which?")

phrases = st.text(alphabet="abc ,-é", min_size=3, max_size=12)
tasks = st.builds(
    lambda pairs, lead: Task(
        name="t",
        about="t",
        lead=lead,
        phrases=tuple(Phrases(positive=p, negative=n, principle="who?") for p, n in pairs),
        question="q",
    ),
    st.lists(st.tuples(phrases, phrases), min_size=1, max_size=3),
    st.sampled_from(["", "Here is a plan:"]),
)
dialogues = st.lists(
    st.builds(Turn, role=st.sampled_from([H, A]), text=st.text(max_size=10).filter(lambda text: not has_tag(text))), max_size=5
)


def without_directions(text: str) -> str:
    return re.sub(r"(\n\nAssistant) \([^()\n:]+\):", r"\1:", text)


def test_one_turn_by_hand():
    made = contrast([Turn(H, "Hi.")], TASK, 1)
    assert made.p_plus == "\n\nHuman: Hi.\n\nAssistant (calmly):"
    assert made.p_minus == "\n\nHuman: Hi.\n\nAssistant (angrily):"
    assert made.index == 1


def test_earlier_assistant_turns_carry_the_opposite_phrase():
    made = contrast([Turn(H, "1"), Turn(A, "2"), Turn(H, "3"), Turn(A, "4"), Turn(H, "5")], TASK, 0)
    assert made.p_plus == (
        "\n\nHuman: 1\n\nAssistant (in a cruel voice): 2\n\nHuman: 3\n\nAssistant (in a cruel voice): 4"
        "\n\nHuman: 5\n\nAssistant (in a kind voice):"
    )
    assert made.p_minus == (
        "\n\nHuman: 1\n\nAssistant (in a kind voice): 2\n\nHuman: 3\n\nAssistant (in a kind voice): 4"
        "\n\nHuman: 5\n\nAssistant (in a cruel voice):"
    )


def test_the_lead_follows_the_last_tag_only():
    made = contrast([Turn(H, "1"), Turn(A, "2"), Turn(H, "3")], OUTLINE, 0)
    assert made.p_plus == "\n\nHuman: 1\n\nAssistant (in a cruel voice): 2\n\nHuman: 3\n\nAssistant (in a kind voice): Here is a plan:"


@pytest.mark.parametrize("index", [-1, 2])
def test_an_index_outside_the_task_is_refused(index):
    with pytest.raises(IndexError, match=r"'tone' has 2 phrase pair\(s\), there is no index"):
        contrast([Turn(H, "Hi.")], TASK, index)


@settings(deadline=None)
@given(dialogues, tasks)
def test_both_sides_are_the_plain_prompt_but_for_the_directions(turns, task):
    for index in range(len(task.phrases)):
        made = contrast(turns, task, index)
        assert without_directions(made.p_plus) == without_directions(made.p_minus) == prompt(turns, lead=task.lead)


@settings(deadline=None)
@given(dialogues, tasks)
def test_the_sides_share_all_up_to_the_first_direction_and_all_after_the_last(turns, task):
    made = contrast(turns, task, 0)
    shared = shared_prefix(made.p_plus, made.p_minus)
    assert shared.startswith(made.p_plus[: made.p_plus.index("\n\nAssistant (") + len("\n\nAssistant (")])
    tail = "):" + (f" {task.lead}" if task.lead else "")
    assert made.p_plus.endswith(tail) and made.p_minus.endswith(tail)


@settings(deadline=None)
@given(dialogues, tasks)
def test_swapped_phrases_swap_the_sides(turns, task):
    (pair, *_) = task.phrases
    swapped = task.model_copy(update={"phrases": (Phrases(positive=pair.negative, negative=pair.positive, principle="who?"),)})
    there, back = contrast(turns, task, 0), contrast(turns, swapped, 0)
    assert (there.p_plus, there.p_minus) == (back.p_minus, back.p_plus)


def test_the_shared_prefix_ends_in_the_first_tag_of_several_turns():
    one = contrast([Turn(H, "1")], TASK, 0)
    several = contrast([Turn(H, "1"), Turn(A, "2"), Turn(H, "3")], TASK, 0)
    assert shared_prefix(one.p_plus, one.p_minus) == "\n\nHuman: 1\n\nAssistant (in a "
    assert shared_prefix(several.p_plus, several.p_minus) == "\n\nHuman: 1\n\nAssistant (in a "


@pytest.mark.parametrize(("a", "b", "shared"), [("", "a", ""), ("ab", "abc", "ab"), ("ab", "cb", ""), ("aé", "aè", "a")])
def test_shared_prefix_by_hand(a, b, shared):
    assert shared_prefix(a, b) == shared_prefix(b, a) == shared


def test_a_draw_depends_on_its_place_alone_and_is_uniform():
    many = TASK.model_copy(update={"phrases": (KIND,) * 4})
    first = [draw_index(many, 17, "contrast", f"p{i}") for i in range(2000)]
    assert first[::-1] == [draw_index(many, 17, "contrast", f"p{i}") for i in reversed(range(2000))]
    assert first != [draw_index(many, 18, "contrast", f"p{i}") for i in range(2000)]
    counts = Counter(first)
    assert set(counts) == {0, 1, 2, 3}
    assert all(abs(n - 500) < 100 for n in counts.values())  # 5 standard deviations of a binomial(2000, 1/4)


def test_draws_are_the_same_in_every_process():
    many = TASK.model_copy(update={"phrases": (KIND,) * 16})
    assert [draw_index(many, 17, "contrast", f"p{i}") for i in range(8)] == [15, 12, 4, 9, 14, 11, 1, 3]


def test_one_phrase_pair_leaves_no_choice():
    assert {draw_index(OUTLINE, i) for i in range(20)} == {0}
