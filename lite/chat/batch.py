"""Replies of one model of a run to a file of questions, kept shard by shard: a killed process repeats one shard at most.

The seed of a reply is that of its place (question and turn), the same for every model: batch size, order and resuming change no reply,
and two models are asked under the same chance.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lite.chance import seed_for
from lite.chat.formats import Answer, Question
from lite.chat.offers import Offer, Room
from lite.errors import Stopped
from lite.model.bank import AdapterBank
from lite.model.encoding import encode
from lite.model.generate import Decoding, generate
from lite.runs.publish import file_digest
from lite.runs.shards import Shards, divide
from lite.text.clean import decode_reply
from lite.text.dialogue import Turn

ROLE = "asked"
BATCHES = 4
"""Batches in a shard."""


@dataclass(frozen=True)
class Drawing:
    seed: int
    temperature: float
    top_p: float
    max_new_tokens: int
    rows: int = 64  # decoded at once: speed only


def journal_of(out: Path, room: Room, offer: Offer, drawing: Drawing) -> Path:
    """Where unfinished work for ``out`` is kept: another model, base or way of drawing has another file."""
    adapter = {f.name: file_digest(f) for f in sorted(offer.adapter.iterdir()) if f.is_file()} if offer.adapter else {}
    how = {key: value for key, value in asdict(drawing).items() if key != "rows"}
    told = json.dumps([room.base.model_dump(mode="json"), room.task, offer.prompted, adapter, how], sort_keys=True)
    return out.with_name(f".{out.name}.{hashlib.sha256(told.encode()).hexdigest()[:12]}.part")


def answer(
    bank: AdapterBank,
    room: Room,
    offer: Offer,
    questions: Sequence[Question],
    drawing: Drawing,
    journal: Path,
    *,
    done: Callable[[int], None] = lambda n: None,
    stop_asked: Callable[[], bool] = lambda: False,
) -> list[Answer]:
    """The replies to all questions, in their order; those that ``journal`` holds are taken from there.

    done: told the number of questions that are answered
    Raises :class:`Stopped` between two shards if the user asked for it.
    """
    shards = Shards(journal)
    keys = [question.key for question in questions]
    done(sum(key in shards.rows for key in keys))
    if offer.adapter:
        bank.load(ROLE, offer.adapter)
    try:
        for shard in divide(len(questions), BATCHES * drawing.rows):
            todo = [i for i in shard if keys[i] not in shards.rows]
            if todo:
                if stop_asked():
                    raise Stopped
                made = _replies(bank, room, offer, [questions[i] for i in todo], drawing)
                shards.add({keys[i]: replies for i, replies in zip(todo, made, strict=True)})
                done(len(todo))
    finally:
        if offer.adapter:
            bank.drop(ROLE)
    found = [shards.rows[key] for key in keys]
    return [
        Answer(q, *(tuple(column) for column in zip(*told, strict=True)), seed=_seed(drawing, q, 0))
        for q, told in zip(questions, found, strict=True)
    ]


def _seed(drawing: Drawing, question: Question, turn: int) -> int:
    return seed_for(drawing.seed, "generate", question.id, turn)


def _replies(
    bank: AdapterBank, room: Room, offer: Offer, questions: Sequence[Question], drawing: Drawing
) -> list[list[tuple[str, str, int]]]:  # fmt: skip
    """(reply, why it ended, tokens) of every turn of every question."""
    dialogues = [list(question.turns) for question in questions]
    found: list[list[tuple[str, str, int]]] = [[] for _ in questions]
    for turn in range(max(1 + len(question.later) for question in questions)):
        asked = [i for i, question in enumerate(questions) if turn <= len(question.later)]
        for i in asked if turn else ():
            dialogues[i] += [Turn("assistant", found[i][-1][0]), Turn("human", questions[i].later[turn - 1])]
        written = generate(
            bank,
            ROLE if offer.adapter else None,
            [encode(bank.base.tokenizer, room.prompt(offer, dialogues[i])) for i in asked],
            seeds=[_seed(drawing, questions[i], turn) for i in asked],
            decoding=Decoding(drawing.max_new_tokens, drawing.temperature, drawing.top_p),
            rows=drawing.rows,
        )
        for i, reply in zip(asked, written, strict=True):
            found[i].append((decode_reply(reply.text), reply.stop, len(reply.ids)))
    return found
