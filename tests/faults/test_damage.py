"""What a crash, a full disk or a bad sector leaves: never believed, always said, and the run goes on to the same bits (R3, R11, R15)."""

import os
import random
import resource
import shutil
from pathlib import Path

import pytest

from lite.runs import read
from lite.runs.checkpoints import Checkpoints
from lite.stages.bench import Bench
from lite.ui import series, watch

CUT_OFF = 9


def killed_after(stage: str, step: int) -> None:
    """In a fork: die as by kill -9 when so many steps of a stage are done and kept."""
    keep = Bench.keep

    def kept(bench: Bench, done: int, *words: object, **named: object) -> None:
        keep(bench, done, *words, **named)  # type: ignore[arg-type]
        if bench.stage == stage and done == step:
            os._exit(CUT_OFF)

    Bench.keep = kept  # type: ignore[method-assign,assignment]


@pytest.fixture(scope="module")
def cut_off(lab, tmp_path_factory):
    """A run that died in its reward stage, with checkpoints of the steps 2 and 4."""
    runs = lab.before("reward", tmp_path_factory.mktemp("cut") / "runs")
    assert lab.live(runs, disturb=lambda: killed_after("reward", 4)) == CUT_OFF
    assert sorted(path.name for path in lab.stage(runs, "reward").ckpt.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]
    return runs


def halve(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


DAMAGES = {
    "empty": (lambda folder: [file.unlink() for file in folder.iterdir()], "not complete"),
    "truncated safetensors": (lambda folder: halve(folder / "weights.safetensors"), "weights.safetensors is damaged"),
    "no state": (lambda folder: (folder / "state.json").unlink(), "state.json is missing"),
    "no optimizer": (lambda folder: (folder / "optimizer.safetensors").unlink(), "optimizer.safetensors is missing"),
    "garbage optimizer": (lambda folder: (folder / "optimizer.safetensors").write_bytes(b"\0" * 500), "optimizer.safetensors is damaged"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_training_with_a_damaged_newest_checkpoint_goes_on_from_the_one_before_to_the_same_bits(lab, cut_off, tmp_path, damage):
    runs = shutil.copytree(cut_off, tmp_path / "runs")
    hurt, reason = DAMAGES[damage]
    hurt(lab.stage(runs, "reward").ckpt / "checkpoint-4")
    assert lab.live(runs, until="reward") == 0
    log = lab.run(runs).folder.log.read_text()
    assert "checkpoint-4" in log
    assert f"{reason}; going on from step 2" in log.replace(" (no readable manifest.json)", "")
    assert lab.differences(runs, "reward") == []


def too_small_a_file(stage: str, step: int) -> None:
    """In a fork: from a step on no file may grow over 20,000 bytes, as on a disk that is full."""
    keep = Bench.keep

    def kept(bench: Bench, done: int, *words: object, **named: object) -> None:
        if bench.stage == stage and done == step:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
        keep(bench, done, *words, **named)  # type: ignore[arg-type]

    Bench.keep = kept  # type: ignore[method-assign,assignment]


def test_a_disk_that_is_full_in_the_middle_of_a_checkpoint_costs_that_one_only(lab, tmp_path):
    runs = lab.before("reward", tmp_path / "runs")
    assert lab.live(runs, disturb=lambda: too_small_a_file("reward", 4)) == 3
    run = lab.run(runs)
    for part in ("stage reward: no space left", "are free under", "writes about", f"lite run --resume {run.folder.path}"):
        assert part in run.facts["error"]
    ckpt = lab.stage(runs, "reward").ckpt
    assert [path.name for path in ckpt.iterdir()] == ["checkpoint-2"]
    found, problems = Checkpoints(ckpt).newest()
    assert (found.step, problems) == (2, [])
    assert not list(run.folder.path.rglob("*.tmp"))
    assert lab.live(runs, until="reward") == 0
    assert lab.differences(runs, "reward") == []


def flip(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(bytes(content))


def test_one_byte_flipped_in_a_finished_result_is_noticed_before_it_is_used(lab, tmp_path):
    files = [file.relative_to(lab.whole) for file in sorted(lab.whole.rglob("stages/*/out/**/*")) if file.is_file()]
    assert {"pairs.jsonl", "adapter_model.safetensors", "head.safetensors", "train.jsonl"} <= {file.name for file in files}
    draw = random.Random(17)
    for n, file in enumerate(files):
        runs = shutil.copytree(lab.whole, tmp_path / str(n))
        flip(runs / file, draw.randrange((runs / file).stat().st_size))
        assert lab.live(runs, load_bank=None) == 1, file  # no base is loaded
        assert f"{file.name}: the file has changed since it was published" in lab.run(runs).facts["error"]
        shutil.rmtree(runs)


def killed_in_the_third_shard() -> None:
    by_shard = Bench.by_shard

    def watched(bench: Bench, name: str, keys, make, **named):
        def made(which: list[int]):
            if which[0] >= 2 * len(which) and bench.stage == "contrast":
                os._exit(CUT_OFF)
            return make(which)

        return by_shard(bench, name, keys, made, **named)

    Bench.by_shard = watched  # type: ignore[method-assign,assignment]


@pytest.mark.parametrize("how", ["torn", "flipped"])
def test_a_bad_last_line_of_a_generations_journal_is_dropped_and_made_again(lab, tmp_path, how):
    runs = lab.before("contrast", tmp_path / "runs")
    assert lab.live(runs, disturb=killed_in_the_third_shard) == CUT_OFF
    (journal,) = lab.stage(runs, "contrast").ckpt.glob("*.jsonl")
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) == 2
    place = len(lines[0]) + random.Random(how).randrange(1, len(lines[1]))
    os.truncate(journal, place) if how == "torn" else flip(journal, place)
    assert lab.live(runs, until="contrast") == 0
    assert "the last shard was written in part or damaged" in lab.run(runs).folder.log.read_text()
    assert lab.differences(runs, "contrast") == []


def test_a_reader_meets_torn_files_without_a_word(lab, tmp_path):
    runs, draw = shutil.copytree(lab.whole, tmp_path / "runs"), random.Random(17)
    for file in (*runs.rglob("*.jsonl"), *runs.rglob("run.json"), *runs.rglob("stage.json"), *runs.rglob("log.txt")):
        os.truncate(file, draw.randrange(file.stat().st_size))
    for found in read.all_runs(runs):
        assert watch.row(found).state
        watch.tail(found.folder.log, 40)
        for view in watch.stages(found):
            series.charts(watch.metrics(found, view.id))
            watch.samples(found, view.id)
