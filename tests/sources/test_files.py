import gzip
import tarfile
import tracemalloc
import zipfile

import pytest

from lite.errors import RecipeError
from lite.sources import files
from lite.sources.files import read_file, row_files, splits_of
from lite.sources.rows import SchemaError


def rows(path, plain="prompt"):
    return list(read_file(path, plain=plain))


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_lines_of_json(ending, write, tmp_path):
    file = write(tmp_path / f"a.jsonl{ending}", [{"prompt": "Ä"}, "", {"prompt": "b c"}])
    assert rows(file) == [("line 1", {"prompt": "Ä"}), ("line 3", {"prompt": "b c"})]


def test_a_line_separator_inside_a_text_ends_no_line(tmp_path):
    """json.dumps(ensure_ascii=False) writes U+2028 as it is; str.splitlines would cut there."""
    file = tmp_path / "a.jsonl"
    file.write_text('{"prompt": "a\u2028b"}\n', encoding="utf-8")
    assert rows(file) == [("line 1", {"prompt": "a\u2028b"})]


def test_rows_of_csv_with_line_breaks_and_a_byte_order_mark(write, tmp_path):
    file = write(tmp_path / "a.csv", [{"instruction": "Human: Hi,\n\nAssistant:", "input": ""}, {"instruction": 'say "x"', "input": "y"}])
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert rows(file) == [
        ("row 1", {"instruction": "Human: Hi,\n\nAssistant:", "input": ""}),
        ("row 2", {"instruction": 'say "x"', "input": "y"}),
    ]


def test_line_ends_of_windows_inside_a_field_are_line_ends(tmp_path):
    """Or a transcript would have no empty lines before its tags."""
    (tmp_path / "a.csv").write_bytes(b'prompt\r\n"Human: a\r\n\r\nAssistant:"\r\n')
    assert rows(tmp_path / "a.csv") == [("row 1", {"prompt": "Human: a\n\nAssistant:"})]


def test_lines_of_text_fill_the_column_that_the_task_has(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes(b"one\r\n\r\n two \n")
    assert rows(file) == [("line 1", {"prompt": "one"}), ("line 3", {"prompt": "two"})]
    assert rows(file, plain="premise")[0] == ("line 1", {"premise": "one"})


def test_what_is_no_row_is_told_with_its_place_and_the_others_go_on(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "a"}\n{"prompt"\n{"prompt": "c"}\n')
    (tmp_path / "a.csv").write_text('prompt,id\na,1\nb\nc,2,3\n"d,4\n')
    (place, problem), last = rows(tmp_path / "a.jsonl")[1:]
    assert place == "line 2" and isinstance(problem, SchemaError) and "not JSON" in str(problem)
    assert last == ("line 3", {"prompt": "c"})
    found = rows(tmp_path / "a.csv")
    assert [(place, isinstance(value, SchemaError)) for place, value in found] == [
        ("row 1", False),
        ("row 2", True),
        ("row 3", True),
        ("row 4", True),
    ]
    assert "the columns are: prompt, id" in str(found[1][1])
    assert "not CSV" in str(found[3][1])


@pytest.mark.parametrize("content", [b"no archive", gzip.compress(b'{"prompt": "a"}\n' * 99, mtime=0)[:-12]])
def test_a_torn_archive_is_told_with_its_name(content, tmp_path):
    file = tmp_path / "a.jsonl.gz"
    file.write_bytes(content)
    with pytest.raises(RecipeError, match=r"a\.jsonl\.gz.*\n.*cannot be read"):
        rows(file)


@pytest.mark.parametrize("name", ["rows.zip", "rows.tar.gz", "rows.jsonl.zip", "rows.tgz"])
def test_an_archive_of_several_files_is_no_source_and_nothing_of_it_is_unpacked(name, tmp_path):
    """S15: with an entry that would climb out of the folder it is unpacked in."""
    inside = tmp_path / "in"
    inside.mkdir()
    if name.endswith(".zip"):
        with zipfile.ZipFile(inside / name, "w") as packed:
            packed.writestr("../canary", "x")
    else:
        with tarfile.open(inside / name, "w:gz") as packed:
            packed.addfile(tarfile.TarInfo("../canary"))
    with pytest.raises(RecipeError, match="no ending that is known"):
        splits_of(str(inside / name))
    assert sorted(tmp_path.rglob("*")) == [inside, inside / name]


@pytest.mark.parametrize("ending", ["jsonl", "csv", "txt"])
def test_a_small_archive_that_unpacks_to_one_endless_line_is_refused(ending, tmp_path, monkeypatch):
    """S15: and little beyond the bound is ever in memory."""
    monkeypatch.setattr(files, "MOST_CHARACTERS", 2**20)
    file = tmp_path / f"a.{ending}.gz"
    with gzip.open(file, "wb", compresslevel=1) as packed:
        for _ in range(64):
            packed.write(b"a" * 2**20)
    tracemalloc.start()
    try:
        with pytest.raises(RecipeError, match="a line of more than"):
            rows(file)
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    finally:
        tracemalloc.stop()


def test_rows_without_end_are_refused(monkeypatch, tmp_path):
    """S15."""
    monkeypatch.setattr(files, "MOST_ROWS", 3)
    (tmp_path / "a.txt").write_text("a\n" * 4)
    with pytest.raises(RecipeError, match="more than 3 rows"):
        rows(tmp_path / "a.txt")
    (tmp_path / "a.txt").write_text("a\n" * 3)
    assert len(rows(tmp_path / "a.txt")) == 3


def test_bytes_that_are_no_text_are_told_with_the_files_name(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(RecipeError, match=r"a\.txt.*\n.*cannot be read"):
        rows(tmp_path / "a.txt")


def test_a_folder_has_a_file_per_split(write, hh, tmp_path):
    folder = hh(tmp_path / "mine")
    (folder / "README.md").write_text("about")
    assert splits_of(str(folder)) == {"train": folder / "train.jsonl.gz", "test": folder / "test.jsonl.gz"}
    write(folder / "dev.csv", [{"prompt": "a"}])
    assert list(splits_of(str(folder))) == ["train", "dev", "test"]
    write(folder / "train.txt", ["a"])
    with pytest.raises(RecipeError, match=r"train\.jsonl\.gz and train\.txt: which of them"):
        splits_of(str(folder))


@pytest.mark.parametrize(
    ("make", "source", "said"),
    [
        ([], "a.jsonl", "no such file or folder; write `micro`, `hh-rlhf`, `oasst1`, `oasst2`, a file"),
        (["a.parquet"], "a.parquet", "no ending that is known"),
        (["f/train.jsonl", "f/notes.md"], "f", "a folder needs a train and a test file .*there is: notes.md, train.jsonl"),
    ],
)
def test_what_is_no_source_is_told(make, source, said, tmp_path):
    for name in make:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(RecipeError, match=said):
        splits_of(str(tmp_path / source))


def test_a_named_source_is_never_a_folder_that_happens_to_have_its_name(hh, tmp_path, monkeypatch):
    hh(tmp_path / "hh-rlhf")
    monkeypatch.chdir(tmp_path)
    assert row_files("hh-rlhf") == {}
    assert set(row_files("./hh-rlhf")) == {"train", "test"}
