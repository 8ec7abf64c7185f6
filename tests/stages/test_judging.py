"""Judges of an evaluation on replies written by hand: an endpoint that is a stub, and who is compared with whom."""

import pytest

from lite.errors import JudgeError, RecipeError
from lite.knobs.judging import EndpointSpec, PairwiseJudge
from lite.records import Reply
from lite.stages.judging import Known, ask_judges
from tests.evaluate.stub import Desk, Stub, completion, served

DIALOGUES = {f"t{i}": f"\n\nHuman: Question {i}?" for i in range(6)}


@pytest.fixture
def desk(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with served(stub := Stub()) as url:
        yield Desk(stub, url, [])


def replies(model, text, draws=1):
    return [Reply(id, model, draw, "p", f" {text} {id} {draw}", "turn", 5) for id in DIALOGUES for draw in range(draws)]


GROUPS = {"base": replies("base", "a pear", 2), "p_plus": replies("p_plus", "a fine plum", 2), "ppo": replies("ppo", "an apple", 2)}


def judged(specs, make_bench, folder, bench=None, known=None):
    bench = bench or make_bench("evaluate")
    known = known or Known(DIALOGUES, None, oracle=False)
    return ask_judges(specs, GROUPS, known, out=folder("judged"), bench=bench, bank=None)  # type: ignore[arg-type]


def endpoint(desk, **knobs):
    return PairwiseJudge(
        kind="endpoint", endpoint=EndpointSpec(base_url=desk.url, model="stub-1", price_prompt=1.0, price_completion=2.0), **knobs
    )


def test_an_endpoint_is_asked_once_per_pair_and_never_again(desk, make_bench, folder):
    desk.stub.answer = lambda question, n: completion(f"Verdict: {'A' if 'apple' in question.partition('</response_a>')[0] else 'B'}")
    bench, spec = make_bench("evaluate"), endpoint(desk)
    found = judged([spec], make_bench, folder, bench)
    heads = {(f["first"], f["second"]): f for f in found.figures}
    assert set(heads) == {("p_plus", "base"), ("ppo", "base")}
    assert heads["ppo", "base"]["win"] == 1  # the stub likes apples wherever they stand
    assert heads["ppo", "base"]["form"] == "helpful"
    assert len(desk.stub.asked) == len(set(desk.stub.asked)) == len(found.rows) == 12
    assert (found.usage[0]["requests"], found.usage[0]["cost"]) == (12, pytest.approx(12 * (100 * 1.0 + 10 * 2.0) / 1e6))
    again = judged([spec], make_bench, folder, bench)
    assert len(desk.stub.asked) == 12
    assert again.rows == found.rows


def test_an_unreadable_verdict_counts_one_half_and_too_many_stop_the_stage(desk, make_bench, folder):
    desk.stub.answer = lambda question, n: completion("Verdict: A" if "Question 1" in question else "I cannot say.")
    figures = judged([endpoint(desk, readable=0.0)], make_bench, folder).figures[0]
    assert figures["unreadable"] == pytest.approx(5 / 6)
    assert figures["win_rate"] == pytest.approx((2.5 + (figures["win"] > 0)) / 6)
    with pytest.raises(JudgeError, match="only 1 of 6 verdicts could be read"):
        judged([endpoint(desk)], make_bench, folder)


def test_every_model_meets_each_reference_once_and_first_draws_alone(make_bench, folder):
    found = judged([PairwiseJudge(kind="length", versus=("base", "p_plus"), prompts=4)], make_bench, folder)
    assert [(f["first"], f["second"]) for f in found.figures] == [("p_plus", "base"), ("ppo", "base"), ("ppo", "p_plus")]
    assert {row.id for row in found.rows} == {f"t{i}/0" for i in range(4)}


@pytest.mark.parametrize(("kind", "said"), [("oracle", "only the prompts of the embedded world"), ("reward", "no stage before this one")])
def test_a_judge_that_is_not_there_is_said(kind, said, make_bench, folder):
    with pytest.raises(RecipeError, match=said):
        judged([PairwiseJudge(kind=kind)], make_bench, folder)
