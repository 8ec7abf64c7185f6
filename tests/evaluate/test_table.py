"""The table over runs, on reports written by hand."""

import json

import pytest

from lite import recipe
from lite.evaluate.intervals import seed_interval
from lite.evaluate.sections import sections
from lite.evaluate.table import markdown, of_sections, summarise
from lite.runs.publish import write_json
from lite.runs.read import all_runs


def report(task, seed, *, success, win, labels):
    """RLCD succeeds with ``success`` and wins with ``win`` against all; the accuracies of RLCD's and RLAIF's labels."""
    models = {
        "base": {"success": 0.3, "success_interval": [0.25, 0.35]},
        "rlcd.ppo": {"success": success, "success_interval": [success - 0.05, success + 0.05]},
    }
    heads = [{"first": "rlcd.ppo", "second": "base", "win_rate": win, "interval": [win - 0.1, win + 0.1]}]
    heads += [{"first": "context_dist", "second": "rlcd.ppo", "win_rate": 1 - win, "interval": [0.9 - win, 1.1 - win]}]
    sets = {
        name: {"labels": {"accuracy": x, "interval": [x - 0.03, x + 0.03]}, "pairs": 9}
        for name, x in zip(("rlcd.contrast", "rlaif.score"), labels, strict=True)
    }
    return {
        "models": models,
        "comparisons": heads,
        "rewards": {"rlcd.reward": {"oracle_accuracy": 0.8, "oracle_interval": [0.7, 0.9]}},
        "diagnostics": {"pair_sets": sets},
        "run": {"task": task, "seed": seed},
    }


def add_run(runs, number, found, state="done", *, steps=20, stages=("ppo",), overrides=(), recipe="t"):
    folder = runs / f"202601{number:02d}T000000Z-t-abcdef"
    folder.mkdir()
    write_json(folder / "run.json", {"state": state, "recipe": recipe, "overrides": overrides})
    write_json(folder / "report.json", found)
    for i, id in enumerate(stages, 1):
        identity = {
            "id": id, "kind": "ppo", "version": 1, "seed": found["run"]["seed"], "task": "x", "base": {"weights": "a" * 64, "bits": 4},
            "spec": {"steps": steps, "kl": None}, "inputs": {"start": {"sft": f"fingerprint of {number}"}},
        }  # fmt: skip
        stage = folder / f"stages/{i:02d}-{id}"
        (stage / "out").mkdir(parents=True)
        write_json(stage / "stage.json", {"id": id, "kind": "ppo", "fingerprint": "f", "identity": identity})
    return folder.name


def plain(seed, success=0.8):
    return report("helpful", seed, success=success, win=0.8, labels=(0.9, 0.6))


@pytest.fixture
def runs(tmp_path):
    def add(number, found, state="done"):
        add_run(tmp_path, number, found, state)

    add(1, report("helpful", 17, success=0.1, win=0.1, labels=(0.5, 0.5)))  # an older run of the same task and seed
    for number, (seed, success, win) in enumerate([(17, 0.8, 0.8), (18, 0.9, 0.9), (19, 0.7, 0.7)], 2):
        add(number, report("helpful", seed, success=success, win=win, labels=(0.9, 0.6)))
    add(5, report("harmless", 17, success=0.9, win=0.45, labels=(0.5, 0.52)))
    add(6, report("outline", 17, success=0.9, win=0.5, labels=(0.5, 0.5)), state="failed")
    return all_runs(tmp_path)


def test_seeds_are_summarised_with_students_t(runs):
    found = of_sections(sections(runs))
    assert list(found) == ["harmless", "helpful"]
    assert found["helpful"]["seeds"] == [17, 18, 19]
    success = found["helpful"]["models"]["rlcd.ppo"]["success"]
    assert success["mean"] == pytest.approx(0.8)
    assert success["mean"] - success["low"] == pytest.approx(4.303 * 0.1 / 3**0.5)
    assert success["high"] == 1  # not 1.048: a share cannot be more
    one = found["harmless"]["models"]["rlcd.ppo"]["success"]
    assert one == {"mean": 0.9, "low": pytest.approx(0.85), "high": pytest.approx(0.95)}


def test_it_is_said_where_the_runs_agree_with_the_paper_and_where_not(runs):
    found = of_sections(sections(runs))
    said = {task: {(f["better"], f["worse"]): f["verdict"] for f in t["findings"]} for task, t in found.items()}
    assert said["helpful"]["rlcd.ppo", "base"] == "agrees"  # 0.8 +- 0.25, all above one half
    assert said["helpful"]["rlcd.ppo", "context_dist"] == "agrees"  # told the other way round in the report
    assert said["helpful"]["rlcd.contrast", "rlaif.score"] == "agrees"
    assert said["harmless"]["rlcd.ppo", "base"] == "undecided"
    assert said["harmless"]["rlcd.contrast", "rlaif.score"] == "undecided"
    assert ("rlcd.ppo", "rescore.ppo") not in said["helpful"]  # not tried
    worse = summarise({"helpful": {17: report("helpful", 17, success=0.2, win=0.2, labels=(0.3, 0.6))}})["helpful"]["findings"]
    assert {f["verdict"] for f in worse} == {"disagrees"}


def test_the_page_has_every_model_and_figure(runs):
    page = markdown(of_sections(sections(runs)), "t")
    assert "| rlcd.ppo | 0.800 (0.552 to 1.000) |" in page
    assert "| rlaif.score | 0.600 (0.600 to 0.600) |" in page
    assert "| rlcd.reward | 0.800 (0.700 to 0.900)" in page


