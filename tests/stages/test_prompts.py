import json

import pytest

from lite.contracts import PromptsSpec
from lite.errors import RecipeError
from lite.stages.prompts import prompts
from lite.text.dialogue import prompt as plain_prompt


@pytest.mark.parametrize("task", ["helpful", "harmless", "outline"])
def test_no_held_out_prompt_is_trained_on(task, make_bench, folder):
    found = prompts(PromptsSpec(train=400, dev=60, test=120), out=folder("out"), bench=make_bench("prompts", task=task))
    last = {split: {row.turns[-1].text for row in found.rows(split)} for split in ("train", "dev", "test")}
    said = {turn.text for row in found.rows("train") for turn in row.turns if turn.role == "human"}
    assert not said & last["dev"]
    assert not said & last["test"]
    assert not last["dev"] & last["test"]


def test_prompts_are_different_and_end_with_a_human_turn(make_bench, folder):
    found = prompts(PromptsSpec(train=200, dev=10, test=20), out=folder("out"), bench=make_bench("prompts"))
    rows = found.rows("train")
    assert len({plain_prompt(row.turns) for row in rows}) == len({row.id for row in rows}) == 200
    assert all(row.turns[-1].role == "human" for row in rows)
    assert 0.1 < sum(len(row.turns) > 1 for row in rows) / 200 < 0.45


def test_more_prompts_do_not_change_the_first_ones(make_bench, folder):
    few = prompts(PromptsSpec(train=10, dev=1, test=2), out=folder("few"), bench=make_bench("prompts")).rows("train")
    many = prompts(PromptsSpec(train=30, dev=1, test=2), out=folder("many"), bench=make_bench("prompts")).rows("train")
    assert many[:10] == few


def write(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return str(path)


def test_a_file_of_transcripts_and_bare_prompts(make_bench, folder, tmp_path):
    file = write(
        tmp_path / "mine.jsonl",
        [
            {"prompt": "How do planes fly?"},
            {"prompt": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Bye\n\nAssistant: So long"},
            {"turns": [{"role": "human", "text": "What is tea?"}]},
        ],
    )
    found = prompts(PromptsSpec(source=file, train=1, dev=1, test=1), out=folder("out"), bench=make_bench("prompts"))
    texts = {plain_prompt(row.turns) for split in ("train", "dev", "test") for row in found.rows(split)}
    assert texts == {
        "\n\nHuman: How do planes fly?\n\nAssistant:",
        "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Bye\n\nAssistant:",
        "\n\nHuman: What is tea?\n\nAssistant:",
    }


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"prompt": "a"}, {"question": "b"}], "line 2: no `turns` and no `prompt` column (there are: question)"),
        ([{"turns": [{"role": "judge", "text": "x"}]}], "line 1: a role is neither human nor assistant"),
        ([{"prompt": "a"}], "1 different dialogues, but train + dev + test ask for 3"),
    ],
)
def test_a_bad_file_names_its_line(rows, said, make_bench, folder, tmp_path):
    spec = PromptsSpec(source=write(tmp_path / "bad.jsonl", rows), train=1, dev=1, test=1)
    with pytest.raises(RecipeError) as error:
        prompts(spec, out=folder("out"), bench=make_bench("prompts"))
    assert said in str(error.value)


def test_a_missing_file_says_what_to_write(make_bench, folder):
    with pytest.raises(RecipeError, match="no such file; write `micro`"):
        prompts(PromptsSpec(source="nowhere.jsonl"), out=folder("out"), bench=make_bench("prompts"))
