"""The plan notices when the files of a source change, and only then."""

import os
import shutil

import pytest

from lite import recipe
from lite.plan import compare, plan
from lite.runs.layout import StageFolder
from lite.runs.read import StageRecord


@pytest.fixture
def fingerprint(small_recipe):
    return lambda source: plan(recipe.loads(small_recipe, [f"prompts.source={source}"]))[0].identity["files"]


def test_a_folder_counts_by_the_files_of_its_splits(fingerprint, hh, write, tmp_path):
    folder = hh(tmp_path / "mine")
    before = fingerprint(folder)
    assert set(before) == {"source"}
    (folder / "README.md").write_text("about")
    os.utime(folder / "train.jsonl.gz", (0, 0))
    assert fingerprint(folder) == before
    write(folder / "test.jsonl.gz", [{"prompt": "another"}])
    after = fingerprint(folder)
    assert after != before
    write(folder / "dev.txt", ["one more"])
    assert fingerprint(folder) != after


def test_splits_that_change_places_are_a_change(fingerprint, hh, tmp_path):
    folder = hh(tmp_path / "mine")
    before = fingerprint(folder)
    shutil.move(folder / "train.jsonl.gz", folder / "x")
    shutil.move(folder / "test.jsonl.gz", folder / "train.jsonl.gz")
    shutil.move(folder / "x", folder / "test.jsonl.gz")
    assert fingerprint(folder) != before


@pytest.mark.parametrize("name", ["a.csv", "a.txt", "a.jsonl.gz"])
def test_a_file_counts_by_its_content(name, fingerprint, write, tmp_path):
    file = write(tmp_path / name, [{"prompt": "a"}] if ".csv" in name else ["a"])
    before = fingerprint(file)
    assert set(before) == {"source"}
    write(file, [{"prompt": "b"}] if ".csv" in name else ["b"])
    assert fingerprint(file) != before


def test_the_reason_names_the_source(small_recipe, hh, write, tmp_path):
    folder = hh(tmp_path / "mine")

    def node():
        return plan(recipe.loads(small_recipe, [f"prompts.source={folder}"]))[0]

    was = node()
    record = StageRecord(StageFolder(tmp_path / "r"), {"id": was.id, "fingerprint": was.fingerprint, "identity": dict(was.identity)})
    write(folder / "train.jsonl.gz", [{"prompt": "another"}])
    assert compare([node()], [record])[0].why == "the file of prompts.source changed"


def test_named_sources_have_no_files(fingerprint):
    assert fingerprint("micro") == fingerprint("hh-rlhf") == {}
