"""Pairs and candidates that a server writes: a stub that runs the tiny base, or says what goes wrong."""

import json
import threading

import pytest
from pydantic import ValidationError

from lite import recipe
from lite.errors import PreconditionError, RecipeError
from lite.evaluate import completions
from lite.evaluate.completions import Completions, Question
from lite.evaluate.endpoint import Chat
from lite.knobs.writing import ContrastSpec, PromptsSpec, RespondSpec
from lite.model.encoding import encode
from lite.model.generate import Decoding, generate
from lite.plan import plan
from lite.stages.contrast import contrast
from lite.stages.prompts import prompts
from lite.stages.respond import respond
from tests.evaluate.stub import Response, Stub, served


def said(text, finish="stop", **more):
    return Response(200, json.dumps({"choices": [{"text": text, "finish_reason": finish, **more}], "usage": {"completion_tokens": 7}}))


@pytest.fixture(scope="module")
def asked(make_bench, folder):
    return prompts(PromptsSpec(train=6, dev=1, test=1), out=folder("prompts"), bench=make_bench("prompts"))


@pytest.fixture
def server(tiny_bank):
    """An address behind which the tiny base goes on with texts, and leaves the stop string out as servers do."""
    stub, one_at_a_time = Stub(), threading.Lock()

    def answer(prompt: str, n: int) -> Response:
        with one_at_a_time:
            body = next(b for b in reversed(stub.bodies) if b["prompt"] == prompt and not b.get("answered"))
            body["answered"] = True
            decoding = Decoding(body["max_tokens"], body["temperature"], body["top_p"], body["stop"][0])
            found = generate(tiny_bank, None, [encode(tiny_bank.base.tokenizer, prompt)], seeds=[body["seed"]], decoding=decoding)[0]
        reasons = {"turn": ("stop", body["stop"][0]), "eos": ("stop", None), "length": ("length", None)}
        finish, reason = reasons[found.stop]
        return said(found.text.partition(body["stop"][0])[0], finish, stop_reason=reason)

    stub.answer = answer
    with served(stub) as url:
        yield stub, url


def unloaded():
    raise AssertionError("a base was loaded, and the server is to write")


def test_a_server_with_the_same_base_writes_the_same_pairs(asked, make_bench, folder, server, monkeypatch):
    stub, url = server
    monkeypatch.setattr(completions, "SEEDS", 2**63)  # the seeds that this machine draws with
    knobs = {"max_new_tokens": 40, "attempts": 2}
    here = contrast(ContrastSpec(**knobs), prompts=asked, out=folder("here"), bench=make_bench("contrast"))
    spec = ContrastSpec(**knobs, server={"base_url": url, "model": "tiny", "concurrency": 3})
    bench = make_bench("contrast", load_bank=unloaded)
    there = contrast(spec, prompts=asked, out=folder("there"), bench=bench)
    assert there.rows() == here.rows()
    assert stub.most_at_once <= 3
    assert set(stub.paths) == {"/v1/completions"}
    n = len(stub.asked)
    again = contrast(spec, prompts=asked, out=folder("again"), bench=make_bench("contrast", ckpt=bench.ckpt, load_bank=unloaded))
    assert again.rows() == there.rows()
    assert len(stub.asked) == n  # what a stopped stage has asked is not asked again


def test_candidates_of_a_server_have_their_own_seeds_and_tokens(asked, make_bench, folder, server):
    stub, url = server
    spec = RespondSpec(n=2, max_new_tokens=24, attempts=1, server={"base_url": url, "model": "tiny"})
    found = respond(spec, prompts=asked, policy=None, out=folder("candidates"), bench=make_bench("respond", load_bank=unloaded))
    assert len({body["seed"] for body in stub.bodies}) == 12
    assert all(row.tokens == 7 for row in found.rows())
    with pytest.raises(RecipeError, match="cannot be seen from here"):
        respond(spec, prompts=asked, policy=object(), out=folder("no"), bench=make_bench("respond"))  # type: ignore[arg-type]


def test_a_busy_server_is_asked_again_and_a_deaf_one_ends_the_stage(asked, make_bench, folder, monkeypatch):
    monkeypatch.setattr("lite.evaluate.endpoint.FIRST_WAIT", 0.0)
    stub = Stub()
    stub.answer = lambda prompt, n: Response(503, "busy") if n == 1 else said(" Yes.\n")
    with served(stub) as url:
        spec = ContrastSpec(attempts=1, server={"base_url": url, "model": "m"})
        found = contrast(spec, prompts=asked, out=folder("busy"), bench=make_bench("contrast", load_bank=unloaded))
        assert found.report()["dropped"]["identical"] == 6  # both sides say the same
        assert len(stub.asked) == 24
    with pytest.raises(PreconditionError, match="nobody answers"):
        contrast(
            ContrastSpec(server={"base_url": url, "model": "m"}),
            prompts=asked,
            out=folder("deaf"),
            bench=make_bench("contrast", load_bank=unloaded),
        )


@pytest.mark.parametrize(
    ("choice", "text", "cut"),
    [
        ({"text": " a", "finish_reason": "stop"}, " a\n\nHuman:", False),
        ({"text": " a", "finish_reason": "stop", "stop_reason": "\n\nHuman:"}, " a\n\nHuman:", False),
        ({"text": " a", "finish_reason": "stop", "stop_reason": None}, " a", False),
        ({"text": " a", "finish_reason": "stop", "matched_stop": 2}, " a", False),
        ({"text": " a\n\nHuman:", "finish_reason": "stop"}, " a\n\nHuman:", False),
        ({"text": " a", "finish_reason": "length"}, " a", True),
    ],
)
def test_why_a_text_ended(choice, text, cut):
    found = Completions("http://127.0.0.1:1/v1", "m").read(json.dumps({"choices": [choice]}))
    assert (found.text, found.cut) == (text, cut)


