"""Names and folders from a browser (S6): 25 attacks, no escape."""

import pytest

from lite.errors import RecipeError
from lite.ui import places

ATTACKS = (
    "..", "../..", "../secret", "../../etc/passwd", "/etc/passwd", "/", "~", "~root", "~/.ssh", ".", "./x/../..", "a/../../b", "a/b",
    "\\\\host\\share", "..\\..\\x", "C:\\Windows", "file:///etc/passwd", "x\0y", "x\n..", "", " ", "-rf", "%2e%2e%2f", "a" * 81, "link", None, 7, ["x"],
)  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS, ids=repr)
def test_no_name_leads_out_of_the_folder_of_runs(fakes, tmp_path, name):
    fakes.go()
    outside = tmp_path / "secret"
    outside.mkdir()
    (outside / "run.json").write_text("{}", encoding="utf-8")
    (fakes.folder / "link").symlink_to(outside)
    assert places.open_run(fakes.folder, name) is None


def test_a_run_is_found_by_its_name(done_run):
    found = places.open_run(done_run.folder.path.parent, done_run.name)
    assert found and found.name == done_run.name


@pytest.mark.parametrize(
    "value", ["/etc/passwd", "../x", "~/models", "..\\x", "\\\\host\\share", "file:///etc", "a/../../../b", '"x\\0y"', "out"]
)
@pytest.mark.parametrize("place", ["base", "task", "source"])
def test_a_recipe_names_no_place_outside(tmp_path, monkeypatch, small_recipe, place, value):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").symlink_to("/etc")
    text = {
        "base": small_recipe.replace("model: tiny", f"model: {value}"),
        "task": small_recipe.replace("task: helpful", f"task: {value}"),
        "source": small_recipe.replace("{train: 6,", f"{{source: {value}, train: 6,"),
    }[place]
    with pytest.raises(RecipeError, match="outside the folders"):
        places.check_recipe(text, [], [tmp_path])


@pytest.mark.parametrize("value", ["tiny", "Qwen/Qwen2.5-7B", "models/mine", "./models"])
def test_hub_ids_and_folders_inside_pass(tmp_path, monkeypatch, small_recipe, value):
    monkeypatch.chdir(tmp_path)
    places.check_recipe(small_recipe, [f"base.model={value}"], [tmp_path])


@pytest.mark.parametrize("value", ["data", "./data"])
def test_a_folder_with_a_link_that_leads_out_is_refused(tmp_path, monkeypatch, small_recipe, value):
    """S15: an archive that was unpacked there may have brought it. A link to a place inside is none."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "mine.jsonl").write_text("{}", encoding="utf-8")
    (tmp_path / "data" / "test.jsonl").symlink_to(tmp_path / "mine.jsonl")
    text = small_recipe.replace("{train: 6,", f"{{source: {value}, train: 6,")
    places.check_recipe(text, [], [tmp_path])
    (tmp_path / "data" / "train.jsonl").symlink_to("/etc/passwd")
    with pytest.raises(RecipeError, match="outside the folders"):
        places.check_recipe(text, [], [tmp_path])


@pytest.mark.parametrize(
    "text", ["a: !!python/object/apply:os.system ['touch x']", "a: &a [1]\nb: *a", "x: " + "y" * 1_000_001, "[" * 5000]
)
def test_yaml_that_is_no_recipe_is_refused(tmp_path, text):
    """S10."""
    with pytest.raises(RecipeError):
        places.check_recipe(text, [], [tmp_path])
