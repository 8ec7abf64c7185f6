"""Files of questions and replies: what is read, what is refused with its place, and what others' programs find in the result."""

import json

import pytest

from lite import tasks
from lite.chat.formats import Answer, read_questions, written
from lite.errors import RecipeError
from lite.text.dialogue import Turn

TASK = tasks.load("helpful")


def lines(path, *rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8")
    return path


def answers(questions):
    return [Answer(q, tuple(f"r{i}" for i in range(1 + len(q.later))), ("turn",) * 2, (3,) * 2, 11) for q in questions]


def text(questions, format):
    return written(answers(questions), format, model="ppo", generator="rlcd-ppo", prompt=lambda q: f"asked {q.id}", at=1.5)


def test_plain_rows_and_their_replies(tmp_path):
    file = lines(tmp_path / "q.jsonl", {"id": "a", "prompt": "Hi"}, {"turns": [{"role": "human", "text": "Ho"}]})
    found = read_questions(file, "jsonl", TASK)
    assert [(q.id, q.turns) for q in found] == [("a", (Turn("human", "Hi"),)), ("1", (Turn("human", "Ho"),))]
    rows = [json.loads(line) for line in text(found, "jsonl").splitlines()]
    assert rows[0] == {"id": "a", "model": "ppo", "prompt": "asked a", "reply": "r0", "stop": "turn", "tokens": 3, "seed": 11}


def test_alpaca_eval(tmp_path):
    file = tmp_path / "alpaca.json"
    file.write_text(json.dumps([{"instruction": "Name a fruit.", "dataset": "koala", "output": "theirs"}]), encoding="utf-8")
    found = json.loads(text(read_questions(file, "alpaca_eval", TASK), "alpaca_eval"))
    assert found == [{"instruction": "Name a fruit.", "output": "r0", "generator": "rlcd-ppo", "dataset": "koala"}]


def test_mt_bench(tmp_path):
    file = lines(tmp_path / "question.jsonl", {"question_id": 81, "category": "writing", "turns": ["Write.", "Again."]})
    (question,) = read_questions(file, "mt_bench", TASK)
    assert (question.turns, question.later) == ((Turn("human", "Write."),), ("Again.",))
    row = json.loads(text([question], "mt_bench"))
    assert row["question_id"] == 81 and row["choices"] == [{"index": 0, "turns": ["r0", "r1"]}]
    assert row["model_id"] == "rlcd-ppo" and row["tstamp"] == 1.5 and len(row["answer_id"]) == 22


def test_questions_of_mt_bench_under_another_format_are_told_once(tmp_path):
    file = lines(tmp_path / "q.jsonl", *({"question_id": i, "turns": ["Write.", "Again."]} for i in range(2)))
    for format in ("jsonl", "alpaca_eval"):
        with pytest.raises(RecipeError) as told:
            read_questions(file, format, TASK)
        assert [p.split(":")[0] for p in told.value.problems[:2]] == ["line 1", "line 2"]
        assert len(told.value.problems) == 3 and told.value.problems[2].endswith("did you mean --format mt_bench?")
    with pytest.raises(RecipeError) as told:
        read_questions(lines(tmp_path / "r.jsonl", {"turns": ["x"]}), "jsonl", TASK)
    assert "--format" not in str(told.value)


def test_another_text_under_the_same_id_is_another_question(tmp_path):
    one, other = (read_questions(lines(tmp_path / "q.jsonl", {"id": "a", "prompt": p}), "jsonl", TASK)[0] for p in ("Hi", "Ho"))
    assert one.key != other.key


def test_all_bad_rows_are_told_with_their_places(tmp_path):
    file = lines(tmp_path / "q.jsonl", {"prompt": "fine"}, {"question": "x"}, "{torn", {"id": "0", "prompt": "twice"})
    with pytest.raises(RecipeError) as told:
        read_questions(file, "jsonl", TASK)
    assert [p.split(":")[0] for p in told.value.problems] == ["line 2", "line 3", "the id 0 is there twice"]
    with pytest.raises(RecipeError, match="no question_id"):
        read_questions(lines(tmp_path / "m.jsonl", {"turns": ["x"]}), "mt_bench", TASK)
    with pytest.raises(RecipeError, match="did you mean 'alpaca_eval'"):
        read_questions(file, "alpaca_evel", TASK)
    with pytest.raises(RecipeError) as unlike:
        read_questions(file, "parquet", TASK)
    assert str(unlike.value).count("mt_bench") == 1
    with pytest.raises(RecipeError, match="no such file"):
        read_questions(tmp_path / "none.jsonl", "jsonl", TASK)
