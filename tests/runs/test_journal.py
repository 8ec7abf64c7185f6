import threading

import pytest

from lite.errors import PreconditionError
from lite.runs import read
from lite.runs.journal import Journal, StageJournal, append_line, clean
from lite.runs.layout import StageFolder


def test_two_runs_of_one_moment_get_two_folders(tmp_path, monkeypatch):
    names = iter(["a", "a", "b"])
    monkeypatch.setattr("lite.runs.journal.new_run_name", lambda label: next(names))
    assert [Journal.create(tmp_path, "r").run.name for _ in range(2)] == ["a", "b"]


def test_run_json_is_whole_at_every_moment(tmp_path):
    journal = Journal.create(tmp_path, "r")
    journal.update(n=0)
    torn = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            if "n" not in read.read_json(journal.run.run):
                torn.append(1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for n in range(200):
        journal.update(n=n, text="x" * n)
    stop.set()
    watcher.join()
    assert not torn


def test_a_torn_last_line_is_dropped_by_the_next_one(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"a": 1}\n{"a": 2')
    assert list(read.lines(file)) == [{"a": 1}]
    append_line(file, '{"a": 3}')
    assert file.read_text() == '{"a": 1}\n{"a": 3}\n'


def test_a_file_that_is_nothing_but_a_torn_line_begins_anew(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"a"')
    append_line(file, '{"a": 3}')
    assert file.read_text() == '{"a": 3}\n'


def test_stage_figures_and_samples(tmp_path):
    files = StageJournal(StageFolder(tmp_path))
    files.metric(step=1, loss=float("inf"))
    files.show(prompt="p")
    assert next(read.lines(tmp_path / "metrics.jsonl"))["loss"] is None
    assert list(read.lines(tmp_path / "samples.jsonl")) == [{"prompt": "p"}]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("token hf_abcdefghijklmnop here", "token <secret> here"),
        ("Authorization: Bearer abcdefgh123", "Authorization: <secret>"),
        ("WANDB_API_KEY=0123456789abcdef", "<secret>"),
        ("\x1b[31mred\x1b[0m\rline\x07", "red\nline"),
        ("kl 0.5 at step 3", "kl 0.5 at step 3"),
        ("the token: ab", "the token: ab"),
    ],
)
def test_the_log_has_no_secrets_and_no_control_characters(text, expected):
    assert clean(text) == expected


def test_the_log_has_a_time_on_every_line(tmp_path):
    journal = Journal.create(tmp_path, "r")
    journal.log("a\nb\r\nc")
    lines = journal.run.log.read_bytes().splitlines()
    assert len(lines) == 3
    assert all(line.startswith(b"20") for line in lines)
    assert b"\r" not in journal.run.log.read_bytes()


def test_progress_is_written_now_and_then(tmp_path):
    journal = Journal.create(tmp_path, "r")
    for done in range(100):
        journal.progress(done, 100, "rows", "decoding")
    assert journal.facts["progress"]["done"] == 0
    journal.PROGRESS_SECONDS = 0  # type: ignore[misc]
    journal.progress(100, 100, "rows", "decoding")
    assert read.read_json(journal.run.run)["progress"]["done"] == 100


def test_a_folder_that_cannot_be_made_is_a_precondition(tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(PreconditionError, match="--runs"):
        Journal.create(tmp_path / "runs", "r")
