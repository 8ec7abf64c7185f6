"""The commands for what comes after a run, as a user calls them."""

import json

from lite.after import UNTRAINED
from lite.chat.offers import can_chat
from lite.runs import read
from lite.runs.publish import write_json

PAIR = {"id": "p0", "prompt": "\n\nHuman: Hi\n\nAssistant:", "chosen": " Hello.", "rejected": " No.", "label": 1.0}


def run_with_pairs(fakes):
    run = fakes.go().run
    out = next(record for record in run.stages() if record.id == "contrast").folder.out
    (out / "pairs.jsonl").write_text(json.dumps(PAIR) + "\n", encoding="utf-8")
    write_json(out / "report.json", {"pairs": 1})
    return run


def test_export_prints_where_it_is_and_json_on_request(fakes, cli, tmp_path):
    run = run_with_pairs(fakes)
    done = cli("export", run.name, "--what", "dataset", "--to", tmp_path / "out", "--offline", "--runs", fakes.folder)
    assert (done.returncode, done.stdout.strip()) == (0, str(tmp_path / "out")), done.stderr
    told = json.loads(cli("export", run.name, "--what", "dataset", "--offline", "--json", "--runs", fakes.folder).stdout)
    assert set(told["files"]) == {"README.md", "lite.json", "recipe.yaml", "train.jsonl"} and told["pushed"] is None


def test_mistakes_in_an_export_have_exit_code_2(fakes, cli):
    run = run_with_pairs(fakes)
    for words, said in (
        (("--what", "everything"), "there are: adapter"),
        (("--what", "dataset", "--stage", "ppo"), "finished stages that fit: contrast"),
        (("--push", "me/x", "--offline"), "--offline forbids it"),
        (("--push", "me/x"), "not on the Hub"),
    ):
        done = cli("export", run.name, *words, "--runs", fakes.folder)
        assert done.returncode == 2 and said in done.stderr, (words, done.stderr)


def test_latest_is_the_newest_run_that_has_what_is_asked_for(fakes, cli, tmp_path):
    whole = fakes.go().run
    fakes.stages.fail["ppo"] = KeyboardInterrupt()
    pairs_only = run_with_pairs(fakes)
    fakes.stages.fail["prompts"] = KeyboardInterrupt()
    empty = fakes.go().run
    (tmp_path / "q.txt").write_text("Hi\n", encoding="utf-8")

    def said(*words):
        return cli(*words, "--runs", fakes.folder).stderr

    assert read.find(fakes.folder, "latest").name == empty.name
    assert read.find(fakes.folder, "latest", fits=can_chat).name == whole.name
    assert read.find(fakes.folder, "latest", fits=lambda run: False).name == empty.name
    passed_over = f"the newest run with what is asked for (the newest of all is {empty.name}, stopped)"
    assert f"{pairs_only.name}: {passed_over}" in said("export", "latest", "--what", "dataset", "--offline")
    assert f"{whole.name}: {passed_over}" in said("export", "latest", "--what", "adapter", "--offline")
    assert f"{whole.name}: {passed_over}" in said("eval", "latest", "--human-sheet")
    assert f"{whole.name}: {passed_over}" in said("eval", "latest", "--suite", f"reward-bench:{tmp_path / 'none'}")
    assert f"{whole.name}: {passed_over}" in said(
        "generate", "latest", "--prompts", tmp_path / "q.txt", "--out", tmp_path / "none" / "a.jsonl"
    )
    assert UNTRAINED in said("generate", empty.name, "--prompts", tmp_path / "q.txt", "--out", tmp_path / "none" / "a.jsonl")
    assert "the newest run" not in said("export", whole.name, "--what", "adapter", "--offline")
