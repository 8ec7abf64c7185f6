import json
import logging
import socket
import subprocess
import sys
import time
from email.utils import formatdate

import pytest

from lite.errors import PreconditionError, RecipeError
from lite.evaluate import endpoint as room
from lite.evaluate.cache import Answer
from lite.evaluate.endpoint import Again, Chat, Endpoint, Usage, read_completion, read_response, retry_after
from lite.evaluate.pairwise import Unreadable
from tests.evaluate.stub import Response, Stub, completion, served

KEY = "zq-4f1b7c99e0d2a6835b"


def say(*texts):
    return [[{"role": "user", "content": text}] for text in texts]


def first_times(*responses):
    """These responses to the first times that a question is asked, then an answer."""
    return lambda question, n: responses[n - 1] if n <= len(responses) else completion("Verdict: A")


def texts(answers):
    return [a.text if isinstance(a, Answer) else a.why for a in answers]


def test_answers_come_in_the_order_of_the_questions(desk):
    desk.stub.answer = lambda question, n: completion(question.upper())._replace(delay=0.15 if question == "one" else 0)
    assert texts(desk.chat().ask(say("one", "two", "three"))) == ["ONE", "TWO", "THREE"]


def test_what_is_sent(desk):
    desk.chat().ask(say("hello"))
    body = {"model": "stub-1", "messages": [{"role": "user", "content": "hello"}], "temperature": 0.0, "max_tokens": 1024}
    assert desk.stub.bodies == [body]
    assert desk.stub.paths == ["/v1/chat/completions"]
    assert "authorization" not in {name.lower() for name in desk.stub.headers[0]}


def test_models_without_a_temperature_can_be_asked(desk):
    desk.chat(temperature=None, limit_name="max_completion_tokens", max_tokens=7).ask(say("hello"))
    assert "temperature" not in desk.stub.bodies[0]
    assert desk.stub.bodies[0]["max_completion_tokens"] == 7
    assert "max_tokens" not in desk.stub.bodies[0]


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 529])
def test_a_busy_server_is_asked_again(desk, status):
    desk.stub.answer = first_times(Response(status, "busy"), Response(status, "busy"))
    chat = desk.chat()
    assert texts(chat.ask(say("q"))) == ["Verdict: A"]
    assert len(desk.stub.asked) == 3
    assert (chat.usage.requests, chat.usage.retries) == (3, 2)


def test_waits_grow_and_are_jittered(desk):
    desk.stub.answer = first_times(*[Response(503, "")] * 5)
    desk.chat().ask(say("q"))
    assert len(desk.waits) == 5
    for wait, whole in zip(desk.waits, (1, 2, 4, 8, 16), strict=True):
        assert whole / 2 <= wait <= whole
    assert len({wait / whole for wait, whole in zip(desk.waits, (1, 2, 4, 8, 16), strict=True)}) == 5


def test_the_server_may_name_the_wait(desk):
    desk.stub.answer = first_times(Response(429, "", {"retry-after": "37"}))
    desk.chat().ask(say("q"))
    assert 37 <= desk.waits[0] <= 38


def test_the_server_may_name_the_wait_by_a_date():
    assert retry_after(formatdate(1_000_030, usegmt=True), 1_000_000) == 30
    assert retry_after(formatdate(999_000, usegmt=True), 1_000_000) == 0
    assert retry_after("2.5", 0) == 2.5
    assert retry_after("-3", 0) == 0
    for nonsense in (None, "soon", "", "inf", "nan"):
        assert retry_after(nonsense, 0) is None


def test_nobody_waits_for_an_hour(desk):
    desk.stub.answer = first_times(Response(429, "", {"retry-after": "3600"}))
    assert texts(desk.chat().ask(say("q"))) == ["no_answer"]
    assert desk.waits == []


def test_after_the_last_attempt_a_question_has_no_answer_and_is_open_again_next_time(desk, tmp_path):
    cache = tmp_path / "answers.jsonl"
    desk.stub.answer = lambda question, n: Response(500, "broken") if question == "bad" else completion("fine")
    answers = desk.chat(cache, attempts=3).ask(say("good", "bad"))
    assert texts(answers) == ["fine", "no_answer"]
    assert "500: broken" in answers[1].reply
    assert desk.stub.asked.count("bad") == 3
    desk.stub.answer = lambda question, n: completion("mended")
    assert texts(desk.chat(cache).ask(say("good", "bad"))) == ["fine", "mended"]
    assert desk.stub.asked.count("good") == 1


