"""The documents: every command in them is executed, every recipe and task in them is read, every link leads somewhere.

What only looks is executed in this process. What runs a model is executed as it stands on the embedded base, by a process of its
own, `run` with sizes that end in seconds (``smaller``). Only planned, for the reasons beside them: ``PLANNED``.
"""

import ast
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from lite import recipe
from lite.cli import app, spell_out_resume
from lite.plan import plan
from lite.tasks import Task

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
LOOKS = ("ls", "show", "validate", "plan", "cp", "ps", "gc", "doctor")
AFTER = ("chat", "generate", "eval", "export")
LAUNCHERS = {"torchrun": "torch.distributed.run", "accelerate": "accelerate.commands.accelerate_cli"}
SMALL = {
    "tiny_rlcd_helpful": """
        prompts.train=16 prompts.dev=2 prompts.test=4 contrast.max_new_tokens=32 reward.epochs=1
        ppo.steps=1 ppo.rollouts=8 ppo.minibatch=8 ppo.epochs=1 ppo.max_new_tokens=24 evaluate.draws=1 evaluate.max_new_tokens=24
    """,
    "tiny_rlcd_table": """
        sweep.task=[helpful] prompts.train=16 prompts.dev=2 prompts.test=4 rlcd.contrast.max_new_tokens=24 rlaif.respond.max_new_tokens=24
        rescore.reward.epochs=1 rlaif.reward.epochs=1 rlaif_improved.reward.epochs=1 rlcd.reward.epochs=1 context_dist.epochs=1
        rlcd.dpo.epochs=1 rlcd.dpo.batch_pairs=8 evaluate.draws=1 evaluate.max_new_tokens=24
    """
    + " ".join(
        f"{name}.ppo.{knob}"
        for name in ("rlcd", "rescore", "rlaif", "rlaif_improved")
        for knob in ("steps=1", "rollouts=8", "minibatch=8", "epochs=1", "max_new_tokens=24")
    ),
}
"""Knobs with which a recipe ends in seconds."""
PLANNED = {
    "rlcd_helpful": "its base is on the Hub",
    "self_rewarding": "its base is on the Hub",
    "tiny_self_rewarding": "tests/test_whole_self_rewarding.py runs it",
}
"""Recipes that are not run here but planned, and why."""


