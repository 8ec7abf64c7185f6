"""The chat process: ``python -m lite.chat.worker``. Requests come as lines of JSON on stdin, events go as lines to stdout.

    {"do": "open", "base": {...}}                    -> {"event": "ready", "device": "cpu"}
    {"do": "say", "id": 1, "adapter": null, "prompt": "...", "seed": 1, "max_new_tokens": 200, "temperature": 1.0, "top_p": 1.0}
                                                     -> {"event": "text", "id": 1, "text": "..."} ... {"event": "end", "id": 1, ...}
    {"do": "stop"}                                   ends what is being said

What goes wrong is an event ``error`` with a message. The process ends when stdin does, and with it goes the memory of the card.
"""

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from lite.engine import load_bank, prepare_environment
from lite.errors import LiteError
from lite.knobs import BaseSpec
from lite.model.bank import AdapterBank
from lite.model.encoding import decode, encode
from lite.model.generate import Decoding, generate
from lite.text.dialogue import STOP

MOST_ADAPTERS = 3
"""As many as there are panes; more would only hold memory."""
EVERY_SECONDS = 0.05


class Talker:
    """One base and the adapters that are on it."""

    def __init__(self, bank: AdapterBank):
        self.bank = bank
        self._roles: dict[Path, str] = {}  # the latest used last

    def role(self, adapter: str | None) -> str | None:
        """The role of an adapter's folder, loaded at first use; the base for None."""
        if adapter is None:
            return None
        folder = Path(adapter)
        name = self._roles.pop(folder, None)
        if name is None:
            while len(self._roles) >= MOST_ADAPTERS:
                oldest = next(iter(self._roles))
                self.bank.drop(self._roles.pop(oldest))
            name = f"chat{time.monotonic_ns()}"
            self.bank.load(name, folder)
        self._roles[folder] = name
        return name

    def say(self, request: dict[str, Any], tell: "Tell", stopped: Callable[[], bool]) -> None:
        """One reply, told as it grows."""
        tokenizer, begun = self.bank.base.tokenizer, time.monotonic()
        ids = encode(tokenizer, request["prompt"])
        told_at = 0.0

        def each(rows: list[list[int]]) -> bool:
            nonlocal told_at
            if time.monotonic() - told_at > EVERY_SECONDS:
                told_at = time.monotonic()
                tell(event="text", id=request["id"], text=readable(decode(tokenizer, rows[0], after=ids[-1])))
            return not stopped()

        decoding = Decoding(int(request["max_new_tokens"]), float(request["temperature"]), float(request["top_p"]))
        found = generate(
            self.bank, self.role(request["adapter"]), [ids], seeds=[int(request["seed"])], decoding=decoding, rows=1, each=each
        )[0]
        reason = "stopped" if stopped() else found.stop
        seconds = round(time.monotonic() - begun, 3)
        tell(event="end", id=request["id"], text=readable(found.text), stop=reason, tokens=len(found.ids), seconds=seconds)


def readable(text: str) -> str:
    """A reply without the stop string at its end, or the part of it that is there so far."""
    for n in range(len(STOP), 0, -1):
        if text.endswith(STOP[:n]):
            return text[:-n].strip()
    return text.strip()


class Tell:
    """Writes events, one line each."""

    def __init__(self, out: TextIO):
        self._out = out

    def __call__(self, **event: Any) -> None:
        print(json.dumps(event, ensure_ascii=False), file=self._out, flush=True)


def serve(requests: TextIO, out: TextIO) -> None:
    """Answer requests until they end. A thread reads ahead, so that a stop is heard while a reply is being written."""
    tell = Tell(out)
    read_id = stopped_id = 0  # a stop ends what was asked for before it, and nothing that is asked for later
    waiting: queue.Queue[dict[str, Any] | None] = queue.Queue()

    def read() -> None:
        nonlocal read_id, stopped_id
        for line in requests:
            request = json.loads(line)
            if request["do"] == "stop":
                stopped_id = read_id
            else:
                read_id = request.get("id", read_id)
                waiting.put(request)
        stopped_id = read_id
        waiting.put(None)

    threading.Thread(target=read, daemon=True).start()
    talker: Talker | None = None
    while (request := waiting.get()) is not None:
        try:
            if request["do"] == "open":
                talker = Talker(load_bank(BaseSpec.model_validate(request["base"])))
                tell(event="ready", device=str(talker.bank.base.device))
            elif talker is None:
                tell(event="error", id=request.get("id"), message="no base is open yet")
            else:
                talker.say(request, tell, lambda id=request["id"]: id <= stopped_id)
        except (LiteError, ValueError, KeyError, RuntimeError) as e:  # RuntimeError: the card is out of memory, above all
            tell(event="error", id=request.get("id"), message=(str(e).strip() or type(e).__name__).splitlines()[0])


def main() -> None:
    prepare_environment(offline=False)
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print must not be taken for an event
    serve(sys.stdin, events)


if __name__ == "__main__":
    main()
