"""One PPO step of ours is at least 2.5 times as fast as the same step in the loop shape of TRL 0.9, and does the same thing.

The same thing: both sides start from the same weights and are given the same rollouts (16 rows, every other one with a stop string).
Log-probs, values, rewards, advantages, the first minibatch's two losses and all their gradients must agree to 1e-4, at a ratio of 1
and again after policy and value were moved. Only then is anything timed.

The old shape is run as LLaMA-Factory ran it on TRL 0.9: everything in mini-batches of 2, the rollouts too (see ``old_loop.py``).

The step: a random Llama of hidden size 256, 4 layers, 32k words, in NF4 with fp32 arithmetic; 16 rollouts of 64 + 32 tokens, all of
full length; scores of policy, reference, value (an adapter of its own) and reward; 2 epochs in minibatches of 8, so 4 updates of
AdamW. Ours is ``lite``'s own ``Trainer``. The old side accumulates its mini-batches to the same 4 updates. The table also tells what is
left of the lead when the old shape is given what it did not have (rollouts in one batch; a value pass that stops before the head), when
it makes an update of every mini-batch (16 updates), and with the value head on the policy's trunk on both sides, as TRL 0.9 had it.
All in one process on one thread, the sides in turn, one step of each to warm up, then the median of ``--repeats``.

Against TRL 1.12's experimental PPOTrainer (``trl_ppo.py``): same model, batch, epochs and updates, but its own numerics, so only time
and memory are compared; each side takes its steps in a process of its own, the processes in turn. It needs three bases (policy and
reference, reward, value), and keeps full logits: that is most of the difference in memory.

CPU seconds of the process are what counts here: on one thread they are the wall clock of a quiet machine. Both are written down.

    python -m benchmarks.ppo_step [--repeats 5] [--processes 3]
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.old_loop import AS_RUN, Choices, OldLoop
from benchmarks.ppo_sides import Size, old, orders, ours, written
from benchmarks.random_base import random_ids, write_base
from benchmarks.report import publish, table
from lite.stages.ppo import Trainer
from lite.stages.rollouts import POLICY, VALUE, Advantages, Rollouts, appraise, divide, look

CLAIM = "A PPO step takes at most 1/2.5 of the time of the same step in the loop shape of TRL 0.9 as LLaMA-Factory ran it, with the same losses and gradients to 1e-4"
FACTOR, TOLERANCE = 2.5, 1e-4
MIB = 2**20
Times = dict[str, list[dict[str, float]]]


# -- the same thing -------------------------------------------------------------------------------------------------------------


def differences(folder: Path, size: Size, value: str, *, ragged: bool = False) -> dict[str, float]:
    """How far both sides are apart on the same rollouts: largest differences, and distances of gradients over their length."""
    trainer = ours(folder, size, value)
    loop = old(folder, trainer)
    spec, bank = trainer.spec, trainer.bank
    short = [i % 3 if ragged else 0 for i in range(size.rollouts)]
    prompts = random_ids(size.shape, [size.prompt_tokens - n for n in short], seed=5)
    replies = written(bank, prompts, [size.response_tokens - 2 * n for n in short], size.shape)
    first = trainer._order(0, 0)
    plan = divide(spec, [len(p) + len(g.ids) for p, g in zip(prompts, replies, strict=True)], first)
    mine = look(spec, bank, prompts, replies, plan)
    theirs = loop.score(mine.rows, finished=mine.finished)
    assert float((mine.logp - mine.reference).abs().max()) > 0.1, "roles that say the same would prove nothing"
    gains, their_gains = (appraise(spec, seen, kl_coef=spec.kl_coef, moments=None) for seen in (mine, theirs))
    found = _scores_apart(mine, theirs, gains, their_gains)
    for when in ("first", "moved"):
        losses, clipped = _losses_apart(trainer, loop, plan[0], first[: spec.minibatch], (mine, gains), (theirs, their_gains))
        assert (clipped > 0) == (when == "moved"), f"{clipped} of the tokens are clipped"
        found |= {f"{when}_{name}": x for name, x in losses.items()}
        _move(trainer)
        loop.take_weights(bank)
    return found


def _scores_apart(mine: Rollouts, theirs: Rollouts, gains: Advantages, other_gains: Advantages) -> dict[str, float]:
    """``theirs`` is laid out over the whole text, ``mine`` over the response: the kept entries are the same, row by row."""

    def apart(x: Tensor, y: Tensor) -> float:
        return float((x[mine.keep] - y[theirs.keep]).abs().max())

    return {
        "logp": apart(mine.logp, theirs.logp),
        "reference": apart(mine.reference, theirs.reference),
        "values": apart(mine.values, theirs.values),
        "rewards": float((mine.rewards - theirs.rewards).abs().max()),
        "advantages": apart(gains.advantages, other_gains.advantages),
        "returns": apart(gains.returns, other_gains.returns),
    }


Seen = tuple[Rollouts, Advantages]


def _losses_apart(
    trainer: Trainer, loop: OldLoop, groups: list[list[int]], rows: Sequence[int], mine: Seen, theirs: Seen
) -> tuple[dict[str, float], float]:
    """One minibatch on both sides, each with what it saw itself; and the share of tokens that the policy's clip takes hold of."""
    total = mine[0].keep[torch.tensor(rows)].sum()
    parts = [trainer._backward(group, *mine, total)[0] for group in groups]
    policy, value = loop.accumulate(rows, *theirs)
    found = {
        "policy_loss": abs(sum(float(p["policy_loss"]) for p in parts) - policy),
        "value_loss": abs(sum(float(p["value_loss"]) for p in parts) - value),
        "policy_gradient": _gradients_apart(trainer.policy_parameters, loop.policy_parameters),
        "value_gradient": _gradients_apart(trainer.value_parameters, loop.value_parameters),
    }
    trainer.optimizer.zero_grad(set_to_none=True)
    loop.optimizer.zero_grad(set_to_none=True)
    return found, sum(float(p["clip_fraction"]) for p in parts)


