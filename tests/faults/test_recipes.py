"""Bad recipes and bad rows by the shipped command: exit 2 within a second, no torch, every mistake with its place (R16)."""

import json
import random
import resource
import sys

import pytest
from typer.testing import CliRunner

from lite import recipe
from lite.cli import app

BAD = {
    "an unknown key": ("stages: [prompts: {trian: 3}]", "stages[0].trian (prompts): no such key; did you mean 'train'?"),
    "a wrong type": ("stages: [prompts: {train: many}]", "stages[0].train (prompts)"),
    "a missing column": ("stages: [prompts: {source: rows.jsonl}]", "none of the columns turns, prompt, premise, instruction, chosen"),
    "no rows": ("stages: [prompts: {source: empty.jsonl}]", "0"),
}
WATCHED = """
import sys
from lite import cli
sys.argv = ["lite", "run", "bad.yaml", "-q"]
try:
    cli.main()
finally:
    assert "torch" not in sys.modules
"""


@pytest.mark.parametrize("mistake", BAD)
def test_a_mistake_ends_with_2_within_a_second_and_without_torch(tmp_path, mistake):
    import subprocess

    text, said = BAD[mistake]
    (tmp_path / "bad.yaml").write_text(f"task: helpful\n{text}\n")
    (tmp_path / "rows.jsonl").write_text('{"question": "why?"}\n{"question": "how?"}\n')
    (tmp_path / "empty.jsonl").write_text("\n")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", WATCHED], cwd=tmp_path, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1  # seconds of this process, however busy the machine is


JUNK = ("3", "0.5", "1", "true", "null", "many", "-1", "1e999", ".nan", "[1]", "{a: 1}", "'x'", "*a", "2024-01-01", "")


def mutated(lines: list[str], draw: random.Random) -> str:
    """A recipe with one or two wounds: values changed, letters lost or put in, lines lost, doubled, cut, moved in or out."""
    for _ in range(draw.randint(1, 2)):
        i = draw.randrange(len(lines))
        line, at = lines[i], draw.randrange(len(lines[i]) + 1)
        key, colon, _ = line.rpartition(": ")
        if colon and draw.random() < 0.5:
            lines[i] = f"{key}: {draw.choice(JUNK)}"
            continue
        lines[i : i + 1] = draw.choice(
            (
                [line[:at] + draw.choice("{}[]:,#&*!|>'\"%@`\t\x00é0-") + line[at:]],
                [line[:at] + line[at + 1 :]],
                [line[:at]],
                ["  " + line],
                [line.lstrip()],
                [line, line],
                [],
            )
        )
    return "\n".join(lines)


def test_30_mutated_recipes_end_with_a_plan_or_with_2(tmp_path):
    """Through the command itself; hypothesis goes on where 30 end, on the functions below it (``tests/test_recipe.py``)."""
    draw, codes = random.Random(17), []
    names = recipe.built_in()
    for n in range(30):
        source = names[draw.choice(sorted(names))].read_text()
        file = tmp_path / f"{n}.yaml"
        file.write_text(mutated([line for line in source.splitlines() if line and not line.startswith("#")], draw))
        done = CliRunner().invoke(app, ["plan", str(file), "--json", "--runs", str(tmp_path / "runs")])
        assert isinstance(done.exception, SystemExit | None), (file.read_text(), done.exception)
        assert done.exit_code in (0, 2), (file.read_text(), done.output)
        if done.exit_code == 0:
            json.loads(done.stdout)
        codes.append(done.exit_code)
    assert 5 <= codes.count(2) <= 29
