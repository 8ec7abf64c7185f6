"""hh-rlhf: the real calls of huggingface_hub and `datasets`, offline, on a cache that holds small files of the same form."""

import socket

import pytest

from lite.errors import PreconditionError, RecipeError
from lite.sources import hub
from lite.sources.files import read_file
from lite.tasks import load as task

datasets = pytest.importorskip("datasets")
huggingface_hub = pytest.importorskip("huggingface_hub")

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the Hub, and no way out: offline, and no socket connects."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "datasets"))

    def refuse(self, address):
        raise AssertionError(f"a connection to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    return tmp_path / "hub"


@pytest.fixture
def repo(cache, hh):
    """The cache after one download of harmless-base, as huggingface_hub lays it out."""
    folder = cache / "datasets--Anthropic--hh-rlhf"
    hh(folder / "snapshots" / COMMIT / "harmless-base")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    return folder / "snapshots" / COMMIT


def test_datasets_reads_what_is_published(hh, tmp_path, cache):
    """The call that ``load`` makes, on a folder: the form of the files is one that `datasets` knows."""
    hh(tmp_path / "copy" / "harmless-base")
    found = datasets.load_dataset(str(tmp_path / "copy"), data_dir="harmless-base")
    assert {split: (len(rows), rows.column_names) for split, rows in found.items()} == {
        "train": (12, ["chosen", "rejected"]),
        "test": (8, ["chosen", "rejected"]),
    }


def test_a_cached_subset_is_loaded_offline_and_says_its_commit(repo, capfd):
    loaded = hub.load("harmless-base", None)
    assert loaded.commit == COMMIT
    for split, rows in loaded.rows.items():
        local = list(read_file(repo / "harmless-base" / f"{split}.jsonl.gz", plain="prompt"))
        assert [values for _, values in rows] == [values for _, values in local]
    assert capfd.readouterr() == ("", "")  # no bars


def test_rows_are_counted_from_one(repo):
    assert next(hub.load("harmless-base", COMMIT).rows["test"])[0] == "row 1"


@pytest.mark.parametrize(("subset", "revision"), [("helpful-base", None), ("harmless-base", "89abcdef" * 5), ("harmless-base", "v2")])
def test_what_is_not_cached_is_never_replaced_by_what_is(repo, subset, revision):
    with pytest.raises(PreconditionError) as error:
        hub.load(subset, revision)
    assert error.value.exit_code == 3
    assert f"Anthropic/hh-rlhf ({subset}, revision {revision or 'main'})" in str(error.value)


def test_an_empty_cache_says_what_to_do(cache):
    with pytest.raises(PreconditionError) as error:
        hub.load("harmless-base", None)
    assert "offline, and it is not in the cache; run once with the Hub in reach and without --offline" in str(error.value)
    assert "prompts.source=FOLDER with train.jsonl.gz and test.jsonl.gz" in str(error.value)


def test_a_torn_file_in_the_cache_is_told(repo):
    file = repo / "harmless-base" / "train.jsonl.gz"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(PreconditionError, match=r"Anthropic/hh-rlhf.*cannot be read.*delete"):
        hub.load("harmless-base", None)


def test_a_missing_split_is_told(repo):
    (repo / "harmless-base" / "test.jsonl.gz").unlink()
    with pytest.raises(PreconditionError, match=r"Anthropic/hh-rlhf.*the test split is not in"):
        hub.load("harmless-base", None)


@pytest.mark.parametrize(
    ("kind", "code", "said"),
    [
        ("GatedRepoError", 401, "hf auth login"),
        ("RevisionNotFoundError", 404, "no such revision"),
        ("HfHubHTTPError", 500, "main) cannot be had: no"),
    ],
)
def test_the_hubs_refusals_say_what_to_do(kind, code, said, cache, monkeypatch):
    from httpx import Request, Response
    from huggingface_hub import errors

    def refuse(*_, **__):
        raise getattr(errors, kind)("no\nmore", response=Response(code, request=Request("GET", "https://huggingface.co")))

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(PreconditionError) as error:
        hub.load("harmless-base", None)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_hub_out_of_reach_is_told_with_the_reason(cache, monkeypatch):
    """No route and no --offline: told at once, with what the connection said."""
    from httpx import ConnectError

    def unreachable(*_, **__):
        raise ConnectError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", unreachable)
    with pytest.raises(PreconditionError, match=r"the Hub is out of reach \(Name or service not known\), and it is not in the cache"):
        hub.load("harmless-base", None)


def test_the_subset_of_a_task():
    assert [hub.subset_for(task(name)) for name in ("harmless", "helpful")] == ["harmless-base", "helpful-base"]
    with pytest.raises(RecipeError, match="a file of premises of your own"):
        hub.subset_for(task("outline"))
    with pytest.raises(RecipeError, match=r"prompts\.subset"):
        hub.subset_for(task("helpful").model_copy(update={"name": "mine"}))


def test_a_cold_cache_ends_a_run_with_exit_code_3_and_no_traceback(cli, tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("base: {model: tiny}\ntask: harmless\nstages:\n  - prompts: {source: hh-rlhf, train: 4, dev: 1, test: 2}\n")
    done = cli("run", recipe, "--offline", "--runs", tmp_path / "runs", HF_HOME=str(tmp_path / "hf"))
    assert done.returncode == 3
    assert "prompts.source=hh-rlhf, the dataset Anthropic/hh-rlhf (harmless-base)" in done.stderr
    assert "Traceback" not in done.stderr
    assert "\r" not in done.stderr
