import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lite.errors import ArtifactError
from lite.runs import publish


@given(st.recursive(st.floats() | st.integers() | st.text() | st.none(), lambda s: st.lists(s) | st.dictionaries(st.text(), s)))
def test_everything_is_valid_json(value):
    json.loads(publish.dumps(value), parse_constant=pytest.fail)


def test_what_is_not_a_number_becomes_null():
    assert publish.dumps({"a": math.nan, "b": (math.inf, 1.5), 3: Path("x")}) == '{"a": null, "b": [null, 1.5], "3": "x"}'


def test_scalars_of_torch_become_numbers():
    torch = pytest.importorskip("torch")
    assert publish.plain({"loss": torch.tensor(0.5), "nan": torch.tensor(math.nan)}) == {"loss": 0.5, "nan": None}


def test_a_folder_appears_whole(tmp_path):
    out = tmp_path / "out"
    with publish.folder(out) as scratch:
        (scratch / "a").write_text("1")
        assert not out.exists()
    assert (out / "a").read_text() == "1"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_failed_leaves_the_old_one(tmp_path):
    out = tmp_path / "out"
    with publish.folder(out) as scratch:
        (scratch / "a").write_text("1")
    with pytest.raises(ZeroDivisionError), publish.folder(out) as scratch:
        (scratch / "a").write_text(str(2 / 0))
    assert (out / "a").read_text() == "1"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    file = tmp_path / "run.json"
    publish.write_text(file, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        publish.write_text(file, "new")
    assert file.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_changed_and_missing_files_are_named(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("a", "deep/b"):
        (tmp_path / name).write_text(name)
    known = publish.digests(tmp_path)
    assert sorted(known) == ["a", "deep/b"]
    publish.verify(tmp_path, known)
    (tmp_path / "deep/b").write_text("B")
    with pytest.raises(ArtifactError, match="deep/b: the file has changed"):
        publish.verify(tmp_path, known)
    (tmp_path / "deep/b").unlink()
    with pytest.raises(ArtifactError, match="deep/b: the file is missing"):
        publish.verify(tmp_path, known)


def test_a_linked_tree_has_the_same_files(tmp_path):
    (tmp_path / "a/deep").mkdir(parents=True)
    (tmp_path / "a/deep/x").write_text("1")
    publish.link_tree(tmp_path / "a", tmp_path / "b")
    assert publish.digests(tmp_path / "a") == publish.digests(tmp_path / "b")


def test_where_there_are_no_links_files_are_copied(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x").write_text("1")

    def refuse(*_: object) -> None:
        raise OSError

    monkeypatch.setattr("os.link", refuse)
    publish.link_tree(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b/x").read_text() == "1"
