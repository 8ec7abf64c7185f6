"""Who writes the texts of a stage: a role on the base of this machine, or a server."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol

from lite.evaluate.cache import Answer
from lite.evaluate.completions import Completions, Question
from lite.evaluate.endpoint import Chat
from lite.evaluate.pairwise import Unreadable
from lite.knobs.writing import ServerSpec
from lite.model.bank import AdapterBank
from lite.model.encoding import encode
from lite.model.generate import Decoding
from lite.stages.bench import Bench, Progress
from lite.stages.drawing import BATCHES, draw
from lite.text.clean import StopReason


class Written(NamedTuple):
    text: str  # the stop string included
    stop: StopReason
    tokens: int  # 0 where a server does not tell


@dataclass(frozen=True)
class Wanted:
    """Texts that are wanted: per prompt a key, under which it is made by shard, and a seed. ``groups``: whose prefixes are shared."""

    name: str
    prompts: Sequence[str]
    keys: Sequence[str]
    seeds: Sequence[int]
    decoding: Decoding
    rows: int
    groups: Sequence[int] | None


class Writer(Protocol):
    def write(self, bench: Bench, wanted: Wanted, bar: Progress | None) -> list[Written]:
        """One text per prompt, in their order."""
        ...


class Here:
    """A role on a base that is loaded on this machine."""

    def __init__(self, bank: AdapterBank, role: str | None = None):
        self._bank, self._role = bank, role
        self._encode = lru_cache(maxsize=None)(lambda text: encode(bank.base.tokenizer, text))  # candidates share their prompt

    def write(self, bench: Bench, wanted: Wanted, bar: Progress | None) -> list[Written]:
        ids = [self._encode(text) for text in wanted.prompts]
        found = draw(
            bench, wanted.name, self._bank, self._role, ids, keys=wanted.keys, seeds=wanted.seeds,
            decoding=wanted.decoding, rows=wanted.rows, groups=wanted.groups, bar=bar,
        )  # fmt: skip
        return [Written(g.text, g.stop, len(g.ids)) for g in found]


class Server:
    """A base behind an OpenAI-compatible address. A text that it will not write counts as an empty one: it is rejected, and drawn again."""

    def __init__(self, spec: ServerSpec):
        self._spec = spec

    def write(self, bench: Bench, wanted: Wanted, bar: Progress | None) -> list[Written]:
        spec, decoding = self._spec, wanted.decoding
        assert decoding.stop is not None, "what is accepted ends with the stop string"
        endpoint = Completions(
            spec.base_url,
            spec.model,
            key_env=spec.key_env,
            temperature=decoding.temperature,
            max_tokens=decoding.max_new_tokens,
            timeout=spec.timeout,
            attempts=spec.tries,
            concurrency=spec.concurrency,
            top_p=decoding.top_p,
            stop=decoding.stop,
        )
        chat = Chat(endpoint, cache=bench.ckpt / "answers.jsonl")

        def make(which: list[int]) -> list[Written]:
            def done(n: int) -> None:
                if bar:
                    bar.advance(n)
                bench.pause_inside()  # what is answered is in the cache

            found = chat.ask([Question(wanted.prompts[i], wanted.seeds[i]) for i in which], done=done)
            if refused := [answer for answer in found if isinstance(answer, Unreadable)]:
                bench.log(f"{wanted.name}: {len(refused)} texts were not written ({refused[0].reply})")
            return [_written(answer, endpoint.stop) for answer in found]

        return [Written(*value) for value in bench.by_shard(wanted.name, wanted.keys, make, size=BATCHES * spec.concurrency, bar=bar)]


def _written(answer: object, stop: str) -> Written:
    if not isinstance(answer, Answer):
        return Written("", "length", 0)
    reason: StopReason = "length" if answer.cut else "turn" if stop in answer.text else "eos"
    return Written(answer.text, reason, answer.completion_tokens or 0)
