"""The Colab notebooks: as they are stored, and run from end to end on the embedded base."""

import json
from pathlib import Path

import pytest

from lite import recipe
from lite.plan import plan

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request) -> Path:
    return request.param


def cells(path: Path, kind: str) -> list[str]:
    return ["".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def test_they_are_there():
    assert [path.stem for path in NOTEBOOKS] == ["rlcd", "self_rewarding"]


def test_outputs_are_stripped_and_a_gpu_is_asked_for(notebook):
    found = json.loads(notebook.read_text(encoding="utf-8"))
    for cell in found["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
    assert found["metadata"]["accelerator"] == "GPU"


def test_the_badge_opens_this_notebook(notebook):
    assert f"/blob/main/notebooks/{notebook.name})" in cells(notebook, "markdown")[0]
    assert "colab-badge.svg" in cells(notebook, "markdown")[0]


def test_the_recipe_inside_is_whole_and_in_fp16(notebook):
    (source,) = [text for text in cells(notebook, "code") if "RECIPE = " in text]
    loaded = recipe.loads(source.split('"""')[1], name=notebook.stem)
    assert loaded.base.dtype == "float16"  # a T4 has no bf16
    assert plan(loaded)


def test_it_runs_from_end_to_end(notebook, tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    for name, value in {"FAST": "1", "RUNS": str(tmp_path / "runs"), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    done = nbclient.NotebookClient(
        nbformat.read(notebook, as_version=4), timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    printed = json.dumps([cell.get("outputs", []) for cell in done.cells])
    assert "will run" in printed  # the plan
    assert "| base" in printed  # the report
    assert "policy: " in printed
    assert (tmp_path / "runs/adapter.zip").is_file()
