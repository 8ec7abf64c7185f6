"""Several processes before they have met: which card is whose, who does a command, and what is said where nobody comes."""

import json
import os
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from lite.cli import done_together
from lite.errors import PreconditionError
from lite.runs.ranks import LAUNCHED, join, own_card

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("local", "listed", "card"),
    [
        ("0", None, "0"),
        ("3", None, "3"),
        (None, None, "0"),
        ("0", "2,3", "2"),
        ("1", "2, 3", "3"),
        ("1", "GPU-8932f937,GPU-4b1c7a12,GPU-0", "GPU-4b1c7a12"),
        ("0", "MIG-6f3e", "MIG-6f3e"),
        ("1", "4,5,-1,6", "5"),
    ],
)
def test_a_process_sees_the_card_of_its_local_rank(local, listed, card):
    given = {"LOCAL_RANK": local, "CUDA_VISIBLE_DEVICES": listed, "OTHER": "x"}
    environment = {name: value for name, value in given.items() if value is not None}
    changes = own_card(environment)
    assert changes == {"CUDA_VISIBLE_DEVICES": card, "LOCAL_RANK": "0"}
    assert own_card(environment | changes) == changes  # asked twice, the same card


@pytest.mark.parametrize("listed", ["", " ", "-1", "-1,0"])
def test_where_no_card_is_to_be_seen_none_is(listed):
    assert own_card({"LOCAL_RANK": "1", "CUDA_VISIBLE_DEVICES": listed}) == {}


@pytest.mark.parametrize("listed", ["0", "4,-1,5", "GPU-8932f937"])
def test_fewer_cards_than_processes_are_refused(listed):
    with pytest.raises(PreconditionError, match=r"names 1 GPU.*process 2.*LOCAL_RANK=1.*base.device=cpu") as e:
        own_card({"LOCAL_RANK": "1", "CUDA_VISIBLE_DEVICES": listed})
    assert e.value.exit_code == 3


def free_port() -> str:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_meeting_to_which_nobody_comes_is_given_up(rank, monkeypatch):
    port = free_port()
    for name, value in {
        "RANK": rank,
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "CUDA_VISIBLE_DEVICES": "",
    }.items():
        monkeypatch.setenv(name, value)
    begun = time.monotonic()
    with pytest.raises(PreconditionError, match=rf"rank {rank} of 2.*127.0.0.1:{port} within 1 s.*unset RANK and WORLD_SIZE"):
        join(timedelta(seconds=1))
    assert time.monotonic() - begun < 30


def test_a_meeting_without_a_place_is_told_at_once(monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "CUDA_VISIBLE_DEVICES": ""}.items():
        monkeypatch.setenv(name, value)
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(PreconditionError, match="MASTER_ADDR is not set"):
        join(timedelta(minutes=5))


def test_only_a_run_is_done_together():
    assert done_together(["run", "tiny_rlcd_helpful"])
    assert done_together(["run", "--resume", "latest", "--offline"])
    for words in (["ls"], [], ["--help"], ["plan", "run"], ["run", "x", "--dry-run"], ["run", "--help"], ["run", "x", "--detach"]):
        assert not done_together(words)


MEETING = """
import json, os, sys
from lite.runs.ranks import LAUNCHED, join, launched, several

ranks = join()
told = (ranks.number, launched(), several(), os.environ["CUDA_VISIBLE_DEVICES"], [name for name in LAUNCHED if name in os.environ])
assert join() is ranks
print(json.dumps([ranks.first(ranks.number), ranks.gather(told)]))
ranks.leave(whole=True)
"""


def start(rank: int, *command: str, folder: Path, **more: str) -> subprocess.Popen[str]:
    """One of two processes that a scheduler has numbered."""
    environment = {name: value for name, value in os.environ.items() if name not in LAUNCHED}
    environment |= {"PYTHONPATH": str(ROOT), "RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", **more}
    command = (sys.executable, *command)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder, env=environment)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        out, error = process.communicate(timeout=100)
    finally:
        process.kill()
    return process.returncode, out, error


def test_who_has_met_sees_its_own_card_and_tells_its_libraries_nothing_of_others(tmp_path):
    port = free_port()
    cards = {"CUDA_VISIBLE_DEVICES": "GPU-aaaa,GPU-bbbb", "MASTER_PORT": port}
    both = [start(rank, "-c", MEETING, folder=tmp_path, LOCAL_RANK=str(rank), **cards) for rank in (0, 1)]
    for code, out, error in [ended(process) for process in both]:
        assert code == 0, error
        assert json.loads(out.splitlines()[-1]) == [0, [[0, 0, True, "GPU-aaaa", []], [1, 1, True, "GPU-bbbb", []]]]


def test_a_command_with_too_few_cards_ends_before_the_meeting(tmp_path):
    words = ("-m", "lite.cli", "run", "tiny_rlcd_helpful")
    code, out, error = ended(start(1, *words, folder=tmp_path, LOCAL_RANK="1", CUDA_VISIBLE_DEVICES="0", MASTER_PORT=free_port()))
    assert (code, out) == (3, "")
    assert error.startswith("lite: rank 1: CUDA_VISIBLE_DEVICES=0 names 1 GPU(s)")


@pytest.mark.parametrize(("words", "told"), [(("ls", "tasks"), "helpful"), (("run", "tiny_rlcd_helpful", "--dry-run"), "will run")])
def test_what_is_not_done_together_the_first_does_alone(words, told, tmp_path):
    first, second = (ended(start(rank, "-m", "lite.cli", *words, folder=tmp_path, MASTER_PORT=free_port())) for rank in (0, 1))
    assert (first[0], second[0], second[1]) == (0, 0, ""), first[2] + second[2]
    assert told in first[1]
