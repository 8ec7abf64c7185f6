import math

import pytest

from lite import tasks, templates
from lite.micro.oracle import grade
from lite.micro.splits import split_of
from lite.text.choosing import choice_prompt, preference, shots_before, soft_label
from lite.text.dialogue import Turn

FRAME = templates.load("choice")


def test_the_label_is_the_softmax_of_the_two_letters():
    assert preference(math.log(0.3), math.log(0.1), "A") == pytest.approx(0.75)
    assert preference(math.log(0.3), math.log(0.1), "B") == pytest.approx(0.25)
    assert preference(-2000.0, -1.0, "A") == pytest.approx(0.0)


def test_both_orders_cancel_a_habit_of_place():
    """A judge that gives A odds of 4:1 whatever stands there says one half in the mean of both orders."""
    a, b = math.log(0.8), math.log(0.2)
    assert soft_label([preference(a, b, "A"), preference(a, b, "B")], clamp=0.0) == pytest.approx(0.5)


@pytest.mark.parametrize(("said", "label"), [(0.97, 0.6), (0.02, 0.4), (0.55, 0.55)])
def test_a_clamp_keeps_labels_near_one_half(said, label):
    assert soft_label([said], clamp=0.4) == pytest.approx(label)


def test_shots_are_answered_choices_in_the_very_form_of_the_question():
    task = tasks.load("helpful")
    principle, (one, other) = task.phrases[0].principle, task.examples
    text = shots_before(FRAME, principle, task.examples)
    first = choice_prompt(FRAME, principle, dialogue=f"\n\nHuman: {one.human}", a=one.better, b=one.worse) + "A)\n\n"
    second = choice_prompt(FRAME, principle, dialogue=f"\n\nHuman: {other.human}", a=other.worse, b=other.better) + "B)\n\n"
    assert text == first + second
    assert shots_before(FRAME, principle, ()) == ""


@pytest.mark.parametrize("name", tasks.names())
def test_the_examples_are_right_and_no_held_out_prompt_is_among_them(name):
    examples = tasks.load(name).examples
    assert len(examples) >= 2
    for example in examples:
        assert split_of(example.human) == "train"
        better, worse = (grade([Turn("human", example.human)], text) for text in (example.better, example.worse))
        assert better.success
        assert better.score >= worse.score + 3
