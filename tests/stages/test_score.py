"""RLAIF and Rescore on the embedded base."""

import math
from dataclasses import replace

import pytest

from lite import tasks, templates
from lite.artifacts import Candidates, Pairs
from lite.errors import ArtifactError, Stopped
from lite.knobs.judging import ScoreSpec
from lite.knobs.writing import ContrastSpec, PromptsSpec, RespondSpec
from lite.model.choice import encode_choice, letter_logprobs
from lite.records import write_rows
from lite.runs.publish import write_json
from lite.stages.contrast import contrast
from lite.stages.prompts import prompts
from lite.stages.respond import respond
from lite.stages.score import score
from lite.text.choosing import choice_prompt, preference
from lite.text.dialogue import closed


@pytest.fixture(scope="module")
def asked(make_bench, folder):
    return prompts(PromptsSpec(train=24, dev=1, test=1), out=folder("prompts"), bench=make_bench("prompts", task="harmless"))


@pytest.fixture(scope="module")
def candidates(asked, make_bench, folder):
    bench = make_bench("respond", task="harmless")
    return respond(RespondSpec(n=3, max_new_tokens=48), prompts=asked, policy=None, out=folder("candidates"), bench=bench)


@pytest.fixture(scope="module")
def contrasted(asked, make_bench, folder):
    return contrast(ContrastSpec(max_new_tokens=48), prompts=asked, out=folder("pairs"), bench=make_bench("contrast", task="harmless"))


@pytest.fixture
def scored(make_bench, folder):
    def make(candidates=None, pairs=None, **knobs):
        bench = make_bench("score", task="harmless")
        return score(ScoreSpec(**knobs), candidates=candidates, pairs=pairs, out=folder("scored"), bench=bench)

    return make


def asks(bank, pair, a, b):
    """The log-odds of the letters for one presentation, asked by hand."""
    text = choice_prompt(
        templates.load("choice"), tasks.load("harmless").phrases[pair.index].principle, dialogue=closed(pair.prompt), a=a, b=b
    )
    return letter_logprobs(bank, [encode_choice(bank.base.tokenizer, text)])[0]


def test_rlaif_labels_are_the_odds_of_the_base_and_the_likelier_is_chosen(candidates, scored, tiny_bank):
    found = scored(candidates)
    rows, report = found.rows(), found.report()
    of_prompt = {}
    for c in candidates.rows():
        of_prompt.setdefault(c.id, []).append(c.text)
    assert len(rows) + sum(report["dropped"].values()) == 24
    assert len({r.index for r in rows}) > 4  # principles at random
    for row in rows:
        assert {row.chosen, row.rejected} == set(of_prompt[row.id][:2])
        assert 0.5 <= row.label <= 1
        assert row.p_plus == row.p_minus == row.prompt
    tiny_bank.clear()
    for row in rows[:6]:  # one order, whichever was drawn
        ways = [
            preference(*asks(tiny_bank, row, row.chosen, row.rejected), "A"),
            preference(*asks(tiny_bank, row, row.rejected, row.chosen), "B"),
        ]
        assert min(abs(row.label - way) for way in ways) < 1e-4


def test_the_improved_preset_means_both_orders_and_stays_near_one_half(candidates, scored, tiny_bank):
    both = scored(candidates, order="both")
    tiny_bank.clear()
    for row in both.rows()[:6]:
        one = preference(*asks(tiny_bank, row, row.chosen, row.rejected), "A")
        other = preference(*asks(tiny_bank, row, row.rejected, row.chosen), "B")
        assert row.label == pytest.approx((one + other) / 2, abs=1e-4)
    improved = scored(candidates, preset="improved")
    assert max(r.label for r in improved.rows()) <= 0.6 + 1e-9
    assert [r.label for r in improved.rows()] != [min(0.6, r.label) for r in both.rows()]  # the examples are read


def test_rescore_turns_pairs_round_and_remembers_where_the_responses_are_from(contrasted, scored, tiny_bank):
    found = scored(pairs=contrasted, what="pairs", order="both")
    old = {p.id: p for p in contrasted.rows()}
    rows, report = found.rows(), found.report()
    assert [r.id for r in rows] == list(old)
    assert 0 < report["turned"] == sum(r.turned for r in rows) / len(rows) < 1
    for row in rows:
        before = old[row.id]
        assert (row.index, row.p_plus, row.p_minus) == (before.index, before.p_plus, before.p_minus)
        assert (row.rejected if row.turned else row.chosen) == before.chosen
        assert row.label >= 0.5