def test_the_runs_are_named_and_those_passed_over_counted(tmp_path, cli):
    old = add_run(tmp_path, 1, plain(17, 0.1))
    used = [add_run(tmp_path, n, plain(seed), overrides=(f"seed={seed}", "ppo.batch=8")) for n, seed in ((2, 17), (3, 18))]
    done = cli("table", "t", "--runs", tmp_path)
    assert done.returncode == 0, done.stderr
    assert [f"| {name} | helpful | {seed} | ppo.batch=8 |" in done.stdout for name, seed in zip(used, (17, 18), strict=True)] == [True] * 2
    assert old not in done.stdout and "1 older run was passed over" in done.stdout
    assert done.stderr.strip() == f"written: {tmp_path / 't-table.md'} and {tmp_path / 't-table.json'}"
    assert (tmp_path / "t-table.md").read_text(encoding="utf-8").strip() == done.stdout.strip()
    only = json.loads(cli("table", "t", "--runs", tmp_path, "--run", old, "--run", used[1], "--json").stdout)["helpful"]
    assert ([run["run"] for run in only["runs"]], only["seeds"], only["passed_over"]) == ([old, used[1]], [17, 18], 0)
    assert only["models"]["rlcd.ppo"]["success"]["mean"] == pytest.approx(0.45)


def test_runs_with_other_knobs_are_not_averaged(tmp_path, cli):
    """Three seeds, of which one was run with more steps; what a fingerprint of an input says is no knob."""
    for number, (seed, steps, success) in enumerate([(17, 20, 0.2), (18, 20, 0.4), (19, 50, 0.9)], 1):
        last = add_run(tmp_path, number, plain(seed, success), steps=steps)
    done = cli("table", "t", "--runs", tmp_path, "--json")
    found = json.loads(done.stdout)
    assert {title: s["seeds"] for title, s in found.items()} == {"helpful, ppo.steps=20": [17, 18], "helpful, ppo.steps=50": [19]}
    assert found["helpful, ppo.steps=20"]["models"]["rlcd.ppo"]["success"]["mean"] == pytest.approx(0.3)
    assert found["helpful, ppo.steps=50"]["findings"], "the findings belong to the task, whatever the title"
    assert "helpful: the runs differ in more than their seed" in done.stderr and f"ppo.steps=50: {last}" in done.stderr


def test_a_stage_that_only_some_have_tells_them_apart(tmp_path):
    add_run(tmp_path, 1, plain(17))
    add_run(tmp_path, 2, plain(18), stages=("ppo", "more.ppo"))
    assert list(sections(all_runs(tmp_path))) == ["helpful, no more.ppo", "helpful, ppo as more.ppo"]


def test_a_table_is_made_of_finished_runs_of_the_recipe(tmp_path, cli):
    add_run(tmp_path, 1, plain(17))
    other, failed = add_run(tmp_path, 2, plain(17), recipe="u"), add_run(tmp_path, 3, plain(17), "failed")
    add_run(tmp_path, 4, {"run": {"task": "helpful", "seed": 17}}, recipe="v")
    for words, said in (
        (("t", "--run", other), "a run of u"),
        (("t", "--run", failed), "(failed)"),
        (("v",), "no evaluation"),
        (("w",), "there are: t, u, v"),
    ):
        done = cli("table", *words, "--runs", tmp_path)
        assert done.returncode == 2 and said in done.stderr, done.stderr
    assert not list(tmp_path.glob("*-table.*"))


def test_a_recipe_that_tried_nothing_of_the_paper_is_not_held_against_it(runs):
    plain = report("helpful", 17, success=0.8, win=0.8, labels=(0.9, 0.6))
    plain["models"] = {"base": plain["models"]["base"], "ppo": plain["models"]["rlcd.ppo"]}
    plain |= {"comparisons": [], "diagnostics": {"pair_sets": {"contrast": plain["diagnostics"]["pair_sets"]["rlcd.contrast"]}}}
    summary = summarise({"helpful": {17: plain}})
    assert summary["helpful"]["findings"] == []
    assert "the paper" not in markdown(summary, "t")


def test_three_values_by_hand():
    """mean 2, sd 1, t(2) = 4.303: 2 +- 4.303 / sqrt 3"""
    found = seed_interval([1.0, 2.0, 3.0])
    assert (found.mean, found.high - found.mean) == (2.0, pytest.approx(4.303 / 3**0.5))


def test_a_sweep_is_one_run_per_combination_and_what_is_given_is_not_swept(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text("{task: helpful, sweep: {task: [helpful, outline], seed: [1, 2]}, stages: [prompts]}")
    assert recipe.combinations(file, ["prompts.test=5"])[0] == ('task="helpful"', "seed=1", "prompts.test=5")
    assert len(recipe.combinations(file)) == 4
    assert recipe.combinations(file, ["task=outline", "seed=3"]) == [("task=outline", "seed=3")]
    assert recipe.combinations(file, ["sweep.seed=[3]", "task=outline"]) == [("seed=3", "task=outline")]
    loaded = [recipe.load(file, overrides) for overrides in recipe.combinations(file)]
    assert [(r.task, r.seed) for r in loaded] == [("helpful", 1), ("helpful", 2), ("outline", 1), ("outline", 2)]
    file.write_text("{task: helpful, stages: [prompts]}")
    assert recipe.combinations(file, ["sweep.seed=[1, 2]", "prompts.test=5"]) == [
        ("seed=1", "prompts.test=5"),
        ("seed=2", "prompts.test=5"),
    ]
    with pytest.raises(recipe.RecipeError, match="lists of values by place"):
        recipe.combinations(file, ["sweep.seed=3"])
    file.write_text("{task: helpful, sweep: {seed: 3}, stages: [prompts]}")
    with pytest.raises(recipe.RecipeError, match="lists of values by place"):
        recipe.combinations(file)
