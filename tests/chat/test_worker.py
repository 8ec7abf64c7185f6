"""The chat process on the tiny base: the base's pane is the base, replies grow, stops are heard, errors are told."""

import io
import itertools
import json
import os
import queue
import subprocess
import sys
import threading
import time

import pytest
import torch

from lite.chat import worker
from lite.chat.process import ChatProcess
from lite.engine import load_bank
from lite.errors import PreconditionError
from lite.knobs import BaseSpec, LoraSpec
from lite.model.encoding import encode
from lite.model.generate import Decoding, generate

PROMPTS = ["\n\nHuman: How do I sew a shirt?\n\nAssistant:", "\n\nHuman: Where can I fly a kite?\n\nAssistant:"]


@pytest.fixture(scope="module")
def bank():
    return load_bank(BaseSpec())


@pytest.fixture
def adapters(bank, tmp_path):
    """Two adapters that are far from the base."""
    folders = []
    for i in (1, 2):
        bank.add("made", LoraSpec(r=4), seed=i)
        with torch.no_grad():
            for p in bank.parameters("made"):
                p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(i)) * 0.2)
        bank.save("made", tmp_path / f"a{i}")
        bank.drop("made")
        folders.append(tmp_path / f"a{i}")
    yield folders
    bank.clear()


def request(prompt: str, adapter=None, *, id: int = 1, seed: int = 7, most: int = 24) -> dict:
    where = str(adapter) if adapter else None
    return {
        "do": "say",
        "id": id,
        "adapter": where,
        "prompt": prompt,
        "seed": seed,
        "max_new_tokens": most,
        "temperature": 1.0,
        "top_p": 1.0,
    }


def said(talker: worker.Talker, asked: dict, stopped=lambda: False) -> list[dict]:
    out = io.StringIO()
    talker.say(asked, worker.Tell(out), stopped)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def logits(bank, prompt: str) -> torch.Tensor:
    with bank.using(None), torch.inference_mode():
        ids = torch.tensor([encode(bank.base.tokenizer, prompt)])
        return bank.trunk(input_ids=ids).last_hidden_state @ bank.vocabulary.T


def test_the_pane_of_the_base_is_the_base_exactly(bank, adapters):
    """Not the tuned model with another name: with two adapters loaded and just used, the base gives its own reply, bit for bit."""
    before = [logits(bank, prompt) for prompt in PROMPTS]
    plain = [
        generate(bank, None, [encode(bank.base.tokenizer, prompt)], seeds=[7], decoding=Decoding(24), rows=1)[0].text for prompt in PROMPTS
    ]
    talker = worker.Talker(bank)
    for prompt, reply, was in zip(PROMPTS, plain, before, strict=True):
        tuned = [said(talker, request(prompt, adapter))[-1]["text"] for adapter in adapters]
        assert said(talker, request(prompt))[-1]["text"] == worker.readable(reply)
        assert float((logits(bank, prompt) - was).abs().max()) == 0.0
        assert worker.readable(reply) not in tuned


def test_the_same_seed_gives_the_same_reply_and_another_one_another(bank):
    talker = worker.Talker(bank)
    one, same, other = (said(talker, request(PROMPTS[0], seed=seed, most=40))[-1] for seed in (7, 7, 8))
    assert one["text"] == same["text"] and one["text"] != other["text"]


def test_a_reply_grows(bank, monkeypatch):
    monkeypatch.setattr(worker, "EVERY_SECONDS", 0.0)
    events = said(worker.Talker(bank), request(PROMPTS[0]))
    texts = [event["text"] for event in events if event["event"] == "text"]
    assert len(texts) > 3 and all(after.startswith(before) for before, after in itertools.pairwise(texts))
    assert events[-1]["event"] == "end" and events[-1]["text"].startswith(texts[-1])


def test_a_stop_ends_a_reply_where_it_is(bank):
    whole = said(worker.Talker(bank), request(PROMPTS[1]))[-1]
    cut = said(worker.Talker(bank), request(PROMPTS[1]), stopped=lambda: True)[-1]
    assert cut["stop"] == "stopped" and cut["tokens"] == 1 < whole["tokens"]


def test_no_more_adapters_are_kept_than_there_are_panes(bank, adapters, monkeypatch):
    monkeypatch.setattr(worker, "MOST_ADAPTERS", 1)
    talker = worker.Talker(bank)
    for adapter in (*adapters, adapters[0]):
        talker.role(str(adapter))
        assert len(bank.names) == 1


