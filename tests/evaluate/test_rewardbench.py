"""RewardBench's rows: what is read, and accuracy by subset with ties and what could not be scored."""

import json

import pytest

from lite import tasks
from lite.errors import RecipeError
from lite.evaluate.rewardbench import Accuracy, Contest, accuracies, read_contests

TASK = tasks.load("helpful")


def lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_rows_become_prompts_and_responses(tmp_path):
    file = lines(
        tmp_path / "rb.jsonl",
        {"id": 7, "prompt": "Hi", "chosen": "Hello.", "rejected": "No.", "subset": "chat"},
        {"prompt": "\n\nHuman: A\n\nAssistant: B\n\nHuman: C\n\nAssistant:", "chosen": " Yes.", "rejected": "\n1. No"},
    )
    first, second = read_contests(file, TASK)
    assert first == Contest("0-7", "chat", "\n\nHuman: Hi\n\nAssistant:", " Hello.", " No.")
    assert second.prompt.endswith("Human: C\n\nAssistant:") and second.subset == "all" and second.rejected == "\n1. No"
    assert len(read_contests(file, TASK, most=1)) == 1


def test_rows_that_are_none_are_told(tmp_path):
    file = lines(tmp_path / "rb.jsonl", {"prompt": "Hi", "chosen": "x"}, {"prompt": " ", "chosen": "x", "rejected": "y"}, [1])
    with pytest.raises(RecipeError) as told:
        read_contests(file, TASK)
    assert [problem.split(":")[0] for problem in told.value.problems] == ["line 1", "line 2", "line 3"]
    with pytest.raises(RecipeError, match="no such file"):
        read_contests(tmp_path / "none.jsonl", TASK)


def test_accuracy_by_hand():
    """Chat: right, tie, unreadable: (1 + 1/2) / 2. Safety: wrong. All: 1.5 of 3."""
    contests = [Contest(str(i), subset, "p", "a", "b") for i, subset in enumerate(("chat", "chat", "chat", "safety"))]
    found = accuracies(contests, [(2.0, 1.0), (1.0, 1.0), (None, 1.0), (0.0, 1.0)])
    assert found == {"chat": Accuracy(0.75, 2, 1, 1), "safety": Accuracy(0.0, 1, 0, 0), "all": Accuracy(0.5, 3, 1, 1)}
    assert list(found) == ["chat", "safety", "all"]
    assert accuracies(contests[:1], [(None, None)])["all"].accuracy is None
