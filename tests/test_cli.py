"""The shipped command line in a process of its own: what it prints where, its exit codes, and how quick it is."""

import json
import resource
import sys

import pytest

from lite.recipe import built_in
from lite.runs.env import version_of

HEAVY = ("torch", "transformers", "peft", "bitsandbytes", "trl", "datasets", "rich")
THREE_MISTAKES = """
task: helpful
stages:
  - prompts: {train: 0}
  - contrast: {atempts: 3}
  - reward: {from: {pairs: contrst}}
"""


@pytest.fixture
def three_mistakes(tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text(THREE_MISTAKES)
    return path


@pytest.mark.parametrize("command", ["run", "plan", "validate", "show"])
def test_three_mistakes_are_told_at_once_with_exit_2_within_a_second(cli, three_mistakes, command):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = cli(command, three_mistakes)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "3 problem(s)" in done.stderr
    for part in ("stages[0].train (prompts)", "did you mean 'attempts'?", "did you mean 'contrast'?"):
        assert part in done.stderr
    assert "Traceback" not in done.stderr
    worked = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert worked < 1  # seconds of this process, however busy the machine is


@pytest.mark.parametrize(
    "words", [("--help",), ("ls",), ("show", "ppo"), ("plan", "tiny_rlcd_helpful"), ("validate", "recipes/tiny_rlcd_helpful.yaml")]
)
def test_light_commands_import_nothing_heavy(words, tmp_path):
    import subprocess

    code = (
        "import sys\nfrom lite import cli\n"
        f"sys.argv = ['lite', *{list(words)!r}]\n"
        "try:\n    cli.main()\nexcept SystemExit as e:\n    assert not e.code, e.code\n"
        f"found = [name for name in {HEAVY!r} if name in sys.modules]\nassert not found, found\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_words_show_the_help(cli):
    done = cli()
    assert "Usage" in done.stdout + done.stderr
    assert done.returncode == 2


def test_the_plan_of_a_sweep_says_that_it_is_one(cli, tmp_path):
    assert 'a sweep of 3 runs; the first of them: task="outline"' in cli("plan", "tiny_rlcd_table", "--runs", tmp_path).stderr
    assert "sweep" not in cli("plan", "tiny_rlcd_table", "task=harmless", "--runs", tmp_path).stderr


def test_every_run_of_a_sweep_is_judged_on_a_card_and_named(cli, tmp_path):
    asked = ("plan", "rlcd_helpful", "sweep.contrast.batch_rows=[8,16]", "--card", 8, "--runs", tmp_path)
    done = cli(*asked)
    assert done.returncode == 3 and "lite: contrast.batch_rows=16: rlcd_helpful does not fit a card with 8 GiB" in done.stderr
    last = {line.split()[0]: line.split()[2] for line in done.stdout.partition("run of the sweep")[2].splitlines()[1:4]}
    assert last == {"contrast.batch_rows=8": "yes", "contrast.batch_rows=16": "NO", "all": "NO"}
    found = json.loads(cli(*asked, "--json").stdout)
    sweep = found["sweep"]
    assert found["fit"]["fits"] and not sweep["fits"] and [run["fits"] for run in sweep["runs"]] == [True, False]
    for i in (0, 1):
        assert abs(sweep["seconds"][i] - sum(run["seconds"][i] for run in sweep["runs"])) <= 1
    assert sweep["runs"][0]["seconds"][0] == pytest.approx(sum(stage["seconds"][0] for stage in found["fit"]["stages"]), abs=5)
    assert sweep["disk_gib"] == pytest.approx(2 * sweep["runs"][0]["disk_gib"], abs=0.02)
    assert sweep["download_gib"] == found["fit"]["download_gib"]  # one base for both
    one = json.loads(cli("plan", "rlcd_helpful", "--card", 8, "--runs", tmp_path, "--json").stdout)
    assert "sweep" not in one and one["fit"]["fits"]


def test_a_plan_of_a_large_base_hints_at_the_card(cli, tmp_path):
    def said(*words):
        return cli("plan", *words, "--runs", tmp_path).stderr

    assert said("rlcd_helpful") == "--card GB (8, 24, T4) tells whether it fits a card, how long it takes, and what is fetched\n"
    assert said("tiny_rlcd_helpful") == said("rlcd_helpful", "--card", "8") == ""
    assert "--card GB" in said("tiny_rlcd_helpful", "contrast.base.model=huggyllama/llama-7b")


def test_plan_prints_a_table_and_json(cli, tmp_path):
    done = cli("plan", "recipes/tiny_rlcd_helpful.yaml", "ppo.kl_coef=0.2", "--runs", tmp_path)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["stage", "reads", "status", "why"]
    assert [line.split()[0] for line in lines[1:]] == ["prompts", "contrast", "reward", "ppo", "evaluate"]
    assert "never run" in lines[1]
    found = json.loads(cli("plan", "tiny_rlcd_helpful", "--json", "--runs", tmp_path).stdout)
    assert found["stages"][3]["inputs"] == {"prompts": "prompts", "reward": "reward", "policy": None}
    assert found["stages"][3]["status"] == "run"


def test_plan_compares_with_the_latest_run_of_the_recipe(cli, fakes, tmp_path, small_recipe):
    run = fakes.go().run
    path = tmp_path / "small.yaml"
    path.write_text(small_recipe)
    done = cli("plan", path, "ppo.kl_coef=0.002", "--runs", fakes.folder)
    assert "ppo.kl_coef changed 0.004 -> 0.002" in done.stdout
    assert done.stdout.count("cached") == 3
    assert run.name in done.stderr


def test_the_4_bit_copy_is_asked_for_by_option_or_knob_and_repeats_nothing(cli, tmp_path):
    words = ("run", "tiny_rlcd_helpful", "--dry-run", "--json", "--runs", tmp_path / "runs")
    plain, option = (json.loads(cli(*words, *more).stdout) for more in ((), ("--cache-4bit",)))
    assert (plain["base"]["cache_4bit"], option["base"]["cache_4bit"]) == (False, True)
    assert [s["fingerprint"] for s in plain["stages"]] == [s["fingerprint"] for s in option["stages"]]


def test_a_dry_run_is_a_plan_and_touches_nothing(cli, tmp_path):
    done = cli("run", "tiny_rlcd_helpful", "--dry-run", "--runs", tmp_path / "runs")
    assert "will run" in done.stdout
    assert not (tmp_path / "runs").exists()


def test_resuming_reads_the_recipe_and_overrides_of_the_run(cli, fakes):
    fakes.go("ppo.kl_coef=0.5")
    for words in (("--resume",), ("--resume", "latest"), ("--resume", "--json")):
        done = cli("run", *words, "--dry-run", "--runs", fakes.folder)
        assert done.returncode == 0
        assert done.stdout.count("cached") == 5
    more = cli("run", "--resume", "ppo.kl_coef=0.25", "--dry-run", "--runs", fakes.folder)
    assert "ppo.kl_coef changed 0.5 -> 0.25" in more.stdout


def test_resuming_a_finished_run_prints_its_results(cli, fakes):
    run = fakes.go().run
    done = cli("run", "--resume", "--runs", fakes.folder)
    assert done.returncode == 0
    assert done.stdout == "# Results\n\n## Models\n\n| base | 25 % |\n"
    assert "[5/5] evaluate: done in" in done.stderr
    assert "\r" not in done.stderr
    found = json.loads(cli("run", "--resume", "--json", "--runs", fakes.folder).stdout)
    assert (found["state"], found["exit_code"], found["run"]) == ("done", 0, str(run.folder.path))
    assert found["report"]["models"] == {"base": {"success": 0.25}}


def test_a_failed_run_has_its_exit_code_and_its_message(cli, tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text("{task: helpful, stages: [{prompts: {source: nowhere.jsonl}}]}")
    done = cli("run", file, "--runs", tmp_path / "runs", "--json")
    found = json.loads(done.stdout)
    assert found["state"] == "failed"
    assert done.returncode == found["exit_code"] != 0
    assert "nowhere.jsonl" in found["error"]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("run",), "which recipe?"),
        (("run", "tiny_rlcd_helpfull"), "did you mean 'tiny_rlcd_helpful'?"),
        (("run", "tiny_rlcd_helpful", "ppo.stepps=3"), "did you mean 'steps'?"),
        (("run", "tiny_rlcd_helpful", "--seed", "-4"), "seed: a whole number"),
        (("run", "tiny_rlcd_helpful", "--name", "../x"), "--name"),
        (("run", "--resume", "nothing", "--runs", "/nowhere"), "no such run"),
        (("run", "tiny_rlcd_helpful", "--from-run", "nothing", "--runs", "/nowhere"), "no such run"),
        (("run", "tiny_rlcd_helpful", "--no-such-flag"), "No such option"),
        (("show", "ppoo"), "did you mean 'ppo'?"),
        (("ls", "run"), "did you mean 'runs'?"),
        (("validate", "nowhere.yaml"), "no such file"),
        (("validate", "nowhere.jsonl"), "cannot be read"),
    ],
)
def test_usage_errors_exit_2_with_a_hint(cli, words, expected):
    done = cli(*words)
    assert done.returncode == 2
    assert expected in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_ls_lists_everything_or_one_thing(cli, fakes):
    run = fakes.go().run
    found = json.loads(cli("ls", "--json", "--runs", fakes.folder).stdout)
    assert {row["recipe"] for row in found["recipes"]} == set(built_in())
    assert found["runs"][0] | {"started": None} == {
        "run": run.name,
        "recipe": "small",
        "state": "done",
        "stage": "5/5 evaluate",
        "started": None,
    }
    assert "ppo" in {row["stage"] for row in found["stages"]}
    assert cli("ls", "tasks").stdout.splitlines()[1].startswith("harmless")


