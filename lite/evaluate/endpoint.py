"""A chat model behind an OpenAI-compatible address (OpenAI itself, vLLM, SGLang, llama.cpp, Ollama ...), asked many times.

What can go wrong, and who must act:

1. 408, 409, 425, 429, 5xx, a time-out or a lost connection: asked again after a growing, jittered wait, or the one that the
   server names (``Retry-After``); after ``attempts`` the question is unreadable (no answer);
2. a refusal, a filter, an answer that is no chat completion, a request that the server rejects for its text (400, 413, 422): the
   question is unreadable, with the reason;
3. nobody listens, the key is missing or wrong, the model is unknown, the money is spent, the address leads elsewhere, or
   ``GIVE_UP`` questions in a row came to nothing: a PreconditionError, since asking on would not help.

The key is read from an environment variable when a question is asked. It is in no field, file, message or representation.
"""

import json
import os
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from lite.errors import PreconditionError, RecipeError
from lite.evaluate.cache import Answer, AnswerCache, key_of
from lite.evaluate.pairwise import Unreadable
from lite.knobs import addresses
from lite.runs.journal import clean

if TYPE_CHECKING:
    import httpx

Message: TypeAlias = Mapping[str, str]
Asked: TypeAlias = Any
"""What an endpoint is asked: messages here, a text to go on with in :mod:`lite.evaluate.completions`."""

AGAIN = frozenset({408, 409, 425, 429, *range(500, 600)})
REJECTED = frozenset({400, 413, 422})
GIVE_UP = 5
FIRST_WAIT, LONGEST_WAIT, CONNECT_SECONDS = 1.0, 120.0, 10.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    base_url: str
    """up to the part before ``/chat/completions``, e.g. http://127.0.0.1:8000/v1"""
    model: str
    key_env: str | None = None
    """name of the environment variable that holds the key; none: no key is sent"""
    temperature: float | None = 0.0
    """none: not sent, for models that take no temperature"""
    max_tokens: int = 1024
    limit_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """what the server calls its limit of new tokens"""
    timeout: float = 120.0
    """seconds until a question is asked again"""
    attempts: int = 6
    concurrency: int = 4
    """questions under way at once"""
    price_prompt: float | None = None
    """per million tokens, in any currency"""
    price_completion: float | None = None

    def __post_init__(self) -> None:
        problems = [f"base_url: {problem}" for problem in addresses.problems(self.base_url)]
        problems += [f"{name}: should be at least 1" for name in ("max_tokens", "attempts", "concurrency") if getattr(self, name) < 1]
        if problems:
            raise RecipeError("endpoint", problems)

    @property
    def url(self) -> str:
        return self.base_url.rstrip("/") + "/chat/completions"

    def body(self, messages: Asked) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self.model, "messages": [dict(m) for m in messages], self.limit_name: self.max_tokens}
        return body if self.temperature is None else body | {"temperature": self.temperature}

    def read(self, body: str) -> "Answer | Unreadable":
        """The answer in what the server sent."""
        return read_completion(body)

    def key_of(self, messages: Asked) -> str:
        """The identity of a question. The same model behind another address gives the same answer."""
        return key_of(model=self.model, messages=[dict(m) for m in messages], temperature=self.temperature, max_tokens=self.max_tokens)


@dataclass(frozen=True, slots=True)
class Usage:
    """What was asked of the server since the client was made; ``cached`` questions cost nothing."""

    requests: int = 0
    retries: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    unmetered: int = 0
    """answers whose tokens the server did not tell"""

    def cost(self, endpoint: Endpoint) -> float | None:
        """In the currency of the endpoint's prices; None without them, or where the server did not tell all tokens."""
        if endpoint.price_prompt is None or endpoint.price_completion is None or self.unmetered:
            return None
        return (self.prompt_tokens * endpoint.price_prompt + self.completion_tokens * endpoint.price_completion) / 1e6


@dataclass(frozen=True, slots=True)
class Again:
    """Not answered, but may be: why, and how long the server asks to wait."""

    why: str
    after: float | None = None


