"""The judges that ``pairwise.compare`` can ask: a score of single responses, a local model's choice, a model behind an endpoint.

None imports torch: whoever has a model gives it as a function.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lite import templates
from lite.evaluate.endpoint import Answer, Chat
from lite.evaluate.pairwise import Question, Reading, Unreadable, read_verdict
from lite.evaluate.questions import Form, chat_prompt
from lite.templates import Template
from lite.text.choosing import choice_prompt
from lite.text.statistics import words

Score = Callable[[Sequence[tuple[str, str]]], Sequence[float | None]]
"""(prompt, response) -> score of each; None where there is none, as of an empty response under a reward model"""
Letters = Callable[[Sequence[str]], Sequence[tuple[float, float]]]
"""prompt -> log-probabilities that the model goes on with "A" and with "B" """


@dataclass(frozen=True)
class ScoreJudge:
    """Prefers the response with the higher score: the reward model as a judge, or any other function of a response."""

    name: str
    score: Score

    def judge(self, questions: Sequence[Question]) -> list[Reading]:
        rows = list(dict.fromkeys((q.prompt, text) for q in questions for text in (q.a, q.b)))
        scores = dict(zip(rows, self.score(rows), strict=True))
        return [_higher(scores[q.prompt, q.a], scores[q.prompt, q.b]) for q in questions]


def length_judge() -> ScoreJudge:
    """The control: prefers the response with more words, and reads neither (Singhal et al. 2023)."""
    return ScoreJudge("length", lambda rows: [float(len(words(response))) for _, response in rows])


@dataclass(frozen=True)
class ChoiceJudge:
    """A local model that goes on after "The better response is (": the likelier letter is its reading, and it cannot be talked
    into a form that nobody can read. Base models favour a letter whatever it stands for, so ask in both orders."""

    name: str
    form: Form
    letters: Letters
    frame: Template = field(default_factory=lambda: templates.load("choice"))

    def judge(self, questions: Sequence[Question]) -> list[Reading]:
        prompts = [choice_prompt(self.frame, self.form.question, dialogue=q.prompt, a=q.a, b=q.b) for q in questions]
        return [_higher(a, b) for a, b in self.letters(prompts)] if prompts else []


@dataclass(frozen=True)
class EndpointJudge:
    """A chat model behind an endpoint, which gives its reasons and then a verdict on its last line."""

    chat: Chat
    form: Form
    done: Callable[[int], None] = lambda n: None
    """called with 1 for every question that is answered"""
    frame: Template = field(default_factory=lambda: templates.load("pairwise"))

    @property
    def name(self) -> str:
        return self.chat.endpoint.model

    def judge(self, questions: Sequence[Question]) -> list[Reading]:
        prompts = [chat_prompt(self.frame, self.form, dialogue=q.prompt, a=q.a, b=q.b) for q in questions]
        found = self.chat.ask([[{"role": "user", "content": prompt}] for prompt in prompts], done=self.done)
        return [_read(answer) for answer in found]


def _read(answer: Answer | Unreadable) -> Reading:
    if isinstance(answer, Unreadable):
        return answer
    if answer.refused:
        return Unreadable(answer.text, "refused")
    if answer.cut:
        return Unreadable(answer.text, "cut")
    return read_verdict(answer.text)


def _higher(a: float | None, b: float | None) -> Reading:
    if a is None or b is None or not (math.isfinite(a) and math.isfinite(b)):
        return Unreadable("", "no_score")
    return "tie" if a == b else "A" if a > b else "B"
