"""SIGTERM in the middle of every stage: exit 75, nothing lost, and the run ends as if nobody had asked (R4)."""

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lite import engine
from lite.model.choice import letter_logprobs
from lite.stages import evaluate, judging


def signalled(lab: Any, stage: str, nth: int, passes: Path) -> Callable[[str], Any]:
    """Stage functions of which one gets a SIGTERM before its n-th forward pass; every pass of it from then on adds a byte to a file."""
    seen = 0

    def before(*_: object) -> None:
        nonlocal seen
        seen += 1
        if seen == nth:
            os.kill(os.getpid(), signal.SIGTERM)
        if seen >= nth:
            with passes.open("ab") as f:
                f.write(b".")

    def function(kind: str) -> Any:
        def called(*words: Any, **named: Any) -> Any:
            if kind == stage:
                lab.bank.trunk.register_forward_pre_hook(before)
            return engine.stage_function(kind)(*words, **named)

        return called

    return function


PASSES = {"contrast": 150, "reward": 9, "dpo": 9, "ppo": 9, "evaluate": 30}
"""Before which pass of a stage the signal comes: in its second shard, in its second step or later."""


def test_a_run_that_is_stopped_in_every_stage_ends_as_if_nobody_had_asked(lab, tmp_path):
    runs = tmp_path / "runs"
    for stage, nth in PASSES.items():
        code = lab.live(runs, stage_function=signalled(lab, stage, nth, tmp_path / stage))
        run = lab.run(runs)
        assert (code, run.state, run.facts["exit_code"], run.facts["stage"]) == (75, "stopped", 75, stage)
        assert "lite run --resume" in run.facts["error"]
        assert any(lab.stage(runs, stage).ckpt.iterdir()), stage  # what was done is kept
    assert lab.live(runs) == 0
    assert {stage: lab.differences(runs, stage) for stage in PASSES} == {stage: [] for stage in PASSES}


def short_passes() -> None:
    """A row a pass, as on a card that is just large enough."""
    evaluate.MICRO_TOKENS = 1  # type: ignore[misc]
    judging.letter_logprobs = partial(letter_logprobs, micro_tokens=1)  # type: ignore[assignment]


@pytest.mark.parametrize("back", [2, 12])
def test_an_evaluation_stops_between_two_passes_of_its_judges_and_of_its_scores(lab, tmp_path, back):
    """Its last passes are the base's as a judge, the ones before them the rewards."""
    total, after = tmp_path / "total", tmp_path / "after"
    watched = signalled(lab, "evaluate", 1, total)
    ignored = {"disturb": lambda: (short_passes(), signal.signal(signal.SIGTERM, signal.SIG_IGN)), "stop_asked": lambda: False}
    assert lab.live(lab.before("evaluate", tmp_path / "counted"), stage_function=watched, **ignored) == 0
    passes = total.stat().st_size
    runs = lab.before("evaluate", tmp_path / "stopped")
    assert lab.live(runs, stage_function=signalled(lab, "evaluate", passes - back, after), disturb=short_passes) == 75
    assert after.stat().st_size == 1  # the pass that was under way, and none after it
    assert lab.live(runs) == 0
    assert lab.differences(runs, "evaluate") == []
