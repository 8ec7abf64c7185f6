"""A conversation with up to three models at once: who sits in which pane, what each is asked, and what a vote leaves behind."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from lite.chat.offers import BASE, Offer, Room
from lite.runs.journal import append_line, now
from lite.runs.publish import dumps
from lite.runs.read import Run
from lite.text.dialogue import Turn

PANES = 3
LETTERS = "ABC"


@dataclass(frozen=True)
class Exchange:
    """One question and the replies to it, by pane; ``stops`` says how each ended."""

    question: str
    seed: int
    replies: tuple[str, ...]
    stops: tuple[str, ...] = ()


@dataclass(frozen=True)
class Talk:
    """``seats``: the model of each pane. ``blind``: whether panes are letters until a vote."""

    run: str = ""
    seats: tuple[str, ...] = ()
    blind: bool = False
    exchanges: tuple[Exchange, ...] = ()
    prompts: tuple[str, ...] = ()
    voted: bool = field(default=False)

    def label(self, pane: int) -> str:
        return f"Model {LETTERS[pane]}" if self.blind and not self.voted else self.seats[pane]


def defaults(room: Room) -> tuple[str, ...]:
    """The base beside the newest trained model."""
    trained = [offer.name for offer in room.offers if offer.adapter]
    return (BASE, *trained[-1:])


def seat(talk: Talk, run: str, names: Sequence[str], blind: bool) -> Talk:
    """The same conversation if the same models sit in it, else a new one; a blind one draws who sits where."""
    if talk.run == run and sorted(talk.seats) == sorted(names) and talk.blind == blind and talk.exchanges:
        return talk
    order = random.sample(list(names), len(names)) if blind else list(names)
    return Talk(run, tuple(order), blind)


def turns(talk: Talk, pane: int, question: str) -> list[Turn]:
    """What one pane's model has seen: each model goes on from its own replies."""
    past = [turn for e in talk.exchanges for turn in (Turn("human", e.question), Turn("assistant", e.replies[pane]))]
    return [*past, Turn("human", question)]


def ask(talk: Talk, room: Room, question: str, seed: int) -> tuple[Talk, list[tuple[Offer, str]]]:
    """The conversation with an open question, and the model and prompt of every pane."""
    asked = [(offer, room.prompt(offer, turns(talk, i, question))) for i, name in enumerate(talk.seats) if (offer := room.offer(name))]
    blank = tuple("" for _ in asked)
    begun = Exchange(question, seed, blank, blank)
    return replace(talk, exchanges=(*talk.exchanges, begun), prompts=tuple(prompt for _, prompt in asked), voted=False), asked


def heard(talk: Talk, pane: int, text: str, stop: str = "") -> Talk:
    last = talk.exchanges[-1]
    replies = tuple(text if i == pane else old for i, old in enumerate(last.replies))
    stops = tuple(stop if i == pane else old for i, old in enumerate(last.stops))
    return replace(talk, exchanges=(*talk.exchanges[:-1], replace(last, replies=replies, stops=stops)))


def without_last(talk: Talk) -> Talk:
    return replace(talk, exchanges=talk.exchanges[:-1], voted=False)


def vote(talk: Talk, run: Run, room: Room, winner: int) -> int:
    """Add a preference row for every reply that lost, in TRL's format, to the run's votes; how many were added."""
    last = talk.exchanges[-1]
    plain = Offer(BASE, "")
    added = 0
    for loser, reply in enumerate(last.replies):
        if loser == winner or not reply or not last.replies[winner] or reply == last.replies[winner]:
            continue
        row = {
            "at": now(),
            "prompt": room.prompt(plain, turns(replace(talk, exchanges=talk.exchanges[:-1]), winner, last.question)),
            "chosen": f" {last.replies[winner]}",
            "rejected": f" {reply}",
            "chosen_model": talk.seats[winner],
            "rejected_model": talk.seats[loser],
            "seed": last.seed,
            "blind": talk.blind,
        }
        append_line(run.folder.votes, dumps(row))
        added += 1
    return added