def test_scoring_twice_and_in_other_batches_changes_no_label(candidates, scored):
    rows = scored(candidates, probe=0).rows()
    again = scored(candidates, probe=200, micro_tokens=64).rows()
    assert [replace(r, label=0) for r in rows] == [replace(r, label=0) for r in again]
    assert [r.label for r in rows] == pytest.approx([r.label for r in again], abs=1e-4)


def test_a_stopped_scoring_goes_on_after_what_it_has_asked(candidates, scored, make_bench, folder, monkeypatch):
    monkeypatch.setattr("lite.stages.score.SHARD", 8)
    expected = scored(candidates).rows()
    ckpt = folder("ckpt")
    bench = make_bench("score", task="harmless", ckpt=ckpt)
    object.__setattr__(bench, "stop_asked", lambda: (ckpt / "choices.jsonl").is_file())
    with pytest.raises(Stopped):
        score(ScoreSpec(), candidates=candidates, pairs=None, out=folder("stopped"), bench=bench)
    asked: list[int] = []

    def ask(bank, prompts, **more):
        asked.append(len(prompts))
        return letter_logprobs(bank, prompts, **more)

    monkeypatch.setattr("lite.stages.score.letter_logprobs", ask)
    bench = make_bench("score", task="harmless", ckpt=ckpt)
    assert score(ScoreSpec(), candidates=candidates, pairs=None, out=folder("scored"), bench=bench).rows() == expected
    first = asked.copy()
    scored(candidates)
    assert asked[len(first) + 1 :] == first  # the first shard was not asked again


def test_the_report_tells_how_the_base_chooses(candidates, scored):
    report = scored(candidates, probe=10).report()
    choice = report["choice"]
    assert choice["asked"] == report["pairs"]
    assert choice["asked_twice"] == 10
    assert 0 <= choice["same_position"] <= 1
    assert 0 <= choice["outside"] < 0.2  # the embedded base knows the form
    assert sum(report["polarity"]["histogram"]) == pytest.approx(1)
    assert report["labels"]["decided"] + report["labels"]["tied"] == report["pairs"]
    assert scored(candidates, probe=0).report()["choice"]["same_position"] is None


def test_a_judge_that_only_sees_places_is_found_out(candidates, scored, monkeypatch):
    from lite.model.choice import LetterLogProbs
    from lite.stages import score as module

    monkeypatch.setattr(module, "letter_logprobs", lambda bank, prompts, **k: [LetterLogProbs(math.log(0.6), math.log(0.2))] * len(prompts))
    choice = scored(candidates).report()["choice"]
    assert (choice["same_position"], choice["says_a"]) == (1, 1)
    assert choice["outside"] == pytest.approx(0.2)
    assert {round(r.label, 6) for r in scored(candidates, order="both").rows()} == {0.5}


def test_what_cannot_be_scored_is_counted(candidates, scored, folder):
    path, rows = folder("few"), candidates.rows()
    ids = list(dict.fromkeys(r.id for r in rows))[:3]
    alone, twins, long = ([r for r in rows if r.id == id][:2] for id in ids)
    twins = [twins[0], replace(twins[1], text=twins[0].text)]
    long = [replace(long[0], text=" word" * 600), long[1]]
    write_rows(path / "candidates.jsonl", [alone[0], *twins, *long])
    write_json(path / "report.json", {"prompts": 4})
    report = scored(Candidates(path), max_tokens=256).report()
    assert report["dropped"] == {"missing": 2, "identical": 1, "too_long": 1}
    assert report["pairs"] == 0


def test_length_alone_can_label_as_a_control(contrasted, scored):
    for row in scored(pairs=contrasted, what="pairs", by="length").rows():
        chosen, rejected = len(row.chosen.split()), len(row.rejected.split())
        assert (chosen > rejected, row.label) in ((True, 1.0), (False, 0.5))
        assert chosen >= rejected


def test_a_foreign_index_and_missing_examples_are_said(contrasted, scored, folder):
    path = folder("foreign")
    write_rows(path / "pairs.jsonl", [replace(contrasted.rows()[0], index=16)])
    with pytest.raises(ArtifactError, match="no principle of index 16"):
        scored(pairs=Pairs(path), what="pairs")
    with pytest.raises(ArtifactError, match="shots = 9"):
        scored(pairs=contrasted, what="pairs", shots=9)