def _gradients_apart(mine: Sequence[nn.Parameter], theirs: Sequence[nn.Parameter]) -> float:
    a, b = (torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in ps]) for ps in (mine, theirs))
    if not a.any():
        raise AssertionError("no gradient at all")
    return float((a - b).norm() / b.norm())


def _move(trainer: Trainer) -> None:
    """Another policy and another value model than those of the rollouts, far enough that the clips take hold."""
    generator = torch.Generator().manual_seed(3)
    heads = list(trainer.bank.head(VALUE).parameters())
    adapters = [*trainer.bank.parameters(POLICY), *([] if trainer.spec.value == "joint" else trainer.bank.parameters(VALUE))]
    with torch.no_grad():
        for p in [*adapters, *heads]:
            p.add_(torch.randn(p.shape, generator=generator) * (0.02 if p.shape[0] > 1 else 0.05))


# -- time and memory ------------------------------------------------------------------------------------------------------------


def in_turn(steps: Mapping[str, Callable[[int], object]], repeats: int) -> Times:
    """Seconds of every side, taken in turn, after one step of each that does not count."""
    times: Times = {name: [] for name in steps}
    for k in range(repeats + 1):
        for name, step in steps.items():
            wall, cpu = time.perf_counter(), time.process_time()
            step(k)
            if k:
                times[name].append({"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu})
            print(f"  {name}: {time.process_time() - cpu:.2f} s CPU, {time.perf_counter() - wall:.2f} s wall", file=sys.stderr, flush=True)
    return times


def shapes(folder: Path, size: Size) -> dict[str, Callable[[int], object]]:
    """Every way to take the step that is timed in this process."""
    prompts = size.prompts()

    def old_step(trainer: Trainer, choices: Choices) -> Callable[[int], object]:
        loop = old(folder, trainer, choices)
        return lambda k: loop.step(prompts, orders(trainer, k), seed=k)

    separate, joint = ours(folder, size, "separate"), ours(folder, size, "joint")
    return {
        "ours": separate.step,
        "old": old_step(separate, AS_RUN),
        "old, rollouts in one batch": old_step(separate, Choices(rollout_rows=size.rollouts)),
        "old, rollouts in one batch, value pass without logits": old_step(
            separate, Choices(rollout_rows=size.rollouts, value_logits=False)
        ),
        "old, an update per mini-batch": old_step(separate, Choices(update_rows=2)),
        "ours, joint value": joint.step,
        "old, joint value": old_step(joint, AS_RUN),
        "old, joint value, rollouts in one batch": old_step(joint, Choices(rollout_rows=size.rollouts)),
    }


def alone(side: str, folder: Path, steps: int) -> dict[str, Any]:
    """One side in a process of its own; its first step warms up."""
    found = subprocess.run(
        [sys.executable, "-m", "benchmarks.ppo_sides", side, str(folder), str(steps)], stdout=subprocess.PIPE, check=True
    )
    facts = json.loads(found.stdout)
    print(f"  {side} alone: {facts}", file=sys.stderr, flush=True)
    return facts | {"times": facts["times"][1:]}


def median(times: Sequence[Mapping[str, float]], clock: str) -> float:
    return statistics.median(t[clock] for t in times)


# -- the report -----------------------------------------------------------------------------------------------------------------


def time_rows(times: Times) -> list[list[str]]:
    rows = []
    for name, found in times.items():
        against = times["ours, joint value" if "joint" in name else "ours"]
        ratios = [f"{median(found, clock) / median(against, clock):.2f}x" for clock in ("cpu", "wall")]
        rows.append([name, f"{median(found, 'cpu'):.2f} s", f"{median(found, 'wall'):.2f} s", f"**{ratios[0]}**", ratios[1]])
    return rows


def process_rows(sides: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[list[str]]:
    rows, times = [], {side: [t for run in runs for t in run["times"]] for side, runs in sides.items()}
    for side, runs in sides.items():
        loaded, peak = (statistics.median(run[name] for run in runs) / MIB for name in ("loaded", "peak"))
        cells = [
            f"{median(times[side], 'cpu'):.2f} s",
            f"{median(times[side], 'wall'):.2f} s",
            f"{median(times[side], 'cpu') / median(times['ours'], 'cpu'):.2f}x",
        ]
        rows.append([side, *cells, f"{loaded:.0f} MiB", f"{peak:.0f} MiB", f"{peak - loaded:.0f} MiB"])
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ppo_step", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--processes", type=int, default=3, help="processes of each side in the comparison with TRL 1.12, 2 timed steps each"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    size = Size()
    with tempfile.TemporaryDirectory() as name:
        folder = write_base(Path(name) / "base", size.shape)
        apart = {value: differences(folder, size, value) for value in ("separate", "joint")}
        worst = max(x for found in apart.values() for x in found.values())
        if not worst <= TOLERANCE:
            raise AssertionError(f"both sides do not compute the same: {apart}")
        times = in_turn(shapes(folder, size), options.repeats)
        sides: dict[str, list[dict[str, Any]]] = {"ours": [], "old": [], "trl": []}
        for _ in range(options.processes):
            for side, runs in sides.items():
                runs.append(alone(side, folder, 3))
    factor = median(times["old"], "cpu") / median(times["ours"], "cpu")
    text = "\n\n".join(
        [
            f"On the same rollouts both sides differ by at most {worst:.1e} (log-probs, values, rewards, advantages, losses, gradients; separate and joint).",
            f"`old` is what the claim is about: {factor:.2f}x. Given rollouts in one batch, which it did not have, the same loop is "
            f"{median(times['old, rollouts in one batch'], 'cpu') / median(times['ours'], 'cpu'):.2f}x; the rest of the lead is in the passes.",
            table(["one PPO step, one process", "CPU", "wall", "times ours (CPU)", "(wall)"], time_rows(times)),
            "Each side in a process of its own; `trl` is TRL 1.12's experimental PPOTrainer with its three NF4 bases:",
            table(["side", "CPU", "wall", "times ours (CPU)", "loaded", "peak in the steps", "peak - loaded"], process_rows(sides)),
        ]
    )
    publish(
        "ppo_step",
        claim=CLAIM,
        holds=factor >= FACTOR,
        figures={"factor": factor, "apart": apart, "times": times, "processes": sides},
        text=text,
    )
    return 0 if factor >= FACTOR else 1


if __name__ == "__main__":
    raise SystemExit(main())
