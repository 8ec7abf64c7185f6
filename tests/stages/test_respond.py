"""Candidates on the embedded base."""

from collections import Counter

import pytest

from lite.artifacts import Policy
from lite.knobs import LoraSpec
from lite.knobs.writing import PromptsSpec, RespondSpec
from lite.model.bank import AdapterBank
from lite.model.generate import generate
from lite.stages import drawing
from lite.stages.prompts import prompts
from lite.stages.respond import respond
from lite.text.dialogue import STOP
from lite.text.dialogue import prompt as plain_prompt


@pytest.fixture(scope="module")
def asked(make_bench, folder):
    return prompts(PromptsSpec(train=12, dev=3, test=2), out=folder("prompts"), bench=make_bench("prompts"))


def answer(asked, make_bench, folder, policy=None, **knobs):
    bench = make_bench("respond")
    return respond(RespondSpec(**{"max_new_tokens": 64} | knobs), prompts=asked, policy=policy, out=folder("respond"), bench=bench)


def test_every_plain_prompt_has_its_candidates_and_what_is_missing_is_counted(asked, make_bench, folder):
    found = answer(asked, make_bench, folder, n=3)
    rows, report = found.rows(), found.report()
    plain = {row.id: plain_prompt(row.turns) for row in asked.rows("train")}
    assert len(rows) == report["candidates"] == 36 - sum(report["dropped"].values())
    assert report["complete"] == sum(n == 3 for n in Counter(r.id for r in rows).values()) >= 10
    for row in rows:
        assert row.prompt == plain[row.id]
        assert row.text.strip()
        assert STOP not in row.text
        assert 0 <= row.k < 3
    assert len({(r.id, r.text) for r in rows}) > len({r.id for r in rows})  # candidates of one prompt are draws of their own


def test_batches_prefixes_and_more_candidates_change_no_candidate(asked, make_bench, folder):
    two, four = answer(asked, make_bench, folder, n=2), answer(asked, make_bench, folder, n=4, batch_rows=5, shared_prefix=False)
    assert [r for r in four.rows() if r.k < 2] == two.rows()


def test_greedy_candidates_are_alike_for_batches_of_1_and_16(asked, make_bench, folder):
    one, many = (answer(asked, make_bench, folder, n=1, temperature=0.0, batch_rows=b).rows() for b in (1, 16))
    assert one == many


def test_going_on_after_a_stop_draws_only_what_is_missing_and_ends_with_the_same_bits(asked, make_bench, folder, monkeypatch):
    spec, whole = RespondSpec(max_new_tokens=64, batch_rows=2), answer(asked, make_bench, folder).rows()
    bench, drawn = make_bench("respond"), []

    def count(*positional, **named):
        drawn.append(len(positional[2]))
        if len(drawn) == 3:
            raise RuntimeError("stopped")
        return generate(*positional, **named)

    monkeypatch.setattr(drawing, "generate", count)
    with pytest.raises(RuntimeError, match="stopped"):
        respond(spec, prompts=asked, policy=None, out=folder("stopped"), bench=bench)
    assert respond(spec, prompts=asked, policy=None, out=folder("resumed"), bench=bench).rows() == whole
    assert drawn[:4] == [8, 8, 8, 8]  # the first two shards are not drawn again


def test_another_split_has_its_own_prompts(asked, make_bench, folder):
    assert {r.id for r in answer(asked, make_bench, folder, split="dev").rows()} <= {r.id for r in asked.rows("dev")}


def test_a_limit_that_nothing_meets_leaves_no_candidate_and_says_why(asked, make_bench, folder):
    report = answer(asked, make_bench, folder, max_new_tokens=1, attempts=2).report()
    assert report["candidates"] == report["complete"] == 0
    assert sum(report["dropped"].values()) == 24
    assert report["attempts"] == {"2": 24}


def test_a_policy_that_is_named_writes_the_candidates(asked, make_bench, folder, tiny_bank: AdapterBank):
    tiny_bank.clear()
    tiny_bank.add("policy", LoraSpec(r=4), seed=1)
    for weight in tiny_bank.parameters("policy"):
        weight.data.normal_(std=0.05)
    tiny_bank.save("policy", (path := folder("policy")) / "adapter")
    other = answer(asked, make_bench, folder, policy=Policy(path)).rows()
    assert other != answer(asked, make_bench, folder).rows()