@pytest.mark.parametrize(
    ("text", "read"), [("Hi.\n\nHuman:", "Hi."), ("Hi.\n\nHum", "Hi."), ("Hi.\n", "Hi."), ("Hi. H", "Hi. H"), ("", "")]
)
def test_the_stop_string_is_not_shown_nor_its_beginning(text, read):
    assert worker.readable(text) == read


def serve(monkeypatch, *requests: dict) -> list[dict]:
    monkeypatch.setattr(worker, "load_bank", lambda spec: (_ for _ in ()).throw(PreconditionError("no such model; look at its name")))
    out = io.StringIO()
    worker.serve(io.StringIO("".join(json.dumps(r) + "\n" for r in requests)), out)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_errors_are_events(monkeypatch):
    found = serve(monkeypatch, {"do": "open", "base": {"model": "x"}}, request("hello", id=4), {"do": "open", "base": {"modell": "x"}})
    assert [event["event"] for event in found] == ["error"] * 3
    assert "look at its name" in found[0]["message"] and found[1]["id"] == 4


def test_the_process_answers_and_its_end_is_told():
    chat = ChatProcess()
    try:
        events = list(chat.say(BaseSpec(), None, PROMPTS[0], seed=7, max_new_tokens=8, temperature=1.0, top_p=1.0))
        assert events[-1]["event"] == "end" and chat.is_open(BaseSpec()) and chat.device == "cpu"
        pid = chat.pid
        assert pid is not None
        chat.stop()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        assert not chat.alive
    finally:
        chat.stop()


def test_a_process_that_dies_is_told_of(monkeypatch):
    chat = ChatProcess()
    monkeypatch.setattr("lite.chat.process.sys.executable", "/bin/false")
    with pytest.raises(PreconditionError, match="has ended"):
        list(chat.say(BaseSpec(), None, "x", seed=1, max_new_tokens=1, temperature=1.0, top_p=1.0))
    chat.stop()


def test_who_stops_listening_ends_the_reply(monkeypatch):
    """A tab that is closed in the middle: the generator is closed, and the worker hears a stop."""
    chat, sent = ChatProcess(), []
    events: queue.Queue = queue.Queue()
    for event in ({"event": "text", "id": 1, "text": "a"}, {"event": "text", "id": 1, "text": "ab"}):
        events.put(event)
    monkeypatch.setattr(ChatProcess, "alive", property(lambda self: True))
    monkeypatch.setattr(chat, "_base", BaseSpec())
    monkeypatch.setattr(chat, "_events", events)
    monkeypatch.setattr(chat, "_send", lambda **request: sent.append(request["do"]))
    reply = chat.say(BaseSpec(), None, "x", seed=1, max_new_tokens=9, temperature=1.0, top_p=1.0)
    next(reply)
    reply.close()
    assert sent == ["say", "stop"] and not chat.busy


def test_a_stop_ends_what_came_before_it_only(monkeypatch):
    """Two replies: a stop that comes before the second one is asked for does not end it."""
    begun, finish, seen = threading.Event(), threading.Event(), []

    class Slow:
        bank = type("B", (), {"base": type("X", (), {"device": "cpu"})})

        def __init__(self, bank): ...

        def say(self, asked, tell, stopped):
            if asked["id"] == 1:
                begun.set()
                finish.wait(5)
            seen.append((asked["id"], stopped()))

    monkeypatch.setattr(worker, "load_bank", lambda spec: None)
    monkeypatch.setattr(worker, "Talker", Slow)
    read, write = os.pipe()
    requests = os.fdopen(read)
    thread = threading.Thread(target=worker.serve, args=(requests, io.StringIO()))
    thread.start()
    with requests, os.fdopen(write, "w") as pipe:
        for line in ({"do": "open", "base": {}}, request("a", id=1)):
            print(json.dumps(line), file=pipe, flush=True)
        begun.wait(5)
        print(json.dumps({"do": "stop"}), file=pipe, flush=True)
        time.sleep(0.2)
        finish.set()
        print(json.dumps(request("b", id=2)), file=pipe, flush=True)
        until = time.monotonic() + 5
        while len(seen) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        pipe.close()
        thread.join(5)
    assert seen == [(1, True), (2, False)]


def test_importing_the_client_brings_no_torch():
    code = "import sys, lite.chat.process, lite.chat.offers; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
