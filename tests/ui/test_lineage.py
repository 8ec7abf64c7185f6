"""The way of a pair from its prompt: candidates, judgements, and which two became the pair."""

import json

import pytest

from lite.runs.read import open_run
from lite.ui import dialogueview, pairs
from lite.ui.lineage import lineage
from tests.ui.conftest import PROMPT, pair_row, write_lines

ROUND = """
base: {model: tiny}
task: helpful
stages:
  - prompts: {train: 6, dev: 2, test: 3}
  - seed: {source: micro}
  - sft: {as: m1, targets: examples, from: {examples: seed}}
  - respond: {from: {policy: m1}, n: 3}
  - judge: {from: {policy: m1}, draws: 2}
  - pair
"""


def candidate(id: str, k: int, text: str) -> dict:
    return {"id": id, "k": k, "prompt": PROMPT, "text": text, "stop": "turn", "tokens": 3}


def judgement(id: str, k: int, draw: int, score: int | None) -> dict:
    return {"id": id, "k": k, "draw": draw, "text": f" because {k}{draw}\nScore: {score}", "stop": "turn", "score": score}


@pytest.fixture
def judged_run(fakes):
    """A run whose pair p1 was chosen from three candidates, two of which could be judged; p10 is another prompt's."""
    run = fakes.go(text=ROUND).run
    out = {record.id: record.folder.out for record in run.stages()}
    write_lines(
        out["respond"] / "candidates.jsonl",
        [
            candidate("p1", 0, " Bad."),
            candidate("p1", 1, " Good."),
            candidate("p1", 2, " Odd."),
            candidate("p10", 0, " Other.") | {"stop": "p1"},
        ],
    )
    scores = [("p1", 0, 0, 1), ("p1", 0, 1, 2), ("p1", 1, 0, 5), ("p1", 1, 1, None), ("p1", 2, 0, None), ("p10", 0, 0, 3)]
    write_lines(out["judge"] / "judgements.jsonl", [judgement(*one) for one in scores])
    write_lines(out["pair"] / "pairs.jsonl", [pair_row(1, chosen=" Good.", rejected=" Bad.", p_plus=PROMPT, p_minus=PROMPT)])
    return open_run(run.folder.path)


def test_candidates_come_best_first_with_what_was_said_of_each(judged_run):
    found = lineage(judged_run, "pair", "p1")
    assert found and found.losers == ()
    assert [(c.k, c.score, [o.score for o in c.opinions]) for c in found.candidates] == [
        (1, 5.0, [5, None]),
        (0, 1.5, [1, 2]),
        (2, None, [None]),
    ]
    assert found.candidates[0].opinions[0].text == " because 10\nScore: 5"


def test_every_step_names_the_model_that_did_it(judged_run):
    found = lineage(judged_run, "pair", "p1")
    assert found and found.steps == (("prompts", ""), ("respond", "m1"), ("judge", "m1"), ("pair", ""))


def test_the_pair_shows_where_it_comes_from_and_no_phrases_that_are_none(judged_run):
    row = pairs.rows(judged_run, "pair")[0]
    shown = dialogueview.pair(row, lineage(judged_run, "pair", "p1"))
    assert "Where this pair comes from" in shown and "5 of 5" in shown and "1.5 of 5" in shown and "not readable" in shown
    assert shown.count("because") == 5 and "p10" not in shown
    assert "p+ (encouraging)" not in shown


def test_pairs_of_contrast_have_phrases_instead(done_run):
    assert lineage(done_run, "contrast", "p1") is None
    assert "p+ (encouraging)" in dialogueview.pair(pairs.rows(done_run, "contrast")[0], None)


@pytest.mark.parametrize("stage", ["nothing", "", "../x", "prompts"])
def test_no_stage_no_lineage(judged_run, stage):
    assert lineage(judged_run, stage, "p1") is None


def test_the_rejected_one_of_an_earlier_model_is_told_apart(judged_run):
    plan = json.loads(judged_run.folder.plan.read_text(encoding="utf-8"))
    pair = next(stage for stage in plan["stages"] if stage["id"] == "pair")
    pair["inputs"] |= {"anchors": "respond", "anchor_judgements": "judge"}
    judged_run.folder.plan.write_text(json.dumps(plan), encoding="utf-8")
    found = lineage(judged_run, "pair", "p1")
    assert found and [c.k for c in found.losers] == [1, 0, 2]
    assert "an earlier model" in dialogueview.pair(pairs.rows(judged_run, "pair")[0], found)
