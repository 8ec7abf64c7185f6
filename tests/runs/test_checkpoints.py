"""A checkpoint is believed only when it is whole; a damaged one is named, and the one before it is taken."""

import json

import pytest

from lite.runs.checkpoints import MANIFEST, Checkpoints, seal


def write(folder, step, *, of=80, figures=None):
    with Checkpoints(folder).write(step, of, figures or {}) as scratch:
        for name in ("weights.safetensors", "optimizer.safetensors", "state.json"):
            (scratch / name).write_text(f"{name} of step {step}")


DAMAGES = {
    "an empty folder": lambda folder: [file.unlink() for file in folder.iterdir()],
    "a cut file": lambda folder: (folder / "weights.safetensors").write_text("weig"),
    "no state": lambda folder: (folder / "state.json").unlink(),
    "no optimiser": lambda folder: (folder / "optimizer.safetensors").unlink(),
    "a garbage optimiser": lambda folder: (folder / "optimizer.safetensors").write_bytes(b"\0" * 30),
    "a torn manifest": lambda folder: (folder / MANIFEST).write_text('{"step": 40, "of'),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_falls_back_and_says_why(tmp_path, damage):
    write(tmp_path, 20)
    write(tmp_path, 40)
    DAMAGES[damage](tmp_path / "checkpoint-40")
    found, problems = Checkpoints(tmp_path).newest()
    assert found is not None
    assert (found.step, found.of) == (20, 80)
    assert len(problems) == 1
    assert "checkpoint-40" in problems[0]
    assert any(word in problems[0] for word in ("missing", "damaged", "not complete"))
    assert not (tmp_path / "checkpoint-40").exists()


def test_where_all_are_damaged_there_is_none(tmp_path):
    write(tmp_path, 20)
    write(tmp_path, 40)
    for step in (20, 40):
        DAMAGES["no optimiser"](tmp_path / f"checkpoint-{step}")
    found, problems = Checkpoints(tmp_path).newest()
    assert found is None
    assert len(problems) == 2


def test_the_newest_two_are_kept_by_number_not_by_name(tmp_path):
    for step in (8, 9, 10):
        write(tmp_path, step)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-9"]
    found, _ = Checkpoints(tmp_path).newest()
    assert found is not None
    assert found.step == 10


def test_a_write_that_fails_leaves_nothing_and_the_one_before(tmp_path):
    write(tmp_path, 20)

    def fill_the_disk() -> None:
        with Checkpoints(tmp_path).write(40, 80, {}) as scratch:
            (scratch / "weights.safetensors").write_text("half")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fill_the_disk()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-20"]


def test_a_folder_that_another_trainer_wrote_counts_once_it_is_sealed(tmp_path):
    (tmp_path / "checkpoint-5").mkdir()
    (tmp_path / "checkpoint-5" / "trainer_state.json").write_text(json.dumps({"global_step": 5}))
    seal(tmp_path / "checkpoint-5", step=5, of=9, figures={"metrics.jsonl": 120})
    found, problems = Checkpoints(tmp_path).newest()
    assert found is not None
    assert not problems
    assert found.figures == {"metrics.jsonl": 120}


def test_due_by_steps_or_by_time(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    assert [step for step in range(1, 10) if checkpoints.due(step, 4)] == [4, 8]
    checkpoints.SECONDS = 0  # type: ignore[misc]
    assert checkpoints.due(5, 4)
