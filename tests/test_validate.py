import json

import pytest

from lite import validate
from lite.errors import RecipeError

GOOD = {"prompt": "p", "chosen": "c", "rejected": "r", "id": "1"}
SAID = [{"role": "user", "content": "p"}]


@pytest.mark.parametrize("row", [GOOD, {"prompt": SAID, "chosen": SAID, "rejected": [{"role": "assistant", "content": "r"}]}])
def test_both_forms_of_trl_are_good(tmp_path, row):
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps(row) + "\n\n" + json.dumps(row))
    assert validate.pairs_file(file) == 2


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{", "line 1: not JSON"),
        ("[]", "line 1: an object is needed (got [])"),
        ({"prompt": "p", "chosen": "c"}, "line 1: no 'rejected'"),
        ({"prompt": "p", "chosen": "c", "rejectd": "r"}, "is it 'rejectd'?"),
        (GOOD | {"chosen": 3}, "chosen: a text, or a list of messages with `role` and `content`, is needed (got 3)"),
        (GOOD | {"chosen": [{"role": "user"}]}, "chosen: a text, or a list"),
        (GOOD | {"chosen": SAID}, "texts and messages are mixed"),
        (GOOD | {"chosen": " "}, "chosen is empty"),
        (GOOD | {"chosen": "r"}, "chosen and rejected are the same"),
    ],
)
def test_each_mistake_is_told_with_its_line(tmp_path, line, expected):
    file = tmp_path / "pairs.jsonl"
    file.write_text(line if isinstance(line, str) else json.dumps(line))
    with pytest.raises(RecipeError) as caught:
        validate.pairs_file(file)
    assert expected in str(caught.value)


def test_no_rows_and_very_many_problems(tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_text("")
    with pytest.raises(RecipeError, match="no rows"):
        validate.pairs_file(file)
    file.write_text("{\n" * 100)
    with pytest.raises(RecipeError, match="and 80 more"):
        validate.pairs_file(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(RecipeError, match="cannot be read"):
        validate.pairs_file(file)