def read_response(status: int, headers: Mapping[str, str], body: str, endpoint: Endpoint) -> Answer | Unreadable | Again:
    """What one response of the server means; a PreconditionError where every other question would fare the same."""
    said = " ".join(clean(body).split())[:300]
    if status == 429 and "insufficient_quota" in body:
        raise PreconditionError(f"{endpoint.url}: the account has no quota left (429: {said})")
    if status in AGAIN:
        return Again(f"{status}: {said}", retry_after(headers.get("retry-after"), time.time()))
    if status in REJECTED:
        return Unreadable(f"{status}: {said}", "rejected")
    if status in (401, 403):
        key = f"is the right key in the variable {endpoint.key_env}?" if endpoint.key_env else "name the variable that holds a key: key_env"
        raise PreconditionError(f"{endpoint.url}: not allowed ({status}: {said}); {key}")
    if status != 200:
        where = f" to {clean(headers['location'])}" if "location" in headers else ""
        raise PreconditionError(f"{endpoint.url}: {status}{where}: {said or 'no text'}; are base_url and model ({endpoint.model}) right?")
    return endpoint.read(body)


def read_completion(body: str) -> Answer | Unreadable:
    """The answer in a chat completion."""
    try:
        found = json.loads(body)
        choice = found["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason")
        text, refusal = message.get("content"), message.get("refusal")
        usage = found.get("usage") or {}
        tokens = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return Unreadable(body[:2000], "malformed")
    refused = bool(refusal) or finish == "content_filter"
    if text is None and (refused or finish == "length"):
        text = refusal if isinstance(refusal, str) else ""
    if not isinstance(text, str):
        return Unreadable(body[:2000], "malformed")
    prompt_tokens, completion_tokens = (n if isinstance(n, int) else None for n in tokens)
    return Answer(text, cut=finish == "length", refused=refused, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)


