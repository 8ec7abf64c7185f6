"""Human/Assistant dialogues as text: the one module that knows how a turn is written.

A dialogue is a list of turns. As text every turn begins on a new paragraph: ``\\n\\nHuman: ...`` or ``\\n\\nAssistant: ...``
(Bai et al. 2022; Yang et al. 2023). A stage direction stands inside a speaker tag: ``\\n\\nAssistant (in a kind voice): ...``.
A prompt is a dialogue that ends with an open assistant tag, and with the response lead where a task has one.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Role = Literal["human", "assistant"]
TAG: dict[Role, str] = {"human": "Human", "assistant": "Assistant"}
STOP = "\n\nHuman:"
"""The start of the next human turn: a response ends here, and this text is its end token."""

_REST_OF_TAG = r"(?:[ \t]*\([^()\n]*\))?[ \t]*:"
HUMAN_TAG = re.compile(rf"\b{TAG['human']}{_REST_OF_TAG}")
ASSISTANT_TAG = re.compile(rf"\b{TAG['assistant']}{_REST_OF_TAG}")
"""A speaker tag anywhere in a text, with or without a stage direction: the word and its colon. The bare word is no tag."""

_TAG_ON_A_LINE = re.compile(rf"^({'|'.join(TAG.values())}){_REST_OF_TAG}", re.M)
_ROLE: dict[str, Role] = {word: role for role, word in TAG.items()}


@dataclass(frozen=True, slots=True)
class Turn:
    role: Role
    text: str


def cue(direction: str | None = None) -> str:
    """The open assistant tag, with a stage direction inside it if one is given."""
    return f"\n\nAssistant ({direction}):" if direction else "\n\nAssistant:"


def render(turns: Sequence[Turn], *, direction: Callable[[int], str | None] | None = None) -> str:
    """The closed turns as text; ``direction(i)`` is the stage direction of the assistant turn at position ``i``."""
    parts = []
    for i, turn in enumerate(turns):
        tag = cue(direction(i) if direction else None) if turn.role == "assistant" else "\n\nHuman:"
        parts.append(f"{tag} {turn.text}")
    return "".join(parts)


def prompt(turns: Sequence[Turn], *, lead: str = "") -> str:
    """The plain prompt: all turns, then the open assistant tag and the response lead, if any."""
    return render(turns) + cue() + (f" {lead}" if lead else "")


def closed(prompt: str) -> str:
    """The closed turns of a plain prompt: all that stands before its open assistant tag."""
    turns, tag, _ = prompt.rpartition(cue())
    if not tag:
        raise ValueError(f"a prompt ends with an open assistant tag, this one with {prompt[-40:]!r}")
    return turns


def parse(text: str) -> list[Turn]:
    """The turns of a transcript in the form of HH-rlhf, the inverse of ``render``: ``parse(render(turns)) == turns``.

    White space before the first tag is free, and the one space after a tag belongs to it; every other character is kept. The
    order of the speakers is free too (HH has speakers who go on). Anything that could hide a turn inside another raises
    ValueError with its line: text before the first tag, a tag without an empty line before it, a tag that is not exactly
    ``Human:`` or ``Assistant:``.
    """
    body = "\n\n" + text.lstrip()
    tags = list(_TAG_ON_A_LINE.finditer(body))

    def line(tag: re.Match[str]) -> int:
        return 1 + text.count("\n", 0, len(text) - len(body) + tag.start())

    if not tags or tags[0].start() != 2:
        raise ValueError(f"a transcript begins with 'Human:' or 'Assistant:', this one with {body[2:42]!r}")
    for tag in tags:
        if tag[0] != f"{tag[1]}:":
            raise ValueError(f"line {line(tag)}: the tag {tag[0]!r} should be '{tag[1]}:'")
        if not body.endswith("\n\n", 0, tag.start()):
            raise ValueError(f"line {line(tag)}: there is no empty line before {tag[0]!r}")
    ends = [tag.start() - 2 for tag in tags[1:]] + [len(body)]
    return [Turn(_ROLE[tag[1]], body[tag.end() : end].removeprefix(" ")) for tag, end in zip(tags, ends, strict=True)]


def has_tag(text: str) -> bool:
    """Whether a line of the text begins with a speaker tag: such a turn cannot be told from two turns once it is rendered."""
    return _TAG_ON_A_LINE.search(text) is not None


def cut_after_last_assistant_tag(turns: Sequence[Turn]) -> list[Turn]:
    """The dialogue that the last assistant turn answers: all turns before it (Yang et al. 2023 cut after the last "Assistant:").

    In a transcript that takes turns and ends with the assistant these are the turns up to and including the last human one.
    """
    last = max((i for i, turn in enumerate(turns) if turn.role == "assistant"), default=0)
    if last == 0:
        raise ValueError("the transcript has no assistant turn that answers something")
    return list(turns[:last])