def test_a_server_that_says_nothing_is_asked_again(desk):
    desk.stub.answer = first_times(Response(200, "late", delay=1.2))
    chat = desk.chat(timeout=0.4)
    assert texts(chat.ask(say("q"))) == ["Verdict: A"]
    assert chat.usage.retries >= 1


def test_a_lost_connection_is_made_anew(desk):
    desk.stub.answer = first_times(Response(200, "{}", {"content-length": "5000"}))
    assert texts(desk.chat().ask(say("q"))) == ["Verdict: A"]
    assert len(desk.stub.asked) == 2


def test_refusals_filters_and_cut_answers_are_told_apart(desk):
    said = {
        "refused": completion(None, refusal="I won't."),
        "filtered": completion("Well, Verdict", finish="content_filter"),
        "cut": completion("The first one\nVerdict: A", finish="length"),
        "thought too long": completion(None, finish="length"),
        "answered": completion("ok"),
    }
    desk.stub.answer = lambda question, n: said[question]
    refused, filtered, cut, empty, answered = desk.chat().ask(say(*said))
    assert (refused.refused, refused.text) == (True, "I won't.")
    assert filtered.refused
    assert cut.cut
    assert not cut.refused
    assert (empty.cut, empty.text) == (True, "")
    assert not answered.cut
    assert not answered.refused


@pytest.mark.parametrize(
    "body",
    [
        "", "<html>hello</html>", "[]", "null", "3", "{}", '{"choices": []}', '{"choices": [{}]}', '{"choices": null}', '{"choices": [null]}',
        '{"choices": [{"message": null}]}', '{"choices": [{"message": {}}]}', '{"choices": [{"message": {"content": 5}}]}',
        '{"choices": [{"message": {"content": null}}]}', '{"choices": [{"message": {"content": "a"}}], "usage": [1]}', '{"choices": [{"mess',
    ],
)  # fmt: skip
def test_what_is_no_completion_is_malformed(body):
    assert read_completion(body) == Unreadable(body, "malformed")


def test_one_malformed_answer_is_counted_and_asked_for_again_next_time(desk, tmp_path):
    cache = tmp_path / "answers.jsonl"
    desk.stub.answer = lambda question, n: Response(200, '{"choices": [{"mess') if (question, n) == ("torn", 1) else completion("ok")
    assert texts(desk.chat(cache).ask(say("a", "torn", "b"))) == ["ok", "malformed", "ok"]
    assert texts(desk.chat(cache).ask(say("a", "torn", "b"))) == ["ok", "ok", "ok"]
    assert sorted(desk.stub.asked) == ["a", "b", "torn", "torn"]


def test_a_question_that_the_server_rejects_is_not_repeated(desk):
    desk.stub.answer = lambda question, n: Response(400, "context too long") if question == "long" else completion("ok")
    answers = desk.chat().ask(say("short", "long", "brief"))
    assert texts(answers) == ["ok", "rejected", "ok"]
    assert "context too long" in answers[1].reply
    assert len(desk.stub.asked) == 3


def test_many_questions_in_vain_end_the_asking(desk):
    desk.stub.answer = lambda question, n: Response(400, "no such parameter: temperature")
    with pytest.raises(PreconditionError, match=r"5 questions in a row came to nothing.*temperature"):
        desk.chat(concurrency=1).ask(say(*map(str, range(50))))
    assert len(desk.stub.asked) == room.GIVE_UP


def test_an_answer_in_between_starts_the_count_anew(desk):
    desk.stub.answer = lambda question, n: completion("ok") if int(question) % room.GIVE_UP == 0 else Response(400, "no")
    answers = desk.chat(concurrency=1).ask(say(*map(str, range(30))))
    assert texts(answers).count("rejected") == 24


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (Response(401, "bad key"), r"not allowed \(401: bad key\)"),
        (Response(403, "no"), "not allowed"),
        (Response(404, "no model stub-1"), r"404: no model stub-1; are base_url and model \(stub-1\) right"),
        (Response(429, '{"error": {"code": "insufficient_quota"}}'), "no quota left"),
        (Response(307, "", {"location": "http://elsewhere/"}), "307 to http://elsewhere/"),
        (Response(204, ""), "204: no text"),
    ],
)
def test_what_concerns_every_question_is_a_precondition(desk, response, message):
    desk.stub.answer = lambda question, n: response
    with pytest.raises(PreconditionError, match=message):
        desk.chat(concurrency=1).ask(say("a", "b"))
    assert len(desk.stub.asked) == 1


