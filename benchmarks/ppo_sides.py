"""The sides of the PPO benchmark: the same step, taken by `lite`, by the old loop shape, and by TRL 1.12's experimental trainer.

`python -m benchmarks.ppo_sides SIDE FOLDER STEPS` takes so many steps in a process of its own and prints one JSON object: wall and
CPU seconds of each step, and the resident memory of the process when all is loaded and at its highest while it steps.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks.old_loop import AS_RUN, Choices, OldLoop
from benchmarks.random_base import STOP_IDS, Shape, add_roles, bench, load_bank, random_ids
from lite.knobs.ppo import PpoSpec
from lite.model.bank import AdapterBank
from lite.model.encoding import decode
from lite.model.generate import Generated
from lite.stages.ppo import Trainer
from lite.stages.rollouts import POLICY, REWARD, VALUE

SPREAD = 0.02
"""Standard deviation of B in the adapters: every role differs from the base, as in the middle of a run."""


@dataclass(frozen=True)
class Size:
    shape: Shape = field(default_factory=Shape)
    rollouts: int = 16
    minibatch: int = 8
    epochs: int = 2
    prompt_tokens: int = 64
    response_tokens: int = 32

    def spec(self, value: str = "separate") -> PpoSpec:
        return PpoSpec.model_validate(
            {
                "steps": 1000,
                "rollouts": self.rollouts,
                "minibatch": self.minibatch,
                "epochs": self.epochs,
                "max_new_tokens": self.response_tokens,
                "warmup_steps": 0,
                "scale_reward": False,  # a random model has no finished replies to take the scale from
                "value": value,
            }
        )

    def prompts(self) -> list[tuple[int, ...]]:
        return random_ids(self.shape, [self.prompt_tokens] * self.rollouts, seed=5)


def ours(folder: Path, size: Size, value: str = "separate") -> Trainer:
    bank = load_bank(folder)
    spec = size.spec(value)
    add_roles(bank, (POLICY, REWARD, *([VALUE] if value == "separate" else [])), lora=spec.lora, spread=SPREAD)
    bank.head(REWARD).randomize(1).requires_grad_(False)
    bank.head(VALUE).randomize(2)
    return Trainer(spec, bank, bench(bank, folder), size.prompts())


def old(folder: Path, trainer: Trainer, choices: Choices = AS_RUN) -> OldLoop:
    """The old loop with the weights of a trainer of ours."""
    loop = OldLoop(trainer.spec, folder, choices)
    loop.take_weights(trainer.bank)
    return loop


def orders(trainer: Trainer, step: int) -> list[list[int]]:
    """The rows of each epoch in the order that ours takes them."""
    return [trainer._order(step, epoch) for epoch in range(trainer.spec.epochs)]


def written(bank: AdapterBank, prompts: Sequence[tuple[int, ...]], lengths: Sequence[int], shape: Shape) -> list[Generated]:
    """Responses that nobody generated: random words, every other one ended by the stop string."""
    bodies = random_ids(shape, [n - len(STOP_IDS) for n in lengths], seed=9)
    responses = []
    for i, (prompt, body) in enumerate(zip(prompts, bodies, strict=True)):
        finished = i % 2 == 0
        ids = (*body, *(STOP_IDS if finished else body[: len(STOP_IDS)]))
        responses.append(Generated(ids, decode(bank.base.tokenizer, ids, after=prompt[-1]), "turn" if finished else "length"))
    return responses


# -- one side in a process of its own -------------------------------------------------------------------------------------------


class Clock:
    """Wall and CPU seconds from tick to tick."""

    def __init__(self) -> None:
        self.times: list[dict[str, float]] = []

    def start(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def tick(self) -> None:
        wall, cpu = self._wall, self._cpu
        self.start()
        self.times.append({"wall": self._wall - wall, "cpu": self._cpu - cpu})


def _ours_alone(folder: Path, size: Size, steps: int, begin: Callable[[], None], clock: Clock) -> None:
    trainer = ours(folder, size)
    begin()
    for k in range(steps):
        trainer.step(k)
        clock.tick()


def _old_alone(folder: Path, size: Size, steps: int, begin: Callable[[], None], clock: Clock) -> None:
    loop = OldLoop(size.spec(), folder)
    begin()
    for k in range(steps):
        loop.step(size.prompts(), [list(range(size.rollouts))] * size.epochs, seed=k)
        clock.tick()


def _trl_alone(folder: Path, size: Size, steps: int, begin: Callable[[], None], clock: Clock) -> None:
    from benchmarks.trl_ppo import build

    with tempfile.TemporaryDirectory() as out:
        trainer = build(folder, size, steps=steps, out=Path(out), tick=clock.tick)
        begin()
        trainer.train()


SIDES = {"ours": _ours_alone, "old": _old_alone, "trl": _trl_alone}


def _status(name: str) -> int:
    """One line of this process's memory in bytes: VmRSS (now) or VmHWM (highest since the last reset)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def main() -> int:
    side, folder, steps = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    loaded = []

    clock = Clock()

    def begin() -> None:
        loaded.append(_status("VmRSS"))
        Path("/proc/self/clear_refs").write_text("5")  # the highest mark begins anew: loading does not count
        clock.start()

    real_stdout = os.dup(1)
    os.dup2(2, 1)  # trainers print; stdout is for the one object
    SIDES[side](folder, Size(), steps, begin, clock)
    facts = {"times": clock.times, "loaded": loaded[0], "peak": _status("VmHWM")}
    os.write(real_stdout, (json.dumps(facts) + "\n").encode())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
