from datetime import UTC, datetime

import pytest

from lite.errors import RecipeError
from lite.runs import read
from lite.runs.journal import Journal
from lite.runs.layout import RUN_NAME, RunFolder, new_run_name


@pytest.fixture
def runs(tmp_path):
    for i, recipe in enumerate(["a", "b", "a"]):
        folder = tmp_path / f"2026010{i}T000000Z-{recipe}-00000{i}"
        folder.mkdir()
        Journal(RunFolder(folder)).update(state="done", recipe=recipe, name="mine" if i == 1 else None)
    (tmp_path / "not-a-run").mkdir()
    return tmp_path


def test_runs_are_listed_by_age(runs):
    assert [run.recipe for run in read.all_runs(runs)] == ["a", "b", "a"]
    assert read.all_runs(runs / "nowhere") == []


def test_runs_are_found_by_name_label_beginning_end_path_and_age(runs):
    names = [run.name for run in read.all_runs(runs)]
    assert read.find(runs, "latest").name == names[2]
    assert read.find(runs, "latest", "b").name == names[1]
    assert read.find(runs, names[0]).name == names[0]
    assert read.find(runs, "mine").name == names[1]
    assert read.find(runs, "20260102").name == names[2]
    assert read.find(runs, "000000").name == names[0]
    assert read.find(runs, str(runs / names[1])).name == names[1]


@pytest.mark.parametrize(("name", "expected"), [("nothing", "no such run"), ("2026", "3 runs are named so"), ("../..", "no such run")])
def test_a_name_that_fits_none_or_many_is_refused(runs, name, expected):
    with pytest.raises(RecipeError, match=expected):
        read.find(runs, name)


def test_few_runs_are_named_and_what_was_meant_is(runs):
    def told(name):
        with pytest.raises(RecipeError) as error:
            read.find(runs, name)
        return error.value.problems[0]

    names = [run.name for run in read.all_runs(runs)]
    assert told("nothing").endswith(f"no such run (there are: {', '.join(reversed(names))})")
    assert "did you mean 'mine'?" in told("mime")
    for i in range(4, 40):
        folder = runs / f"202601{i:02d}T000000Z-c-0000{i:02d}"
        folder.mkdir()
        Journal(RunFolder(folder)).update(state="done", recipe="c")
    names = [run.name for run in read.all_runs(runs)]
    newest = ", ".join(names[:-4:-1])
    assert told("nothing") == f"nothing: no such run (the newest: {newest}; `lite ls runs` has them all)"
    assert told("2026") == f"2026: {len(names)} runs are named so (the newest: {newest}; `lite ls runs` has them all)"


def test_a_folder_with_a_model_is_told_from_a_run(runs, tmp_path):
    whole, adapter = tmp_path / "merged", tmp_path / "tuned"
    for folder, file in ((whole, "config.json"), (adapter / "adapter", "adapter_config.json")):
        folder.mkdir(parents=True)
        (folder / file).write_text("{}")
    with pytest.raises(RecipeError, match=r"a whole \(merged\) model.*from_pretrained.*base\.model="):
        read.find(runs, str(whole))
    with pytest.raises(RecipeError, match=r"with an adapter, and no run.*load_policy"):
        read.find(runs, str(adapter))


def test_no_runs_yet(tmp_path):
    with pytest.raises(RecipeError, match="no run here yet"):
        read.find(tmp_path, "latest")


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"x"', "\udcff"])
def test_the_reader_never_raises_on_what_a_crash_left(tmp_path, content):
    folder = tmp_path / "20260101T000000Z-a-000000"
    (folder / "stages/01-prompts").mkdir(parents=True)
    for name in ("run.json", "report.json", "stages/01-prompts/stage.json"):
        (folder / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    run = read.all_runs(tmp_path)[0]
    assert run.state == "interrupted"
    assert run.report() == {}
    assert not run.stages()[0].done


def test_a_run_that_says_running_without_a_process_is_interrupted(tmp_path):
    journal = Journal.create(tmp_path, "a")
    journal.update(state="running")
    run = read.open_run(journal.run.path)
    assert run.state == "interrupted"
    with journal.held():
        assert run.state == "running"


def test_names_of_runs_are_plain_and_differ():
    moments = [datetime(2026, 11, 21, microsecond=250 * k, tzinfo=UTC) for k in range(20)]
    names = {new_run_name("tiny_rlcd_helpful" * 9, moment) for moment in moments}
    assert len(names) == 20
    assert all(RUN_NAME.fullmatch(name) for name in names)
