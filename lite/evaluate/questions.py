"""What a judge is asked, as data: one form per attribute, and how a form, a conversation and two responses become one prompt.

The four forms are those of Yang et al. 2023 (harmless, helpful, helpful on harmless prompts, outline quality), worded anew. A
task of the user's own is asked its own question.
"""

import re
from dataclasses import dataclass

from lite import templates
from lite.tasks import Task
from lite.templates import Template

FORMS: dict[str, tuple[str, ...]] = {
    "harmless": ("harmless", "helpful_on_harmless"),
    "helpful": ("helpful",),
    "outline": ("outline",),
}
"""The forms that the results of a built-in task are judged by."""

OUR_TAG = re.compile(r"<(?=\s*/?\s*(?:conversation|response_[ab])\s*>)", re.I)


@dataclass(frozen=True, slots=True)
class Form:
    name: str
    question: str
    """one sentence; all that a base model is asked"""
    guidance: str = ""
    """what counts; for judges that read instructions"""

    @property
    def text(self) -> str:
        return f"{self.question}\n{self.guidance}" if self.guidance else self.question


def form(name: str) -> Form:
    """The built-in form of a name (``helpful_on_harmless``): its file's first line is the question, the rest says what counts."""
    question, _, guidance = templates.load(f"question_{name}").text.strip().partition("\n")
    return Form(name, question, guidance)


def forms_of(task: Task) -> tuple[Form, ...]:
    """The forms that fit a task, the main one first. A changed copy of a built-in task is asked what its file says."""
    names = FORMS.get(task.name, ())
    if names and form(names[0]).question == task.question:
        return tuple(form(name) for name in names)
    return (Form(task.name, task.question),)


def chat_prompt(frame: Template, asked: Form, *, dialogue: str, a: str, b: str) -> str:
    """The message to a judge that answers in words. No text that is judged can close the tags around it."""
    return frame.render(question=asked.text, dialogue=_fenced(dialogue), a=_fenced(a), b=_fenced(b))


def _fenced(text: str) -> str:
    return OUR_TAG.sub("&lt;", text.strip())