def test_show_shows_each_kind_of_thing(cli, fakes):
    run = fakes.go().run
    assert "kl_coef" in cli("show", "ppo").stdout
    assert "properties" in json.loads(cli("show", "ppo", "--schema").stdout)
    assert "steps: 7" in cli("show", "tiny_rlcd_helpful", "ppo.steps=7").stdout
    assert json.loads(cli("show", "tiny_rlcd_helpful", "--json").stdout)["task"] == "helpful"
    assert json.loads(cli("show", "tiny_rlcd_helpful", "--schema").stdout)["required"] == ["task", "stages"]
    assert "phrases" in cli("show", "harmless").stdout
    shown = cli("show", "latest", "--runs", fakes.folder).stdout
    assert "state: done" in shown
    assert "| base | 25 % |" in shown
    assert json.loads(cli("show", run.name, "--runs", fakes.folder, "--json").stdout)["stages"][0]["done"] is True


def test_the_printed_recipe_is_a_recipe(cli, tmp_path):
    file = tmp_path / "copy.yaml"
    file.write_text(cli("show", "tiny_rlcd_helpful").stdout)
    assert cli("validate", file).returncode == 0


def test_validate_knows_a_task_from_a_recipe(cli, tmp_path):
    file = tmp_path / "polite.yaml"
    file.write_text(
        "name: polite\nabout: x\nphrases: [{positive: a polite reply, negative: a rude reply, principle: 'Which is polite?'}]\nquestion: Which one?\n"
    )
    good = cli("validate", file)
    assert good.stdout.strip() == f"{file}: good, the task polite, 1 pair of phrases", good.stderr
    assert json.loads(cli("validate", "helpful", "--json").stdout)["task"] == "helpful"
    refused = cli("validate", "tiny_rlcd_helpful", f"task={file}")
    assert refused.returncode == 2 and "prompts.source=FILE" in refused.stderr
    (tmp_path / "questions.txt").write_text("How do I bake bread?\n", encoding="utf-8")
    recipe = cli("validate", "tiny_rlcd_helpful", f"task={file}", f"prompts.source={tmp_path / 'questions.txt'}")
    assert recipe.stdout.strip() == "tiny_rlcd_helpful: good, 5 stages", recipe.stderr
    assert "nothing to override" in cli("validate", file, "seed=3").stderr
    file.write_text(file.read_text().replace("question", "questoin"))
    bad = cli("validate", file)
    assert bad.returncode == 2 and "2 problem(s)" in bad.stderr and "question: Field required" in bad.stderr
    assert "question: Field required" in cli("validate", "tiny_rlcd_helpful", f"task={file}").stderr