def test_a_question_is_told_apart_by_all_that_decides_its_answer():
    one = Completions("http://127.0.0.1:1/v1", "m", temperature=1.0)
    keys = {one.key_of(Question("a", 1)), one.key_of(Question("a", 2)), one.key_of(Question("b", 1))}
    keys.add(Completions("http://127.0.0.1:1/v1", "m", temperature=1.0, top_p=0.9).key_of(Question("a", 1)))
    assert len(keys) == 4
    assert Completions("http://127.0.0.1:9/v1", "m", temperature=1.0).key_of(Question("a", 1)) in keys


RECIPE = """
task: helpful
stages:
  - prompts: {train: 6}
  - contrast: {server: {base_url: "http://127.0.0.1:8000/v1", model: big}}
  - reward
"""


def test_the_base_of_the_run_is_no_part_of_what_a_server_writes():
    def nodes(*overrides):
        return {node.id: node.fingerprint for node in plan(recipe.loads(RECIPE, overrides, name="small"))}

    first, other = nodes(), nodes("base.quantize=none")
    assert first["contrast"] == other["contrast"] == nodes("contrast.server.base_url=http://127.0.0.1:9/v1")["contrast"]
    assert first["reward"] != other["reward"]
    assert first["contrast"] != nodes("contrast.server.model=bigger")["contrast"]
    with pytest.raises(RecipeError, match="exclude each other"):
        nodes("contrast.base.model=tiny")


def test_what_a_server_writes_takes_no_memory_of_this_card():
    from lite.fit.estimate import estimate
    from lite.fit.ways import ways

    text = RECIPE.replace("- reward", "- reward: {checkpointing: true}")
    big = recipe.loads(text, ["base.model=huggyllama/llama-7b", "contrast.batch_rows=4096"], name="small")
    fits = {fit.id: fit for fit in estimate(big, plan(big), card_gib=8)}
    assert all(fit.fits for fit in fits.values())
    assert not any("contrast" in way for way in ways(big, plan(big), 6))


SECRET_URLS = [
    "http://u:secretpass@host/v1",
    "https://u:secretpass@host/v1?key=secretpass",
    "http://host/v1?api_key=secretpass",
    "http://host/v1#secretpass",
    "u:secretpass@host/v1",
    "host/v1?key=secretpass",
    "http://[/v1?key=secretpass",
]
ASKING = {
    "contrast": "- contrast: {server: %s}",
    "respond": "- respond: {server: %s}",
    "judges[0]": "- evaluate: {judges: [{kind: endpoint, endpoint: %s}]}",
}


@pytest.mark.parametrize("stage", ASKING)
@pytest.mark.parametrize("url", SECRET_URLS)
def test_an_address_that_may_hold_a_key_is_refused_with_the_recipe_and_not_shown(stage, url):
    for server in (
        f'{{base_url: "{url}", model: m}}',
        f'{{base_url: "{url}"}}',
        f'"{url}"',
        f'{{base_url: ["{url}"], model: m, tries: 0}}',
    ):
        with pytest.raises(RecipeError, match=r"stages\[1\]") as e:
            recipe.loads(f"task: helpful\nstages:\n  - prompts\n  {ASKING[stage] % server}\n", name="small")
        assert "base_url" in str(e.value) or server.startswith('"')
        assert "secretpass" not in str(e.value), server


def test_nor_is_it_shown_where_something_else_is_wrong():
    text = "task: helpful\nstages:\n  - prompts\n  - evaluate: {judges: [{kind: reward, endpoint: {base_url: 'http://u:secretpass@h', model: m}}]}\n"
    for text_or_override in ((text, []), (RECIPE, ["contrast.server.base_url=http://u:secretpass@h/v1"])):
        with pytest.raises(RecipeError) as e:
            recipe.loads(*text_or_override, name="small")
        assert "secretpass" not in str(e.value)
    with pytest.raises(ValidationError, match="leave out everything but the address") as refused:
        ContrastSpec(server={"base_url": "http://u:secretpass@h/v1", "model": "m"})
    assert "secretpass" not in str(refused.value)
    for server in ("{base_url: secretpass, model: m}", "{base_url: secretpass}"):
        with pytest.raises(RecipeError, match="no address") as e:
            recipe.loads(f"task: helpful\nstages:\n  - prompts\n  - contrast: {{server: {server}}}\n", name="small")
        assert "secretpass" not in str(e.value)


def test_a_server_is_refused_a_policy_when_the_recipe_is_read():
    text = RECIPE + '  - ppo\n  - respond: {from: {policy: ppo}, server: {base_url: "http://h/v1", model: m}}\n'
    with pytest.raises(
        RecipeError, match=r"stages\[4\]\.server \(respond\): whether it writes with 'ppo' \(policy\) cannot be seen from here"
    ):
        recipe.loads(text, name="small")
    assert recipe.loads(text, ["respond.server=null"], name="small")
    assert recipe.loads(text.replace("from: {policy: ppo}, ", ""), name="small")


def test_a_missing_key_is_the_writing_servers(monkeypatch):
    monkeypatch.delenv("THE_KEY", raising=False)
    endpoint = Completions("http://127.0.0.1:1/v1", "writer", key_env="THE_KEY")
    with pytest.raises(PreconditionError, match=r"THE_KEY is not set: it should hold the key of writer at http://127.0.0.1:1/v1"):
        Chat(endpoint).ask([Question("a", 1)])
