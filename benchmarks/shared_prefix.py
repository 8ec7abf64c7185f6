"""What p+ and p- (or N candidates) share goes through the model once: fewer prompt tokens, the same greedy tokens, at most half the time.

Two sides of 8 rows over one 512-token prefix, each row with a tail of 8 tokens of its own: 16 rows. A hook on the trunk counts the
tokens of every forward pass that takes more than one token per row (a decoding step takes one); decoding is greedy, so that the
responses can be compared token by token. The time is that of transformers' generate on the same 16 rows, which forwards every prompt whole:
CPU seconds of one thread, the sides in turn, median of ``--repeats``. Ours without sharing stands beside it.

The second layout is the other way that pairs come: 8 prompts, each with its own 512 tokens, shared by one p+ and one p- row.

    python -m benchmarks.shared_prefix [--repeats 3]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from benchmarks.random_base import Shape, load_bank, random_ids, write_base
from benchmarks.report import publish, table
from lite.model.bank import AdapterBank
from lite.model.generate import Decoding, Generated, generate

CLAIM = "A shared 512-token prefix is forwarded once for 8 rows a side: the same greedy tokens as transformers' generate, at least twice as fast"
FACTOR = 2.0
PREFIX, TAIL, SIDE, NEW_TOKENS = 512, 8, 8, 32


@dataclass(frozen=True)
class Layout:
    name: str
    prompts: list[tuple[int, ...]]
    groups: list[int]

    @property
    def tokens(self) -> int:
        return sum(len(p) for p in self.prompts)


def layouts(shape: Shape, *, prefix: int = PREFIX, tail: int = TAIL, side: int = SIDE) -> list[Layout]:
    tails = random_ids(shape, [tail] * 2 * side, seed=2)
    one = random_ids(shape, [prefix], seed=1)[0]
    many = random_ids(shape, [prefix] * side, seed=3)
    return [
        Layout(f"one prefix, {side} rows a side", [one + t for t in tails], [0] * 2 * side),
        Layout(f"{side} prefixes, one row a side each", [many[i // 2] + t for i, t in enumerate(tails)], [i // 2 for i in range(2 * side)]),
    ]


class Count:
    """Prompt tokens that went through the trunk: all places of the passes over more than one token per row, padding included."""

    def __init__(self) -> None:
        self.prompt_tokens = 0

    def __call__(self, module: nn.Module, positional: tuple, named: dict) -> None:
        if named["input_ids"].shape[1] > 1:
            self.prompt_tokens += named["input_ids"].numel()


@contextmanager
def counting(bank: AdapterBank) -> Iterator[Count]:
    count = Count()
    hook = bank.trunk.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield count
    finally:
        hook.remove()


def write(bank: AdapterBank, layout: Layout, *, share: bool, new_tokens: int) -> tuple[list[Generated], float]:
    """The greedy responses of all rows in one batch, and the CPU seconds they took."""
    n = len(layout.prompts)
    began = time.process_time()
    written = generate(
        bank,
        None,
        layout.prompts,
        seeds=[0] * n,
        decoding=Decoding(new_tokens, temperature=0),
        rows=n,
        groups=layout.groups if share else None,
    )
    return written, time.process_time() - began


def plain(bank: AdapterBank, layout: Layout, *, new_tokens: int) -> tuple[list[tuple[int, ...]], float]:
    """transformers' greedy generate on all rows in one batch, and its CPU seconds; the prompts of a layout have one length."""
    ids = torch.tensor(layout.prompts)
    began = time.process_time()
    with bank.using(None), torch.no_grad():
        written = bank.base.model.generate(  # type: ignore[operator]
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=new_tokens, pad_token_id=bank.base.pad_id
        )
    spent = time.process_time() - began
    return [tuple(row) for row in written[:, ids.shape[1] :].tolist()], spent


def measure(bank: AdapterBank, layout: Layout, *, new_tokens: int = NEW_TOKENS, repeats: int = 1) -> dict[str, float | bool]:
    """Counts and median CPU seconds with sharing, without, and of generate, taken in turn."""
    seconds: dict[bool, list[float]] = {False: [], True: []}
    seconds_plain: list[float] = []
    theirs: Sequence[tuple[int, ...]] = []
    counts: dict[bool, int] = {}
    ids: dict[bool, Sequence[tuple[int, ...]]] = {}
    for _ in range(repeats):
        for share in (False, True):
            with counting(bank) as count:
                written, spent = write(bank, layout, share=share, new_tokens=new_tokens)
            seconds[share].append(spent)
            counts[share], ids[share] = count.prompt_tokens, [g.ids for g in written]
        theirs, spent = plain(bank, layout, new_tokens=new_tokens)
        seconds_plain.append(spent)
    return {
        "tokens_apart": counts[False],
        "tokens_shared": counts[True],
        "same_tokens": ids[False] == ids[True] == list(theirs),
        "seconds_apart": statistics.median(seconds[False]),
        "seconds_shared": statistics.median(seconds[True]),
        "seconds_generate": statistics.median(seconds_plain),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.shared_prefix", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    shape, figures, rows, holds = Shape(), {}, [], True
    with tempfile.TemporaryDirectory() as folder:
        bank = load_bank(write_base(Path(folder), shape))
        for layout in layouts(shape):
            found = figures[layout.name] = measure(bank, layout, repeats=options.repeats)
            distinct = PREFIX * len(set(layout.groups)) + TAIL * len(layout.prompts)
            holds = holds and bool(found["same_tokens"]) and found["tokens_shared"] == distinct and found["tokens_apart"] == layout.tokens
            factor = found["seconds_generate"] / found["seconds_shared"]
            holds = holds and (factor >= FACTOR or layout.groups[-1] > 0)  # the claim is about one prefix
            rows.append(
                [
                    layout.name,
                    f"{found['tokens_apart']:,}",
                    f"{found['tokens_shared']:,}",
                    f"{found['tokens_apart'] / found['tokens_shared']:.1f}x fewer",
                    "yes" if found["same_tokens"] else "NO",
                    f"{found['seconds_generate']:.2f} / {found['seconds_apart']:.2f} / {found['seconds_shared']:.2f} s",
                    f"**{factor:.2f}x**",
                ]
            )
    text = table(
        [
            "rows",
            "prompt tokens apart",
            "shared",
            "",
            "same greedy tokens",
            f"CPU time with {NEW_TOKENS} new tokens: generate / ours apart / shared",
            "shared against generate",
        ],
        rows,
    )
    publish("shared_prefix", claim=CLAIM, holds=holds, figures=figures, text=text)
    return 0 if holds else 1


if __name__ == "__main__":
    raise SystemExit(main())
