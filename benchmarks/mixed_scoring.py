"""One mixed pass for reference, value and reward takes at most 0.8 of the time of three passes, and reads the 4-bit weights once, not thrice.

Both sides score the same finished rollouts at the same ``micro_tokens``, and must agree to 1e-4: ours by ``score_rows``, rows of the
three roles side by side in a pass; the other by a pass of its own for every role over the same micro-batches, with PEFT's forward. A
hook counts how often a 4-bit layer runs: each run unpacks or reads its weights once.

What is saved is unpacking (and PEFT's copies); the products are the same on both sides, and at 8 rows they are nine tenths of a mixed
pass (profiled). If unpacking takes as long as the products of U tokens, n tokens a role can come down to (U + 3n) / (3U + 3n) of the
time: U is some 20 at width 1024 and 90 at 2048 on a CPU in fp32, 400 for a 7B base on a GPU. So the table shows both ends, and the
claim is about the smallest micro-batch (two rows), which is how a card works that is just large enough for its base.

CPU seconds of one thread, both sides in turn, median of ``--repeats``.

    python -m benchmarks.mixed_scoring [--repeats 5]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from bitsandbytes.nn import Linear4bit
from torch import nn

from benchmarks.random_base import Shape, add_roles, load_bank, plain, random_ids, write_base
from benchmarks.report import publish, table
from lite.knobs import LoraSpec
from lite.model.bank import AdapterBank
from lite.model.encoding import Row
from lite.model.forward import (
    Scores,
    collate,
    hidden_states,
    micro_batches,
    response_logprobs,
    response_rewards,
    response_values,
    score_rows,
)

CLAIM = "Scoring in one mixed pass takes at most 0.8 of the time of three passes at the smallest micro-batch, and reads the 4-bit weights a third as often"
LIMIT, TOLERANCE = 0.8, 1e-4
SHAPES = {
    "1024 x 4 layers": Shape(hidden=1024, layers=4, heads=16, inner=2816, vocabulary=2000, positions=512),
    "2048 x 2 layers": Shape(hidden=2048, layers=2, heads=16, inner=5632, vocabulary=2000, positions=512),
}
REWARD, VALUE = "reward", "value"
ROWS, TOKENS = 8, 24
"""Rows of so many tokens, half of them response."""


def rollouts(shape: Shape, *, rows: int = ROWS, tokens: int = TOKENS) -> list[Row]:
    return [Row(ids[: tokens // 2], ids[tokens // 2 :]) for ids in random_ids(shape, [tokens] * rows, seed=3)]


def prepared(folder: Path) -> AdapterBank:
    bank = load_bank(folder)
    add_roles(bank, (REWARD, VALUE), lora=LoraSpec(), spread=0.02)
    bank.head(REWARD).randomize(1)
    bank.head(VALUE).randomize(2)
    return bank


def mixed(bank: AdapterBank, rows: Sequence[Row], micro_tokens: int) -> Scores:
    return score_rows(bank, rows, reward=REWARD, value=VALUE, temperature=1.0, micro_tokens=micro_tokens)


@torch.no_grad()
def separate(bank: AdapterBank, rows: Sequence[Row], micro_tokens: int) -> Scores:
    reference, values = (torch.zeros(len(rows), max(len(row.response) for row in rows)) for _ in range(2))
    rewards = torch.zeros(len(rows))
    for role in (None, VALUE, REWARD):
        for group in micro_batches([len(r) for r in rows], tokens=micro_tokens):
            batch = collate([rows[i] for i in group], pad_id=bank.base.pad_id, device=bank.base.device)
            index, span = torch.tensor(group), batch.keep.shape[1]
            with plain(bank, role) as trunk:
                hidden = hidden_states(trunk, batch)
            if role == VALUE:
                values[index, :span] = response_values(hidden, bank.head(VALUE), batch)
            elif role == REWARD:
                rewards[index] = response_rewards(hidden, bank.head(REWARD), batch)
            else:
                reference[index, :span] = response_logprobs(hidden, bank.vocabulary, batch).logp
    return Scores(reference, values, rewards)


@contextmanager
def reads(bank: AdapterBank) -> Iterator[list[int]]:
    """Weights read by the 4-bit layers, one entry per run of a layer."""
    found: list[int] = []

    def count(layer: nn.Module, _: object) -> None:
        assert isinstance(layer, Linear4bit)
        found.append(layer.in_features * layer.out_features)

    hooks = [m.register_forward_pre_hook(count) for m in bank.base.model.modules() if isinstance(m, Linear4bit)]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def measure(bank: AdapterBank, rows: Sequence[Row], micro_tokens: int, *, repeats: int = 1) -> dict[str, float]:
    sides: dict[str, Callable[[AdapterBank, Sequence[Row], int], Scores]] = {"mixed": mixed, "separate": separate}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    found: dict[str, Scores] = {}
    read: dict[str, int] = {}
    for k in range(repeats + 1):  # the first warms up
        for name, side in sides.items():
            with reads(bank) as counted:
                began = time.thread_time()
                found[name] = side(bank, rows, micro_tokens)
                spent = time.thread_time() - began
            read[name] = sum(counted)
            if k or repeats == 0:
                seconds[name].append(spent)
    apart = max(float((a - b).abs().max()) for a, b in zip(found["mixed"], found["separate"], strict=True))
    middle = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        "apart": apart,
        "weights_read_mixed": read["mixed"],
        "weights_read_separate": read["separate"],
        "seconds_mixed": middle["mixed"],
        "seconds_separate": middle["separate"],
        "ratio": middle["mixed"] / middle["separate"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.mixed_scoring", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures, lines, holds = {}, [], True
    for name, shape in SHAPES.items():
        with tempfile.TemporaryDirectory() as folder:
            bank = prepared(write_base(Path(folder), shape))
        rows = rollouts(shape)
        for together in (2, 4, 8):
            found = figures[f"{name}, {together} rows"] = measure(bank, rows, together * TOKENS, repeats=options.repeats)
            third = 3 * found["weights_read_mixed"] == found["weights_read_separate"]
            holds = holds and found["apart"] <= TOLERANCE and third and (together > 2 or found["ratio"] <= LIMIT)
            lines.append(
                [
                    name,
                    f"{together} rows, {together * TOKENS} tokens a role",
                    f"{found['weights_read_separate'] / 1e6:,.0f} M / {found['weights_read_mixed'] / 1e6:,.0f} M",
                    f"{found['seconds_separate']:.2f} / {found['seconds_mixed']:.2f} s",
                    f"**{found['ratio']:.2f}**",
                    f"{found['apart']:.0e}",
                ]
            )
    text = table(["base", "a micro-batch", "weights read, separate / mixed", "CPU time, separate / mixed", "ratio", "apart"], lines)
    publish("mixed_scoring", claim=CLAIM, holds=holds, figures=figures, text=text)
    return 0 if holds else 1


if __name__ == "__main__":
    raise SystemExit(main())