def test_nobody_listens():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    waits = []
    with pytest.raises(PreconditionError, match="nobody answers there"):
        Chat(Endpoint(f"http://127.0.0.1:{port}/v1", "m"), wait=waits.append).ask(say("q"))
    assert waits == []


def test_a_server_that_goes_away_is_waited_for(desk):
    """Once it has answered it is known to be there: it may come back."""
    with served(Stub()) as url:
        chat = Chat(Endpoint(url, "m", attempts=3), wait=desk.waits.append)
        assert texts(chat.ask(say("a"))) == ["I read it.\nVerdict: B"]
    assert texts(chat.ask(say("b"))) == ["no_answer"]
    assert len(desk.waits) == 2


def test_questions_run_side_by_side_but_not_more_than_allowed(desk):
    desk.stub.answer = lambda question, n: completion("ok")._replace(delay=0.1)
    desk.chat(concurrency=3).ask(say(*map(str, range(12))))
    assert 2 <= desk.stub.most_at_once <= 3


def test_equal_questions_are_asked_once(desk):
    told = []
    assert texts(desk.chat().ask(say("q", "r", "q"), done=told.append)) == ["I read it.\nVerdict: B"] * 3
    assert sorted(desk.stub.asked) == ["q", "r"]
    assert sorted(told) == [1, 2]


def test_going_on_repeats_no_answered_question(desk, tmp_path):
    cache = tmp_path / "cache" / "answers.jsonl"

    class Stopped(Exception):
        pass

    told = []

    def stop_at_four(n):
        told.append(n)
        if len(told) == 4:
            raise Stopped

    questions = say(*map(str, range(20)))
    desk.stub.answer = lambda question, n: completion(f"answer {question}")._replace(delay=0.02)
    with pytest.raises(Stopped):
        desk.chat(cache, concurrency=2).ask(questions, done=stop_at_four)
    before = len(desk.stub.asked)
    assert 4 <= before < 20  # cancelled, not asked to the end
    told_again = []
    chat = desk.chat(cache)
    assert texts(chat.ask(questions, done=told_again.append)) == [f"answer {i}" for i in range(20)]
    assert sum(told_again) == 20
    assert sorted(desk.stub.asked) == sorted(map(str, range(20)))  # each one once, over both
    assert chat.usage.cached == before
    assert chat.usage.requests == 20 - before


def test_a_stop_wakes_those_who_wait(desk):
    desk.stub.answer = lambda question, n: completion("ok") if question == "quick" else Response(503, "", {"retry-after": "100"})
    chat = Chat(desk.endpoint(concurrency=2))  # really waits

    def stop(n):
        raise KeyboardInterrupt

    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        chat.ask(say("slow", "quick", *map(str, range(20))), done=stop)
    assert time.monotonic() - begun < 30  # not 100
    assert desk.stub.asked.count("slow") <= 1


def test_what_decides_an_answer_is_its_identity():
    one = Endpoint("http://a/v1", "m")
    q = say("q")[0]
    assert one.key_of(q) == Endpoint("https://b:8000/v1", "m", key_env="K", timeout=1, concurrency=9).key_of(q)
    others = [Endpoint("http://a/v1", "n"), Endpoint("http://a/v1", "m", temperature=0.5), Endpoint("http://a/v1", "m", max_tokens=9)]
    assert (
        len({one.key_of(q), one.key_of(say("r")[0]), one.key_of([{"role": "system", "content": "q"}])} | {o.key_of(q) for o in others}) == 6
    )


def test_tokens_and_their_price(desk, tmp_path):
    cache = tmp_path / "answers.jsonl"
    prices = {"price_prompt": 2.0, "price_completion": 8.0}
    chat = desk.chat(cache, **prices)
    chat.ask(say("a", "b"))
    assert (chat.usage.prompt_tokens, chat.usage.completion_tokens) == (200, 20)
    assert chat.usage.cost(chat.endpoint) == pytest.approx((200 * 2 + 20 * 8) / 1e6)
    assert chat.usage.cost(desk.endpoint()) is None
    again = desk.chat(cache, **prices)
    again.ask(say("a", "b"))
    assert again.usage == Usage(cached=2)
    assert again.usage.cost(again.endpoint) == 0


