"""What stands in front of every request: known hosts only, no foreign origin, few login attempts, and headers that keep it so.

Gradio alone answers to any Host (DNS rebinding), takes uploads from any Origin and lets one try passwords without end.
"""

import ipaddress
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

ATTEMPTS, WINDOW_SECONDS = 5, 60.0
MOST_ADDRESSES = 10_000
POLICY = "; ".join((
    "default-src 'self'",
    "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",  # Gradio's own page needs both
    "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data: blob:",  # a picture in a model's text must not call home
    "font-src 'self' data:",
    "connect-src 'self'",
    "worker-src 'self' blob:",
    "object-src 'none'",
    "base-uri 'self'",
    "form-action 'self'",
))  # fmt: skip
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


class Guard:
    """An ASGI middleware. ``hosts``: the names under which the page may be asked for; ``*.example.org`` fits its sub-names.

    ``addresses``: whether bare IP addresses are known too, as they have to be where one listens to a network: rebinding needs a name.
    """

    def __init__(self, app: Any, *, hosts: Iterable[str], addresses: bool = False, clock: Callable[[], float] = time.monotonic):
        self.app, self.hosts, self.addresses, self._clock = app, tuple(host.lower() for host in hosts), addresses, clock
        self._tried: dict[str, deque[float]] = defaultdict(deque)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope.get("headers", ())}
        refusal = self.refuses(scope.get("method", "GET"), scope["path"], headers, (scope.get("client") or ("?",))[0])
        if refusal:
            await _refuse(scope, send, *refusal)
            return

        async def guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        await self.app(scope, receive, guarded)

    def refuses(self, method: str, path: str, headers: dict[str, str], client: str) -> tuple[int, str] | None:
        """Status and reason if a request is not let through."""
        host = name_of(headers.get("host", ""))
        if not self._knows(host):
            return 400, "This page is not served under that name. Use the address that was printed, or name the host with --allow-host."
        origin = headers.get("origin")
        if origin and method not in ("GET", "HEAD") and name_of(urlsplit(origin).netloc) != host:
            return 403, "Requests from other pages are not taken."
        if method == "POST" and path.rstrip("/") == "/login" and self._too_often(client):
            return 429, "Too many attempts to log in; wait a minute."
        return None

    def _knows(self, host: str) -> bool:
        if any(host == known or (known.startswith("*.") and host.endswith(known[1:])) for known in self.hosts):
            return True
        return self.addresses and _is_address(host)

    def _too_often(self, client: str) -> bool:
        if len(self._tried) > MOST_ADDRESSES:
            self._tried.clear()
        tried, now = self._tried[client], self._clock()
        while tried and now - tried[0] > WINDOW_SECONDS:
            tried.popleft()
        tried.append(now)
        return len(tried) > ATTEMPTS


def name_of(netloc: str) -> str:
    """The host of ``host:port``, in lower case, without a port and without brackets."""
    try:
        return urlsplit(f"//{netloc}").hostname or ""
    except ValueError:
        return ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def _refuse(scope: Scope, send: Send, status: int, reason: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": reason})
        return
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain; charset=utf-8"), *HEADERS]})
    await send({"type": "http.response.body", "body": reason.encode()})
