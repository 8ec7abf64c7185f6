"""A conversation in the terminal, with one model of a run or with several side by side, each going on from its own replies.

Ctrl-C ends the reply that is being written; at the question it ends the conversation. Torch-free: the base is in a process of its own.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lite.chat.offers import BASE, Offer, Room
from lite.errors import RecipeError
from lite.knobs import BaseSpec
from lite.runs.journal import CONTROL
from lite.text.dialogue import Turn
from lite.yamltext import hint

HELP = """/reset   forget the conversation
/help    this
/quit    end (as Ctrl-D; Ctrl-C ends a reply first)"""
TORN = "\ufffd"
"""What a character looks like of which not all tokens have come."""


class Process(Protocol):
    def is_open(self, base: BaseSpec) -> bool: ...

    def say(
        self, base: BaseSpec, adapter: Path | None, prompt: str, *, seed: int, max_new_tokens: int, temperature: float, top_p: float
    ) -> Generator[dict[str, Any]]: ...


@dataclass(frozen=True)
class Sampling:
    seed: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 200


@dataclass
class Seat:
    """One model, and the conversation as it has gone with it."""

    offer: Offer
    turns: list[Turn] = field(default_factory=list)


def seats(room: Room, model: str | None, compare: Sequence[str]) -> list[Seat]:
    """The model that is asked (none: the newest that was trained), and those it is compared with."""
    trained = [offer.name for offer in room.offers if offer.adapter]
    names = list(dict.fromkeys([model or (trained or [BASE])[-1], *compare]))
    there = [offer.name for offer in room.offers]
    if unknown := [name for name in names if name not in there]:
        raise RecipeError("lite chat", [f"no model {name!r}{hint(name, there)}" for name in unknown])
    return [Seat(offer) for name in names if (offer := room.offer(name))]


class Talk:
    """``write`` is given text without a line end of its own, ``note`` whole lines that are no model's words."""

    def __init__(
        self,
        room: Room,
        seats: Sequence[Seat],
        process: Process,
        *,
        write: Callable[[str], None],
        note: Callable[[str], None],
        how: Sampling,
    ):
        self._room, self._seats, self._process, self._write, self._note, self._how = room, seats, process, write, note, how

    def go(self, read: Callable[[], str]) -> None:
        """Until ``read`` raises EOFError or KeyboardInterrupt, or gives /quit."""
        while True:
            try:
                line = read().strip()
            except (EOFError, KeyboardInterrupt):
                return
            if line in ("/quit", "/exit"):
                return
            if line == "/reset":
                for seat in self._seats:
                    seat.turns.clear()
                self._note("a new conversation")
            elif line.startswith("/"):
                self._note(HELP)
            elif line:
                self._ask(line)

    def _ask(self, question: str) -> None:
        if not self._process.is_open(self._room.base):
            self._note(f"loading {self._room.base.model}")
        for seat in self._seats:
            if len(self._seats) > 1:
                self._write(f"{seat.offer.name}: ")
            turns = [*seat.turns, Turn("human", question)]
            text, whole = self._reply(seat.offer, turns)
            seat.turns = [*turns, Turn("assistant", text)]
            self._write("\n")
            if not whole:
                return  # the models that were not asked have not heard the question

    def _reply(self, offer: Offer, turns: Sequence[Turn]) -> tuple[str, bool]:
        """What the model said, shown as it came, and whether it came to its end."""
        how = self._how
        shown = ""
        prompt = self._room.prompt(offer, turns)
        events = self._process.say(
            self._room.base, offer.adapter, prompt, seed=how.seed, max_new_tokens=how.max_new_tokens, temperature=how.temperature, top_p=how.top_p
        )  # fmt: skip
        try:
            with closing(events):  # a reply that nobody hears to its end is not written to its end
                for event in events:
                    text = CONTROL.sub("", str(event.get("text", "")))
                    text = text if event["event"] == "end" else text.rstrip(TORN)
                    self._write(text[len(shown) :])
                    shown = text
                    if event.get("stop") == "length":
                        self._note(f"[cut after {event['tokens']} tokens; --max-new-tokens]")
        except KeyboardInterrupt:
            self._note("[stopped]")
            return shown, False
        return shown, True
