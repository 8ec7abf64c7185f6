"""A run's sheet for people and back, through the command line, on a run written by hand."""

import csv
import json

import pytest

from lite.records import HeadToHead, Reply, write_rows
from lite.runs.publish import write_json

PROMPT = "\n\nHuman: Is {} a fruit?\n\nAssistant:"
YES, NO = " Yes, it is.", " No."


@pytest.fixture
def run(tmp_path):
    """Twelve prompts; ppo says yes and base no; the judges compared ppo with base and base with ppo."""
    path = tmp_path / "runs" / "20260101T000000Z-x-abcdef"
    stage = path / "stages/01-evaluate"
    (stage / "out").mkdir(parents=True)
    write_json(path / "run.json", {"state": "done", "recipe": "x"})
    write_json(path / "report.json", {"run": {"seed": 3}})
    (path / "resolved.yaml").write_text("{task: helpful, stages: [prompts]}")
    write_json(stage / "stage.json", {"id": "evaluate", "kind": "evaluate", "fingerprint": "f", "finished": "now", "files": {}})
    ids = [f"test-{i}" for i in range(12)]
    replies = [Reply(id, m, 0, PROMPT.format(id), text, "turn", 3) for m, text in (("base", NO), ("ppo", YES)) for id in ids]
    write_rows(stage / "out/replies.jsonl", replies)
    said = [HeadToHead(f"{id}/0", "ppo", "base", "length", None, "first", []) for id in ids]
    said += [HeadToHead(f"{id}/0", "base", "ppo", "base", "helpful", "first", []) for id in ids]
    write_rows(stage / "out/judgements.jsonl", said)
    return path


def fill(run, rate):
    with (run / "human/human_sheet.csv").open(encoding="utf-8-sig", newline="") as f:
        header, *rows = list(csv.reader(f))
    filled = run / "filled.csv"
    with filled.open("w", encoding="utf-8", newline="") as f:
        csv.writer(f).writerows([header, *([*row[:-1], rate(row)] for row in rows)])
    return filled


def test_a_sheet_goes_out_and_its_ratings_come_back(run, cli):
    written = cli("eval", run, "--human-sheet", "--rows", 10)
    assert written.returncode == 0, written.stderr
    sheet = (run / "human/human_sheet.csv").read_text(encoding="utf-8")
    assert "ppo" not in sheet
    assert "Assistant:" not in sheet
    filled = fill(run, lambda row: 7 if row[3] == YES.strip() else 2)  # B much better where B says yes
    done = cli("eval", run, "--ratings", filled, "--json")
    found = json.loads(done.stdout)
    assert (found["first"], found["second"], found["rated"]) == ("ppo", "base", 10)
    assert found["score_first"]["mean"] + found["score_second"] == 9
    assert found["score_first"]["mean"] == 7
    assert found["preferred"] == 1
    assert found["agreement"]["length"]["accuracy"]["mean"] == 1
    assert found["agreement"]["base (helpful)"]["accuracy"]["mean"] == 0  # it was asked the other way round, and said base
    assert "ppo 7.00" in cli("eval", run, "--ratings", filled).stdout
    assert "already here" in cli("eval", run, "--human-sheet").stderr


def test_it_is_said_which_prompts_have_no_pair(run, cli):
    """Twelve prompts: to four both said the same, and of the other eight only six have a row."""
    file = run / "stages/01-evaluate/out/replies.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row["text"] = NO if int(row["id"].partition("-")[2]) < 4 else row["text"]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    done = cli("eval", run, "--human-sheet", "--rows", 6, "--json")
    assert "6 pairs; 4 prompts had the same reply of both; 2 prompts found no row, --rows gives more" in done.stderr
    assert {name: json.loads(done.stdout)[name] for name in ("pairs", "same_reply", "no_row")} == {"pairs": 6, "same_reply": 4, "no_row": 2}
    for written in (run / "human").iterdir():
        written.unlink()
    assert cli("eval", run, "--human-sheet").stderr.strip() == "8 pairs; 4 prompts had the same reply of both"


def test_what_cannot_be_rated_is_said(run, cli):
    unknown = cli("eval", run, "--human-sheet", "--first", "pppo")
    assert (unknown.returncode, "did you mean 'ppo'" in unknown.stderr) == (2, True)
    assert "against itself" in cli("eval", run, "--human-sheet", "--first", "base").stderr
    assert "one of --human-sheet, --ratings FILE and --suite" in cli("eval", run).stderr
