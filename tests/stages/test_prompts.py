import gzip
import json

import pytest

from lite.errors import RecipeError
from lite.knobs.writing import PromptsSpec
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
        (
            [{"prompt": "a"}, {"question": "b"}],
            "line 2: none of the columns turns, prompt, premise, instruction, chosen (there are: question)",
        ),
        ([{"turns": [{"role": "judge", "text": "x"}]}], "line 1: turns: the role 'judge' is neither human nor assistant"),
        ([{"prompt": "a"}], "1 different dialogues, but train + dev + test ask for 3"),
    ],
)
def test_a_bad_file_names_its_line(rows, said, make_bench, folder, tmp_path):
    spec = PromptsSpec(source=write(tmp_path / "bad.jsonl", rows), train=1, dev=1, test=1)
    with pytest.raises(RecipeError) as error:
        prompts(spec, out=folder("out"), bench=make_bench("prompts"))
    assert said in str(error.value)


def test_a_missing_file_says_what_to_write(make_bench, folder):
    with pytest.raises(RecipeError, match="no such file or folder; write `micro`"):
        prompts(PromptsSpec(source="nowhere.jsonl"), out=folder("out"), bench=make_bench("prompts"))


def transcripts(split, n):
    asked = [f"{split} {i}?" if i % 3 else f"Hi {split} {i}\n\nAssistant: Yes?\n\nHuman: {split} more {i}?" for i in range(n)]
    return [{"chosen": f"\n\nHuman: {text}\n\nAssistant: Good.", "rejected": f"\n\nHuman: {text}\n\nAssistant: Bad."} for text in asked]


def pack(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


def lines(found):
    return {split: (found.path / f"{split}.jsonl").read_text() for split in ("train", "dev", "test")}


def test_a_folder_and_the_hub_give_the_same_prompts(make_bench, folder, tmp_path, monkeypatch):
    """One copy of the published files, read as a folder by us and as a cached repository by huggingface_hub and `datasets`."""
    repo = tmp_path / "hub" / "datasets--Anthropic--hh-rlhf"
    local = repo / "snapshots" / ("ab" * 20) / "helpful-base"
    damaged = [{"chosen": "Human: no answer", "rejected": ""}, {"chosen": "no speaker", "rejected": ""}]
    pack(local / "train.jsonl.gz", [*transcripts("train", 40), *damaged, *transcripts("test", 3)])
    pack(local / "test.jsonl.gz", [*transcripts("test", 20), *transcripts("test", 2)])
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("ab" * 20)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "datasets"))

    sizes = {"train": 25, "dev": 5, "test": 8}
    ours = prompts(PromptsSpec(source=str(local), **sizes), out=folder("ours"), bench=make_bench("prompts"))
    hub = prompts(PromptsSpec(source="hh-rlhf", **sizes), out=folder("hub"), bench=make_bench("prompts"))
    assert lines(ours) == lines(hub)
    assert [row.turns[-1].text for row in hub.rows("dev")] == ["test more 0?", "test 1?", "test 2?", "test more 3?", "test 4?"]
    report = hub.read_json("report.json")
    assert (report["repo"], report["subset"], report["commit"]) == ("Anthropic/hh-rlhf", "helpful-base", "ab" * 20)
    assert report["files"]["train"] == {
        "read": 45, "unreadable": {"no_answer": 1, "no_speaker": 1}, "too_short": 0, "too_long": 0, "duplicates": 0, "in_held_out": 3, "kept": 40,
    }  # fmt: skip
    assert report["files"]["test"]["duplicates"] == 2
    assert report["files"] == ours.read_json("report.json")["files"]


def test_premises_become_requests_and_too_short_ones_are_counted(make_bench, folder, tmp_path):
    file = tmp_path / "premises.txt"
    file.write_text("\n".join([*(f"A girl finds a lamp that grants her only {i} wishes." for i in range(6)), "A dog."]))
    spec = PromptsSpec(source=str(file), train=3, dev=1, test=2, min_words=10, max_words=40)
    found = prompts(spec, out=folder("out"), bench=make_bench("prompts", task="outline"))
    texts = [row.turns[0].text for split in ("train", "dev", "test") for row in found.rows(split)]
    assert len(texts) == 6
    assert all(text.startswith("Write an outline for a story about this premise: A girl finds") for text in texts)
    report = found.read_json("report.json")
    assert report["files"]["all"]["too_short"] == 1
    assert report["words"]["train"] == {"median": 11, "p95": 11, "max": 11}


def test_what_a_prompts_stage_left_is_a_source(make_bench, folder):
    first = prompts(PromptsSpec(train=6, dev=2, test=3), out=folder("first"), bench=make_bench("prompts"))
    again = prompts(PromptsSpec(source=str(first.path), train=6, dev=2, test=3), out=folder("again"), bench=make_bench("prompts"))
    for split in ("train", "dev", "test"):
        assert {row.turns for row in again.rows(split)} == {row.turns for row in first.rows(split)}


def test_outlines_have_nothing_on_the_hub(make_bench, folder):
    with pytest.raises(RecipeError, match="a file of premises of your own"):
        prompts(PromptsSpec(source="hh-rlhf"), out=folder("out"), bench=make_bench("prompts", task="outline"))


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"subset": "helpful-base"}, "belongs to the source hh-rlhf"),
        ({"source": "a.csv", "revision": "main"}, "belongs to the sources hh-rlhf, oasst1 and oasst2"),
        ({"max_words": 5}, "do not act on the embedded world"),
        ({"source": "a.csv", "min_words": 9, "max_words": 5}, "is larger than"),
    ],
)
def test_knobs_that_would_do_nothing_are_refused(knobs, said):
    with pytest.raises(ValueError, match=said):
        PromptsSpec(**knobs)


def test_asking_for_more_prompts_than_the_world_has_ends_soon_and_says_so(make_bench, folder, monkeypatch):
    monkeypatch.setattr("lite.stages.prompts.IN_VAIN", 5)
    with pytest.raises(RecipeError, match=r"test: the embedded world has hardly more than .* different harmless prompts"):
        prompts(PromptsSpec(train=1, dev=1, test=10**6), out=folder("out"), bench=make_bench("prompts", task="harmless"))