def retry_after(value: str | None, now: float) -> float | None:
    """The seconds to wait of a Retry-After header, which names seconds or a date."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - now
        except ValueError:
            return None
    return max(0.0, seconds) if seconds < float("inf") else None


class Chat:
    """Asks one endpoint; answers are kept in the cache file, so that going on after a stop repeats no answered question."""

    def __init__(self, endpoint: Endpoint, *, cache: Path | None = None, wait: Callable[[float], object] | None = None):
        self.endpoint, self.cache = endpoint, AnswerCache(cache)
        self.usage = Usage()
        self._stop = threading.Event()
        self._wait = wait or self._stop.wait
        self._guard = threading.Lock()
        self._reached = False
        self._in_vain = 0

    def ask(self, questions: Sequence[Asked], *, done: Callable[[int], None] = lambda n: None) -> list[Answer | Unreadable]:
        """The answers, in the order of the questions. ``done`` is called in this thread with the number newly answered; what it
        raises ends the asking, and what is answered stays in the cache."""
        keys = [self.endpoint.key_of(messages) for messages in questions]
        answers: dict[str, Answer | Unreadable] = {}
        for key in keys:
            if found := self.cache.get(key):
                answers[key] = found
        known = sum(key in answers for key in keys)
        self._count(cached=known)
        open_ = {key: messages for key, messages in zip(keys, questions, strict=True) if key not in answers}
        if known:
            done(known)
        if open_:
            self._ask_all(open_, answers, lambda key: done(keys.count(key)))
        return [answers[key] for key in keys]

    def _ask_all(self, open_: Mapping[str, Asked], answers: dict[str, Answer | Unreadable], done: Callable[[str], None]) -> None:
        self._stop.clear()
        with self._client() as client, ThreadPoolExecutor(self.endpoint.concurrency, "lite-judge") as pool:
            futures = {pool.submit(self._ask, client, key, messages): key for key, messages in open_.items()}
            try:
                for future in as_completed(futures):
                    key = futures[future]
                    answers[key] = future.result()
                    done(key)
            except BaseException:
                self._stop.set()  # who waits wakes up, and nobody asks on
                raise

    def _client(self) -> "AbstractContextManager[httpx.Client]":
        import httpx

        headers = {"Authorization": f"Bearer {key}"} if (key := self._key()) else {}
        limits = httpx.Limits(max_connections=self.endpoint.concurrency)
        timeout = httpx.Timeout(self.endpoint.timeout, connect=min(self.endpoint.timeout, CONNECT_SECONDS))
        return httpx.Client(headers=headers, limits=limits, timeout=timeout, follow_redirects=False)

    def _key(self) -> str | None:
        name = self.endpoint.key_env
        if not name:
            return None
        key = os.environ.get(name, "").strip()
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            why = "holds no key that could be sent" if key else "is not set"
            whose = f"{self.endpoint.model} at {self.endpoint.base_url}"
            raise PreconditionError(f"the environment variable {name} {why}: it should hold the key of {whose}")
        return key

    def _ask(self, client: "httpx.Client", key: str, messages: Asked) -> Answer | Unreadable:
        """One question to its end, in a thread of its own; what concerns every question stops the others too."""
        try:
            found = self._patiently(client, messages)
            if isinstance(found, Answer) or not self._stop.is_set():
                self._take(key, found)
        except PreconditionError:
            self._stop.set()
            raise
        return found

    def _patiently(self, client: "httpx.Client", messages: Asked) -> Answer | Unreadable:
        last = Again("")
        for attempt in range(self.endpoint.attempts):
            if attempt:
                if last.after is not None and last.after > LONGEST_WAIT:
                    break
                self._count(retries=1)
                self._wait(_delay(attempt, last.after))
            if self._stop.is_set():
                break
            found = self._once(client, messages)
            if not isinstance(found, Again):
                return found
            last = found
        return Unreadable(last.why, "no_answer")

    def _once(self, client: "httpx.Client", messages: Asked) -> Answer | Unreadable | Again:
        import httpx

        self._count(requests=1)
        try:
            response = client.post(self.endpoint.url, json=self.endpoint.body(messages))
        except httpx.RequestError as e:
            why = f"{type(e).__name__}: {e}".removesuffix(": ")
            if isinstance(e, httpx.ConnectError | httpx.ConnectTimeout) and not self._reached:
                raise PreconditionError(f"{self.endpoint.url}: nobody answers there ({why}); start the server, or mend base_url") from e
            return Again(why)
        self._reached = True
        secret = self._key()
        body = response.text.replace(secret, "<secret>") if secret else response.text
        return read_response(response.status_code, response.headers, body, self.endpoint)

    def _take(self, key: str, found: Answer | Unreadable) -> None:
        """Keep an answer; of questions in vain, count how many there were since the last one."""
        if isinstance(found, Answer):
            self.cache.put(key, found)
            known = found.prompt_tokens is not None and found.completion_tokens is not None
            self._count(prompt_tokens=found.prompt_tokens or 0, completion_tokens=found.completion_tokens or 0, unmetered=not known)
        with self._guard:
            self._in_vain = 0 if isinstance(found, Answer) else self._in_vain + 1
            in_vain = self._in_vain
        if isinstance(found, Unreadable) and in_vain >= GIVE_UP:
            raise PreconditionError(
                f"{self.endpoint.url}: {in_vain} questions in a row came to nothing (the last: {clean(found.reply)[:300] or found.why}); "
                f"{len(self.cache)} answers are kept and will not be asked for again"
            )

    def _count(self, **more: int) -> None:
        with self._guard:
            self.usage = replace(self.usage, **{name: getattr(self.usage, name) + n for name, n in more.items()})


def _delay(attempt: int, after: float | None) -> float:
    """Seconds before attempt 1, 2 ...: between a half and the whole of 1, 2, 4 ..., or a little more than the server asks for."""
    if after is not None:
        return after + random.uniform(0, FIRST_WAIT)
    return min(LONGEST_WAIT, FIRST_WAIT * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0)
