"""A base model behind an OpenAI-compatible address, asked to go on with texts: ``/completions`` of vLLM, SGLang, llama.cpp and others.

Retries, waits, keys, the cache of answers and what counts as hopeless are those of :mod:`lite.evaluate.endpoint`. Three things are
particular to texts that are gone on with:
1. every text has a seed, so that asking again, or in another order, asks for the same (as far as the server keeps to seeds: its
   batches change last bits);
2. servers leave the stop string out, and a dialogue that ended needs it: it is put back;
3. "stop" may mean the stop string or the end-of-text token. vLLM tells by ``stop_reason``, SGLang by ``matched_stop``: a string, or
   not. A server that tells nothing is believed to have found the stop string.
"""

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

from lite.evaluate.cache import Answer, key_of
from lite.evaluate.endpoint import Endpoint
from lite.evaluate.pairwise import Unreadable
from lite.text.dialogue import STOP

SEEDS = 2**31
"""Seeds are sent below this: llama.cpp keeps 32 bits."""
TELLS = ("stop_reason", "matched_stop")


class Question(NamedTuple):
    prompt: str
    seed: int


@dataclass(frozen=True, slots=True)
class Completions(Endpoint):
    top_p: float = 1.0
    stop: str = STOP

    @property
    def url(self) -> str:
        return self.base_url.rstrip("/") + "/completions"

    def body(self, messages: Question) -> dict[str, Any]:
        return {"model": self.model, **self._drawn(messages)}

    def key_of(self, messages: Question) -> str:
        return key_of(model=self.model, completion=True, **self._drawn(messages))

    def read(self, body: str) -> Answer | Unreadable:
        try:
            found = json.loads(body)
            choice = found["choices"][0]
            text, finish = choice["text"], choice.get("finish_reason")
            usage = found.get("usage") or {}
            tokens = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
            told = [choice[name] for name in TELLS if name in choice]
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            return Unreadable(body[:2000], "malformed")
        if not isinstance(text, str):
            return Unreadable(body[:2000], "malformed")
        if finish == "stop" and self.stop not in text and (not told or isinstance(told[0], str)):
            text += self.stop
        prompt_tokens, completion_tokens = (n if isinstance(n, int) else None for n in tokens)
        return Answer(text, cut=finish == "length", prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)

    def _drawn(self, question: Question) -> dict[str, Any]:
        """All that decides the text, but for the model."""
        return {
            "prompt": question.prompt,
            "seed": question.seed % SEEDS,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "stop": [self.stop],
        }