def blocks(page: Path, *languages: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    return [text for language, text in found if language in languages]


def the_task() -> str:
    """The task that the page on tasks writes."""
    return next(text for text in blocks(ROOT / "docs/writing-a-task.md", "yaml") if text.startswith("name:"))


def lines() -> list[tuple[str, list[str]]]:
    """(page, words) of every command line in the pages, in their order, each once."""
    found = []
    for page in PAGES:
        for line in "\n".join(blocks(page, "bash", "sh")).splitlines():
            found += [(page.name, shlex.split(part, comments=True)) for part in line.split("&&")]
    return once((page, words) for page, words in found if words)


def once(found: Iterable[tuple[str, list[str]]]) -> list[tuple[str, list[str]]]:
    """Those whose words did not come before."""
    return list({tuple(words): (page, words) for page, words in reversed(list(found))}.values())[::-1]


def commands() -> list[tuple[str, list[str]]]:
    """(page, words after `lite`) of every line that starts lite."""
    return once((page, words[1:]) for page, words in lines() if Path(words[0]).name == "lite")


def runs(words: list[str]) -> bool:
    """Whether a command runs a recipe here."""
    return words[0] == "run" and "--dry-run" not in words and Path(words[1]).stem not in PLANNED


def tables(words: list[str]) -> list[list[str]]:
    """The commands that tabulate the runs of a command."""
    return [other for _, other in commands() if words[0] == "run" and other == ["table", Path(words[1]).stem]]


def smaller(words: list[str]) -> list[str]:
    """The same command with small sizes; what it says itself about a knob stands."""
    said = {word.partition("=")[0] for word in words}
    return [*words, *(knob for knob in SMALL.get(Path(words[1]).stem, "").split() if knob.partition("=")[0] not in said)]


def test_every_page_is_about_something_that_can_be_run():
    pages = {page.name for page in PAGES if re.search(r"^(\S*/)?lite ", "\n".join(blocks(page, "bash", "sh")), re.M)}
    assert {"README.md", "rlcd.md", "self-rewarding.md", "ppo.md", "writing-a-task.md", "writing-a-recipe.md"} <= pages
    assert {"reading-a-report.md", "security.md", "beyond-one-gpu.md"} <= pages
    known = {"lite", "python3", "pip", "pytest", "make", *LAUNCHERS}
    assert {Path(words[0]).name for _, words in lines()} <= known
    for _, words in commands():
        tabled = words[0] == "table" and any(words in tables(other) for _, other in commands() if runs(other))
        assert words[0] in (*LOOKS, *AFTER, "run") or words == ["ui"] or "--help" in words or tabled, words


@pytest.fixture
def place(fakes, tmp_path, monkeypatch) -> Path:
    """A working directory such as a reader has: the repository's recipes, and a finished run."""
    folder = tmp_path / "here"
    folder.mkdir()
    for name in ("recipes", "examples"):
        (folder / name).symlink_to(ROOT / name)
    outcome = fakes.go(text=(ROOT / "recipes/tiny_rlcd_helpful.yaml").read_text(encoding="utf-8"))
    assert outcome.state == "done"
    (tmp_path / "runs").rename(folder / "runs")
    (folder / "questions.txt").write_text("How do I bake bread?\n", encoding="utf-8")
    monkeypatch.chdir(folder)
    return folder


def told(part: object) -> str:
    return " ".join(part)[:60] if isinstance(part, list) else str(part)


@pytest.mark.parametrize(
    ("page", "words"), [(p, w) for p, w in commands() if (w[0] not in (*AFTER, "table", "ui") and not runs(w)) or "--help" in w], ids=told
)
def test_a_command_works(page, words, place):
    if "my_recipe.yaml" in words and words[0] != "cp":
        shutil.copyfile(ROOT / "recipes/tiny_rlcd_helpful.yaml", place / "my_recipe.yaml")
    if any("polite.yaml" in word for word in words) and words[0] != "cp":
        (place / "polite.yaml").write_text(the_task(), encoding="utf-8")
    planned = ["--dry-run"] if words[0] == "run" and "--dry-run" not in words else []
    done = CliRunner().invoke(app, spell_out_resume([*words, *planned]))
    assert done.exit_code == 0, f"{page}: lite {' '.join(words)}\n{done.output}"


def lite(folder: Path, *words: object, said: str = "", module: tuple[str, ...] = ("lite.cli",)) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *module, *map(str, words)]
    return subprocess.run(command, input=said, capture_output=True, text=True, cwd=folder, env=surroundings(), timeout=600, check=False)


def surroundings() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


FIRST = ["run", "recipes/tiny_rlcd_helpful.yaml"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A working directory where the pages' first command was run, with questions to answer and pairs to judge."""
    folder = tmp_path_factory.mktemp("finished")
    for name in ("recipes", "examples"):
        (folder / name).symlink_to(ROOT / name)
    done = lite(folder, *smaller(FIRST))
    assert done.returncode == 0, done.stderr
    questions = [f"How do I {what} a {thing} of {n} pounds?" for what in ("bake", "sew") for thing in ("cake", "coat") for n in range(60)]
    (folder / "questions.txt").write_text("\n".join(questions), encoding="utf-8")
    pair = {"prompt": "How do I bake bread?", "chosen": "Mix flour and water, then bake it.", "rejected": "No.", "subset": "easy", "id": 1}
    (folder / "rankings.jsonl").write_text(json.dumps(pair) + "\n", encoding="utf-8")
    (folder / "polite.yaml").write_text(the_task(), encoding="utf-8")
    return folder


@pytest.fixture
def beside(finished, tmp_path) -> Path:
    """Such a directory of one's own: what is run there is `latest` there only."""
    return shutil.copytree(finished, tmp_path / "beside", symlinks=True)


@pytest.mark.slow
@pytest.mark.parametrize(("page", "words"), [(page, words) for page, words in commands() if words[0] in AFTER], ids=told)
def test_a_command_works_on_a_finished_run(page, words, finished):
    done = lite(finished, *words, said="How do I bake bread?\n/quit\n")
    if any(word.startswith("lm-eval:") for word in words):
        # Its package is an extra and its questions are on the Hub, so what is seen here is what it says without either;
        # tests/evaluate/test_harness.py runs it whole, with a task of its own, where the extra is installed.
        assert done.returncode == 3
        assert re.search(r"\[eval\]|network|offline", done.stderr), done.stderr
        return
    assert done.returncode == 0, f"{page}: lite {' '.join(words)}\n{done.stderr}"
    assert done.stdout.strip()


def test_the_first_command_is_in_the_pages_and_works(finished):
    assert FIRST in [words for _, words in commands()]
    (run,) = finished.glob("runs/*/run.json")
    assert json.loads(run.read_text(encoding="utf-8"))["state"] == "done"


@pytest.mark.slow
@pytest.mark.parametrize(("page", "words"), [(page, words) for page, words in commands() if runs(words) and words != FIRST], ids=told)
def test_a_run_works(page, words, beside):
    before = set(beside.glob("runs/*/run.json"))
    done = lite(beside, *smaller(words))
    assert done.returncode == 0, f"{page}: lite {' '.join(words)}\n{done.stderr}"
    new = set(beside.glob("runs/*/run.json")) - before
    assert bool(new) == ("--resume" not in words)
    if "--detach" in words:
        assert lite(beside, "logs", "-f").returncode == 0  # until it ends
    ended = {json.loads(path.read_text(encoding="utf-8"))["state"] for path in new or before}
    assert ended == {"stopped" if "--until" in words else "done"}
    for table in tables(words):
        done = lite(beside, *table)
        assert done.returncode == 0, done.stderr
        assert "| rlcd.ppo |" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("page", "words"), [(page, words) for page, words in lines() if words[0] in LAUNCHERS], ids=told)
