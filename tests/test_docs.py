"""The documents: every command in them is executed, every recipe and task in them is read, every link leads somewhere.

What comes after a run is executed as it stands, on a real run. `run` itself is planned here and executed whole by others
(test_whole, test_whole_self_rewarding, stages/test_parallel, test_notebooks); of what serves or waits the help is asked for.
"""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
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
CHEAP = ("ls", "show", "validate", "plan", "cp", "ps", "gc", "doctor")
AFTER = ("chat", "generate", "eval", "export")
SMALL = """
    prompts.train=16 prompts.dev=2 prompts.test=4 contrast.max_new_tokens=32 reward.epochs=1
    ppo.steps=1 ppo.rollouts=8 ppo.minibatch=4 ppo.max_new_tokens=24 evaluate.draws=1 evaluate.max_new_tokens=24
"""


def blocks(page: Path, *languages: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    return [text for language, text in found if language in languages]


def the_task() -> str:
    """The task that the page on tasks writes."""
    return next(text for text in blocks(ROOT / "docs/writing-a-task.md", "yaml") if text.startswith("name:"))


def commands() -> list[tuple[str, list[str]]]:
    """(page, words after `lite`) of every line that starts lite, in the order of the pages."""
    found = []
    for page in PAGES:
        for line in "\n".join(blocks(page, "bash", "sh")).splitlines():
            for part in line.split("&&"):
                words = shlex.split(part, comments=True)
                if words and Path(words[0]).name == "lite":
                    found.append((page.name, words[1:]))
                elif words[:3] == ["python", "-m", "lite.cli"]:
                    found.append((page.name, words[3:]))
    return found


def cheaply(words: list[str]) -> list[str]:
    verb = words[0]
    if verb == "run":
        return [*words, "--dry-run"]
    return words if verb in CHEAP or "--help" in words or verb.startswith("-") else [*words, "--help"]


def test_every_page_is_about_something_that_can_be_run():
    pages = {page for page, _ in commands()}
    assert {"README.md", "rlcd.md", "self-rewarding.md", "ppo.md", "writing-a-task.md", "writing-a-recipe.md"} <= pages
    assert {"reading-a-report.md", "security.md", "beyond-one-gpu.md"} <= pages


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


@pytest.mark.parametrize(("page", "words"), [(page, words) for page, words in commands() if words[0] not in AFTER], ids=told)
def test_a_command_works(page, words, place):
    if "my_recipe.yaml" in words and words[0] != "cp":
        shutil.copyfile(ROOT / "recipes/tiny_rlcd_helpful.yaml", place / "my_recipe.yaml")
    if any("polite.yaml" in word for word in words) and words[0] != "cp":
        (place / "polite.yaml").write_text(the_task(), encoding="utf-8")
    done = CliRunner().invoke(app, spell_out_resume(cheaply(words)))
    assert done.exit_code == 0, f"{page}: lite {' '.join(words)}\n{done.output}"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A working directory with a real run, questions to answer and pairs to judge."""
    folder = tmp_path_factory.mktemp("finished")
    done = lite(folder, "run", ROOT / "recipes/tiny_rlcd_helpful.yaml", *shlex.split(SMALL))
    assert done.returncode == 0, done.stderr
    (folder / "questions.txt").write_text("How do I bake bread?\nHow do I sew a shirt?\n", encoding="utf-8")
    pair = {"prompt": "How do I bake bread?", "chosen": "Mix flour and water, then bake it.", "rejected": "No.", "subset": "easy", "id": 1}
    (folder / "rankings.jsonl").write_text(json.dumps(pair) + "\n", encoding="utf-8")
    return folder


def lite(folder: Path, *words: object, said: str = "") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "lite.cli", *map(str, words)]
    return subprocess.run(command, input=said, capture_output=True, text=True, cwd=folder, env=environment, timeout=600, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(("page", "words"), [(page, words) for page, words in commands() if words[0] in AFTER], ids=told)
def test_a_command_works_on_a_finished_run(page, words, finished):
    if any(word.startswith("lm-eval:") for word in words):
        pytest.skip("asks the network for its questions; tests/evaluate/test_harness.py runs tasks of its own")
    done = lite(finished, *words, said="How do I bake bread?\n/quit\n")
    assert done.returncode == 0, f"{page}: lite {' '.join(words)}\n{done.stderr}"
    assert done.stdout.strip()


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
