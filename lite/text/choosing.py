"""A two-way choice as text and as a label: the prompt after which a base model writes a letter, and what its odds come to.

Follows RLAIF as Yang et al. 2023 run it: a principle, two responses, and the softmax of the logits of "A" and "B" as the label.
"""

import math
from collections.abc import Sequence
from typing import Literal

from lite.tasks import Example
from lite.templates import Template
from lite.text.dialogue import Turn, render

Letter = Literal["A", "B"]


def choice_prompt(frame: Template, principle: str, *, dialogue: str, a: str, b: str) -> str:
    """The text after which a base model writes the letter of the better response. ``dialogue``: the closed turns as text."""
    return frame.render(principle=principle, dialogue=dialogue, a=a.strip(), b=b.strip())


def shots_before(frame: Template, principle: str, examples: Sequence[Example]) -> str:
    """Answered choices to put before the one that is asked, under the same principle; A and B are right in turn."""
    shots = []
    for i, example in enumerate(examples):
        letter, a, b = ("A", example.better, example.worse) if i % 2 == 0 else ("B", example.worse, example.better)
        dialogue = render([Turn("human", example.human)])
        shots.append(f"{choice_prompt(frame, principle, dialogue=dialogue, a=a, b=b)}{letter})\n\n")
    return "".join(shots)


def preference(a: float, b: float, first_as: Letter) -> float:
    """The probability that the first response is the better one, from the log-probabilities of the letters and its own letter.

    P(A) = exp(a) / (exp(a) + exp(b))
    """
    prob = 1 / (1 + math.exp(min(b - a, 700.0)))
    return prob if first_as == "A" else 1 - prob


def soft_label(preferences: Sequence[float], *, clamp: float) -> float:
    """One label of the readings of all orders: their mean, kept within [clamp, 1 - clamp]."""
    mean = sum(preferences) / len(preferences)
    return min(1 - clamp, max(clamp, mean))
