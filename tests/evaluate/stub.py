"""A chat endpoint on the loopback that says what a test wants it to say, and counts who asked for what."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from lite.evaluate.endpoint import Chat, Endpoint


class Response(NamedTuple):
    status: int
    body: str
    headers: dict[str, str] = {}
    delay: float = 0.0


def completion(text: str | None, *, finish: str = "stop", tokens: tuple[int, int] | None = (100, 10), **message: Any) -> Response:
    found: dict[str, Any] = {"choices": [{"message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}]}
    if tokens:
        found["usage"] = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]}
    return Response(200, json.dumps(found))


class Stub:
    """``answer(question, n)`` gives the response to the n-th time, from 1, that a question is asked."""

    def __init__(self) -> None:
        self.answer: Callable[[str, int], Response] = lambda question, n: completion(
            f"I read it.\nVerdict: {'A' if 'apple' in question else 'B'}"
        )
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.most_at_once = 0
        self._at_once = 0
        self._guard = threading.Lock()

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["content-length"])))
        question = body["prompt"] if "prompt" in body else body["messages"][-1]["content"]
        with self._guard:
            self.asked.append(question)
            self.headers.append(dict(handler.headers))
            self.bodies.append(body)
            self.paths.append(handler.path)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            n = self.asked.count(question)
        response = self.answer(question, n)
        time.sleep(response.delay)
        with self._guard:
            self._at_once -= 1
        payload = response.body.encode()
        try:
            handler.send_response(response.status)
            for name, value in {"content-length": str(len(payload)), **response.headers}.items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(payload)
        except OSError:  # the client did not wait
            pass


class Desk(NamedTuple):
    """The stub, its address, and clients of it that note how long they would have waited."""

    stub: Stub
    url: str
    waits: list[float]

    def endpoint(self, **knobs: Any) -> Endpoint:
        return Endpoint(self.url, "stub-1", **({"timeout": 5.0} | knobs))

    def chat(self, cache: Any = None, **knobs: Any) -> Chat:
        return Chat(self.endpoint(**knobs), cache=cache, wait=self.waits.append)


@contextmanager
def served(stub: Stub) -> Iterator[str]:
    """The address at which the stub answers until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            stub(self)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()
        thread.join()
