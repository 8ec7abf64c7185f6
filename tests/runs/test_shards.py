"""The journal of finished shards, and the work by shard that a bench offers: nothing lost, nothing made twice, nothing torn believed."""

from types import SimpleNamespace

import pytest

from lite.errors import Stopped
from lite.runs.shards import Shards, divide
from lite.stages.bench import Desk

KEYS = [f"p{i}" for i in range(7)]


class Work:
    """Makes values, and dies after so many shards."""

    def __init__(self, ckpt, *, shards=None, stop=False):
        self.bench = Desk(
            seed=17,
            stage="s",
            ckpt=ckpt,
            reporter=SimpleNamespace(log=self.log),  # type: ignore[arg-type]
            load_bank=lambda: None,  # type: ignore[arg-type,return-value]
            stop_asked=lambda: stop and len(self.calls) == shards,
        )
        self.shards, self.stop = shards, stop
        self.calls, self.said = [], []

    def log(self, text):
        self.said.append(text)

    def make(self, which):
        if len(self.calls) == self.shards:
            raise ZeroDivisionError
        self.calls.append(which)
        return [("value", i) for i in which]

    def go(self):
        return self.bench.by_shard("work", KEYS, self.make, size=2)


EXPECTED = [["value", i] for i in range(7)]


@pytest.mark.parametrize("died_after", range(4))
def test_whatever_is_done_is_not_made_again(tmp_path, died_after):
    before = Work(tmp_path, shards=died_after)
    with pytest.raises(ZeroDivisionError):
        before.go()
    after = Work(tmp_path)
    assert after.go() == EXPECTED
    assert before.calls + after.calls == [[0, 1], [2, 3], [4, 5], [6]]


def test_a_stop_comes_between_shards(tmp_path):
    work = Work(tmp_path, shards=2, stop=True)
    with pytest.raises(Stopped):
        work.go()
    assert list(Shards(tmp_path / "work.jsonl").rows) == KEYS[:4]


@pytest.mark.parametrize("bytes_lost", [1, 2, 20, 45])
def test_a_torn_end_costs_its_shard_and_is_said(tmp_path, bytes_lost):
    Work(tmp_path).go()
    file = tmp_path / "work.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[:-bytes_lost])
    again = Work(tmp_path)
    assert again.go() == EXPECTED
    assert again.calls == [[6]]
    assert "made again" in again.said[0]
    assert file.read_bytes() == whole


def test_a_flipped_byte_costs_its_shard_and_what_follows(tmp_path):
    Work(tmp_path).go()
    file = tmp_path / "work.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([lines[0], lines[1].replace(b"value", b"valve", 1), *lines[2:]]))
    again = Work(tmp_path)
    assert again.go() == EXPECTED
    assert again.calls == [[2, 3], [4, 5], [6]]


def test_values_are_what_a_reader_will_find(tmp_path):
    shards = Shards(tmp_path / "work.jsonl")
    kept = shards.add({"a": (1, 2.5, "ä\n\u2028"), "b": None})
    assert kept == {"a": [1, 2.5, "ä\n\u2028"], "b": None} == Shards(tmp_path / "work.jsonl").rows


def test_other_shard_sizes_take_over_what_is_there(tmp_path):
    before = Work(tmp_path, shards=2)
    with pytest.raises(ZeroDivisionError):
        before.go()
    after = Work(tmp_path)
    assert after.bench.by_shard("work", KEYS, after.make, size=5) == EXPECTED
    assert after.calls == [[4], [5, 6]]


def test_shards_end_where_a_group_does():
    assert divide(7, 3) == [[0, 1, 2], [3, 4, 5], [6]]
    assert divide(7, 3, [0, 0, 1, 1, 1, 2, 2]) == [[0, 1, 2, 3, 4], [5, 6]]
    assert divide(0, 3) == []


def test_a_key_that_comes_twice_is_a_mistake_of_the_stage(tmp_path):
    with pytest.raises(ValueError, match="work: 2 keys, 1 of them different"):
        Work(tmp_path).bench.by_shard("work", ["a", "a"], list, size=2)
