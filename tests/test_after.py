"""The commands for what comes after a run, as a user calls them."""

import json

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
