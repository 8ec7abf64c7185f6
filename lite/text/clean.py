"""From what a base model wrote after a prompt to a response: accept and cut, or reject and say why.

A base model goes on with the dialogue, so a finished response is followed by the next human turn. Follows the authors' filter of
Yang et al. 2023, the same for RLCD, RLAIF and Rescore:

1. the continuation contains the next "Human" turn within the limit, or it is rejected;
2. cut there, then at the last newline: the line on which the tag stands is not part of the response;
3. if a stray assistant tag remains, keep what follows;
4. reject if nothing is left.

With three differences. The authors look for the text "Human" anywhere; here the next turn is a speaker TAG, the word and its
colon ("Human:" or "Human (angry):"), so that "the Human body" cuts nothing. A tag counts wherever it stands, with an empty line
before it (``STOP``, where generation stops), with one line break, or inside a line; in the last case rule 2 drops the unfinished
line. A stray tag may carry a stage direction ("Assistant (kind):"). Rule 3 repeats until no tag is left, where the authors
apply it once.

A response is ``separator + text``: what the model wrote between the prompt and the first character (one space, or the line
break before an outline's first item) is kept as it was, and the right end is stripped. So ``join(prompt, response)`` is exactly
what was generated, up to the cut tail, and a finished response is ``response + STOP``.
"""

import re
from dataclasses import dataclass
from typing import Literal, get_args

from lite.text.dialogue import ASSISTANT_TAG, HUMAN_TAG, STOP

StopReason = Literal["turn", "eos", "length"]
"""Why generation ended: the stop string, the end-of-text token, or the limit of new tokens."""
RejectReason = Literal["no_next_turn", "end_of_text", "empty"]
REJECT_REASONS: tuple[RejectReason, ...] = get_args(RejectReason)

_ROLE_NAME = re.compile(rf"{HUMAN_TAG.pattern}|{ASSISTANT_TAG.pattern}|^[ \t]*(?:human|assistant|[Uu]ser):", re.M)


@dataclass(frozen=True, slots=True)
class Accepted:
    text: str
    separator: str
    stop: StopReason

    @property
    def response(self) -> str:
        """What is stored and put after the prompt."""
        return self.separator + self.text


@dataclass(frozen=True, slots=True)
class Rejected:
    reason: RejectReason


def accept(raw: str, stop: StopReason) -> Accepted | Rejected:
    """The response in a raw continuation, by the four rules above; ``raw`` still holds the stop string.

    The text decides; ``stop`` only tells a text that ended from one that was too long.
    """
    turn = HUMAN_TAG.search(raw)
    if turn is None:
        return Rejected("end_of_text" if stop == "eos" else "no_next_turn")
    finished, _, _ = raw[: turn.start()].rpartition("\n")
    strays = list(ASSISTANT_TAG.finditer(finished))
    response = finished[strays[-1].end() :] if strays else finished
    text = response.strip()
    if not text:
        return Rejected("empty")
    return Accepted(text, response[: len(response) - len(response.lstrip())], stop)


def join(prompt: str, response: str) -> str:
    """The dialogue with its response. A response brings its own separator; give a text that nobody generated through ``as_response``."""
    return prompt + response


def as_response(text: str) -> str:
    """A text that a person or a file gives, as a response: one space after the tag, or its own line break if it begins with one."""
    text = text.rstrip()
    return text if text[:1].isspace() else f" {text}"


def decode_reply(raw: str) -> str:
    """The reply that is judged: cut at the stop string, role names stripped from its start, cut at the next one. May be empty.

    Follows the authors' post-processing, which also knows "user", except that a role name in lower case or "User" counts only at
    the beginning of a line: "log in as user: admin" stays whole.
    """
    reply = raw.partition(STOP)[0].strip()
    while name := _ROLE_NAME.match(reply):
        reply = reply[name.end() :].strip()
    return _ROLE_NAME.split(reply, maxsplit=1)[0].rstrip()