def test_validate_takes_overrides_and_checks_every_run_of_a_sweep(cli):
    assert "did you mean 'steps'?" in cli("validate", "tiny_rlcd_helpful", "ppo.stepps=3").stderr
    swept = cli("validate", "tiny_rlcd_helpful", "sweep.seed=[1,2]")
    assert swept.stdout.strip() == "tiny_rlcd_helpful: good, 5 stages, 2 runs", swept.stderr
    assert cli("validate", "tiny_rlcd_helpful", "sweep.task=[helpful,nonesuch]").returncode == 2


def test_validate_counts_pairs_and_says_what_is_wrong(cli, tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    assert "1 pairs" in cli("validate", file).stdout
    file.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n{"prompt": "a", "choosen": "b", "rejected": "c"}\n')
    done = cli("validate", file, "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["problems"] == ["line 2: no 'chosen'; is it 'choosen'?"]


@pytest.mark.skipif(version_of("unsloth") is not None, reason="unsloth is installed here")
def test_a_backend_that_is_not_there_is_told_before_a_run_is_made(cli, tmp_path):
    told = "base.backend: unsloth is not installed; pip install -e '.[unsloth]' in lite's folder, or `base.backend=plain` goes on without"
    done = cli("run", "tiny_rlcd_helpful", "base.backend=unsloth", "--runs", tmp_path / "runs")
    assert done.returncode == 3 and done.stderr == f"lite: {told}\n" and not (tmp_path / "runs").exists()
    done = cli("plan", "tiny_rlcd_helpful", "base.backend=unsloth", "--runs", tmp_path / "runs")
    assert done.returncode == 0 and f"`lite run` would be refused on this machine: {told}\n" in done.stderr
    assert "refused" not in cli("plan", "tiny_rlcd_helpful", "--runs", tmp_path / "runs").stderr


def test_doctor_gives_a_level_and_a_fix_for_every_check(cli, tmp_path):
    done = cli("doctor", "--json", "--runs", tmp_path)
    found = json.loads(done.stdout)
    checks = {check["name"]: check for check in found["checks"]}
    assert checks["4 bits"]["level"] == "green", checks["4 bits"]
    assert {"python", "platform", "memory", "disk", "gpu", "tiny base"} <= set(checks)
    assert all(check["fix"] for check in checks.values() if check["level"] != "green")
    assert (version_of("unsloth") or "not installed; an extra") in checks["unsloth"]["found"]
    assert done.returncode == (0 if found["ok"] else 3)


def test_resume_may_stand_alone():
    from lite.cli import spell_out_resume

    assert spell_out_resume(["run", "--resume"]) == ["run", "--resume", "latest"]
    assert spell_out_resume(["run", "--resume", "-q"]) == ["run", "--resume", "latest", "-q"]
    assert spell_out_resume(["run", "--resume", "x.yaml"]) == ["run", "--resume", "latest", "x.yaml"]
    assert spell_out_resume(["run", "--resume", "tiny_rlcd_helpful"]) == ["run", "--resume", "latest", "tiny_rlcd_helpful"]
    assert spell_out_resume(["run", "--resume", "2026-x", "a.b=1"]) == ["run", "--resume", "2026-x", "a.b=1"]
    assert spell_out_resume(["run", "--resume", "a.b=1"]) == ["run", "--resume", "latest", "a.b=1"]


def test_a_task_is_shown_with_both_prompts_and_how_alike_its_phrases_are(cli, tmp_path):
    own = tmp_path / "brief.yaml"
    phrase = "{positive: in few words, negative: in ever so many quite unneeded words, principle: 'Which is shorter?'}"
    own.write_text(f"name: brief\nabout: x\nquestion: 'Which is shorter?'\nphrases: [{phrase}]\n")
    shown = cli("show", own).stdout
    assert "Assistant (in few words):" in shown.partition("p+ of index 0:")[2].partition("p- of index 0:")[0].rpartition("Human:")[2]
    assert "3 words against 7" in shown
    facts = json.loads(cli("show", "harmless", "--json").stdout)
    assert len(facts["likeness"]) == len(facts["phrases"]) == 16
    assert not any(row["concern"] for row in facts["likeness"])
    own.write_text("name: brief\nabout: x\nphrases: []\n")
    assert "phrases" in (wrong := cli("show", own)).stderr
    assert wrong.returncode == 2