def test_a_server_that_tells_no_tokens_has_no_known_price(desk):
    desk.stub.answer = lambda question, n: completion("ok", tokens=None)
    chat = desk.chat(price_prompt=1.0, price_completion=1.0)
    chat.ask(say("a"))
    assert chat.usage.unmetered == 1
    assert chat.usage.cost(chat.endpoint) is None


def test_the_key_goes_to_the_server_and_nowhere_else(desk, tmp_path, monkeypatch, caplog, capfd):
    """A server that throws the key back in an answer, in an error, and in a refused question."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MY_JUDGE_KEY", f"  {KEY}\n")
    echo = {
        "answer": completion(f"your key is {KEY}"),
        "reject": Response(400, f"key {KEY} is odd"),
        "malformed": Response(200, f"{{{KEY}"),
    }
    desk.stub.answer = lambda question, n: echo[question]
    chat = desk.chat(tmp_path / "answers.jsonl", key_env="MY_JUDGE_KEY")
    answers = chat.ask(say(*echo))
    assert {h["Authorization"] for h in desk.stub.headers} == {f"Bearer {KEY}"}
    desk.stub.answer = lambda question, n: Response(401, f"wrong key {KEY}")
    with pytest.raises(PreconditionError, match="MY_JUDGE_KEY") as e:
        chat.ask(say("x"))
    files = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert "your key is <secret>" in files
    shown = [files, repr(answers), str(e.value), repr(chat.endpoint), str(vars(chat)), caplog.text, *capfd.readouterr()]
    assert not [text for text in shown if KEY in text]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "is not set"),
        ("", "is not set"),
        (" \n", "is not set"),
        ("sk\nx", "holds no key"),
        ("clé", "holds no key"),
        ("a b", "holds no key"),
    ],
)
def test_a_key_that_cannot_be_sent_is_named_but_not_shown(desk, monkeypatch, value, message):
    monkeypatch.delenv("MY_JUDGE_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("MY_JUDGE_KEY", value)
    with pytest.raises(PreconditionError, match=f"MY_JUDGE_KEY {message}") as e:
        desk.chat(key_env="MY_JUDGE_KEY").ask(say("q"))
    assert not value or not value.strip() or value not in str(e.value)
    assert desk.stub.asked == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8000/v1",
        "ftp://host/v1",
        "http://",
        "http://host:port/v1",
        "http://u:secretpass@host/v1",
        "u:secretpass@host/v1",
        "host/v1?key=secretpass",
        "host/v1#secretpass",
        "http://host/v1?api_key=secretpass",
        "file:///etc/passwd",
    ],
)
def test_an_address_that_is_none_or_holds_a_secret_is_refused(url):
    with pytest.raises(RecipeError, match="base_url") as e:
        Endpoint(url, "m")
    assert "secretpass" not in str(e.value)


def test_all_problems_of_an_endpoint_at_once():
    with pytest.raises(RecipeError, match=r"4 problem") as e:
        Endpoint("nowhere", "m", max_tokens=0, attempts=0, concurrency=0)
    assert e.value.exit_code == 2


def test_redirects_are_not_followed(desk):
    """They would carry questions, and perhaps a key, to another host."""
    desk.stub.answer = lambda question, n: Response(308, "", {"location": f"{desk.url}/other"}) if n == 1 else completion("stolen")
    with pytest.raises(PreconditionError, match="308"):
        desk.chat().ask(say("q"))
    assert len(desk.stub.asked) == 1


def test_nothing_to_ask_asks_nobody():
    assert Chat(Endpoint("http://127.0.0.1:1/v1", "m", key_env="NOT_THERE")).ask([]) == []


def test_status_meanings_are_pure():
    endpoint = Endpoint("http://h/v1", "m")
    assert read_response(503, {}, "x  y", endpoint) == Again("503: x y", None)
    assert read_response(429, {"retry-after": "4"}, "", endpoint) == Again("429: ", 4.0)
    assert isinstance(read_response(413, {}, "", endpoint), Unreadable)
    assert read_response(200, {}, completion("t").body, endpoint) == Answer("t", prompt_tokens=100, completion_tokens=10)


def test_httpx_and_torch_are_not_loaded_with_the_room():
    code = "import sys, lite.evaluate.endpoint, lite.evaluate.human; print(json.dumps([m for m in ('httpx', 'torch', 'numpy') if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", f"import json; {code}"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