def test_several_processes(page, words, beside):
    at = words.index("run")
    of_lite = smaller(words[at:]) if runs(words[at:]) else [*words[at:], "--dry-run"]
    done = lite(beside, *words[1:at], *of_lite, module=(LAUNCHERS[words[0]],))
    assert done.returncode == 0, f"{page}: {' '.join(words)}\n{done.stderr}"
    assert done.stdout.count("prompts") >= 1


@pytest.mark.slow
@pytest.mark.parametrize("start", [["-m", "lite.cli", "ui"], [ROOT / "app.py"]], ids=["lite ui", "python app.py"])
def test_the_page_comes_up_and_answers(start, beside):
    command = [sys.executable, *start]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=beside, env=surroundings()) as page:
        assert page.stderr
        told = next((line for line in page.stderr if line.startswith("lite is at")), "")
        assert told, "the page did not come up"
        with urllib.request.urlopen(told.split()[3], timeout=60) as answer:
            assert answer.status == 200
        page.send_signal(signal.SIGINT)
        page.stderr.read()
    assert page.returncode == 0


def test_recipes_and_tasks_in_the_pages_are_good():
    recipes = tasks = 0
    for page in PAGES:
        for text in blocks(page, "yaml"):
            found = yaml.safe_load(text)
            if isinstance(found, dict) and "stages" in found:
                assert plan(recipe.loads(text, where=page.name)), page.name
                recipes += 1
            elif isinstance(found, dict) and "phrases" in found:
                Task.model_validate(found)
                tasks += 1
    assert recipes >= 2
    assert tasks == 1


def test_python_in_the_pages_asks_for_names_that_exist():
    import lite

    for page in PAGES:
        for text in blocks(page, "python"):
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.ImportFrom) and node.module == "lite":
                    assert {alias.name for alias in node.names} <= set(lite.PUBLIC), page.name
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "lite":
                    assert node.attr in lite.PUBLIC, page.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_files_that_are_named_exist(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)\)", text):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), target
    for name in re.findall(r"(?:recipes|examples)/[\w/.-]+\.(?:ya?ml|py)", text):
        assert (ROOT / name).is_file(), name


def test_the_accelerate_configurations_are_read_by_accelerate():
    config = pytest.importorskip("accelerate.commands.config.config_args")
    kinds = {
        path.stem: config.load_config_from_file(str(path)).distributed_type.value for path in (ROOT / "examples/accelerate").glob("*.yaml")
    }
    assert kinds == {"ddp": "MULTI_GPU", "fsdp_qlora": "FSDP"}
    assert yaml.safe_load((ROOT / "examples/sky.yaml").read_text(encoding="utf-8"))["run"]
