"""Rollouts are never slower than transformers' generate on the same base, adapter, prompts and length limit.

Two bases. The embedded tiny one answers and ends with its stop string, so rows end at different times; there generate is given the stop
string as well, and as many rows at once as ours, batch after batch, longest prompts first. A wider random Llama never stops: every row
has full length, nothing can be refilled or dropped, and what remains is the loop itself. Both sides sample at temperature 1 through an unmerged adapter
on the 4-bit base. Ours draws by seeds of its own, so the texts differ; tokens are counted, and time is told per token.

Besides: how far log-probs from the rollout are from those of the training pass. PPO needs ratios of exactly 1 in its first
minibatch, and what a rollout could save it is one of the forward passes of a step, whose share is told too.

CPU seconds of one thread, both sides in turn, median of ``--repeats``.

    python -m benchmarks.rollouts [--repeats 7]
"""

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.random_base import Shape, add_roles, load_bank, plain, random_ids, write_base
from benchmarks.report import publish, table
from lite import micro
from lite.knobs import LoraSpec
from lite.micro.world import draw_dialogue
from lite.model.bank import AdapterBank
from lite.model.encoding import Row, encode
from lite.model.forward import logprob_rows
from lite.model.generate import Decoding, generate
from lite.text.dialogue import STOP, prompt

CLAIM = "Rollouts take no more time per token than transformers' generate at 8, 32 and 64 rows, on the tiny base and on a wider one"
POLICY = "policy"
WIDE = Shape(hidden=512, layers=4, heads=8, inner=1408, vocabulary=8000, positions=512)
Prompts = Sequence[tuple[int, ...]]


@dataclass(frozen=True)
class Side:
    seconds: float
    tokens: int

    @property
    def per_token(self) -> float:
        return self.seconds / self.tokens


def ours(bank: AdapterBank, prompts: Prompts, rows: int, new: int, seed: int) -> int:
    """Tokens written."""
    seeds = [1000 * seed + i for i in range(len(prompts))]
    return sum(len(g.ids) for g in generate(bank, POLICY, prompts, seeds=seeds, decoding=Decoding(new), rows=rows))


def theirs(bank: AdapterBank, prompts: Prompts, rows: int, new: int, seed: int, *, stops: bool) -> int:
    """Tokens written up to the end of each response; what generate adds to finished rows does not count."""
    torch.manual_seed(seed)
    total, ordered = 0, sorted(prompts, key=len, reverse=True)
    for at in range(0, len(ordered), rows):
        part = ordered[at : at + rows]
        width = max(map(len, part))
        ids = torch.tensor([[bank.base.pad_id] * (width - len(p)) + list(p) for p in part], device=bank.base.device)
        attend = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in part], device=bank.base.device)
        stop = {"stop_strings": [STOP], "tokenizer": bank.base.tokenizer} if stops else {}
        with plain(bank, POLICY), torch.no_grad():
            written = bank.base.model.generate(  # type: ignore[operator]
                input_ids=ids, attention_mask=attend, do_sample=True, top_k=0, max_new_tokens=new, pad_token_id=bank.base.pad_id, **stop
            )
        for row in written[:, width:].tolist():
            while stops and row and row[-1] == bank.base.pad_id:
                row.pop()
            total += len(row)
    return total


def measure(bank: AdapterBank, prompts: Prompts, *, rows: int, new: int, stops: bool, repeats: int = 1) -> dict[str, float]:
    sides: Mapping[str, Callable[[int], int]] = {
        "ours": lambda k: ours(bank, prompts, rows, new, k),
        "generate": lambda k: theirs(bank, prompts, rows, new, k, stops=stops),
    }
    found: dict[str, list[Side]] = {name: [] for name in sides}
    for k in range(repeats):
        for name, side in sides.items():
            began = time.thread_time()
            tokens = side(k)
            found[name].append(Side(time.thread_time() - began, tokens))
    per_token = {name: statistics.median(s.per_token for s in part) for name, part in found.items()}
    return {
        "tokens_ours": sum(s.tokens for s in found["ours"]),
        "tokens_generate": sum(s.tokens for s in found["generate"]),
        "ms_per_token_ours": 1e3 * per_token["ours"],
        "ms_per_token_generate": 1e3 * per_token["generate"],
        "ratio": per_token["ours"] / per_token["generate"],
    }


def agreement(bank: AdapterBank, prompts: Prompts, *, rows: int, new: int) -> dict[str, float]:
    """Log-probs of greedy tokens as the decoding steps saw them, one batch of ``rows``, against those of whole texts in one pass."""
    from lite.model import generate as module

    seen: list[torch.Tensor] = []
    draw = module._draw

    def watched(logits: torch.Tensor, uniform: torch.Tensor, decoding: Decoding) -> torch.Tensor:
        drawn = draw(logits, uniform, decoding)
        seen.append(logits.log_softmax(-1).gather(1, drawn[:, None])[:, 0])
        return drawn

    module._draw = watched
    try:
        part = sorted(prompts, key=len, reverse=True)[:rows]
        made = generate(bank, POLICY, part, seeds=[0] * rows, decoding=Decoding(new, temperature=0, stop=None), rows=rows)
    finally:
        module._draw = draw
    steps = torch.stack(seen, 1)
    whole = logprob_rows(bank, [Row(p, g.ids) for p, g in zip(part, made, strict=True)], role=POLICY, temperature=1.0, micro_tokens=2048)
    apart = torch.stack([(a[: len(g.ids)] - b[: len(g.ids)]).abs().max() for a, b, g in zip(steps, whole, made, strict=True)])
    return {"largest": float(apart.max()), "ratio_off_by": float(apart.max().expm1())}


def tiny() -> tuple[AdapterBank, list[tuple[int, ...]]]:
    """The embedded base with a stirred adapter, and prompts of its world."""
    bank = load_bank(micro.BASE_DIR)
    add_roles(bank, (POLICY,), lora=LoraSpec(), spread=0.001)
    world = [prompt(draw_dialogue("helpful", random.Random(i), split="train")) for i in range(96)]
    return bank, [encode(bank.base.tokenizer, text) for text in world]


def wide(folder: Path) -> tuple[AdapterBank, list[tuple[int, ...]]]:
    bank = load_bank(write_base(folder, WIDE))
    add_roles(bank, (POLICY,), lora=LoraSpec(), spread=0.001)
    return bank, random_ids(WIDE, [24 + 7 * i % 40 for i in range(64)], seed=4)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rollouts", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines, figures = [], {}
    with tempfile.TemporaryDirectory() as folder:
        bases = {"tiny": (*tiny(), 80, True), "wide": (*wide(Path(folder)), 32, False)}
    for name, (bank, prompts, new, stops) in bases.items():
        for rows in (8, 32, 64):
            asked = prompts[: rows + 32] if stops else prompts[:rows]
            found = figures[f"{name}, {rows} rows"] = measure(bank, asked, rows=rows, new=new, stops=stops, repeats=options.repeats)
            each = found["tokens_ours"] / len(asked) / options.repeats
            cells = [f"{len(asked)} prompts, {each:.0f} tokens each", f"{found['ms_per_token_generate']:.2f} ms"]
            lines.append([name, rows, *cells, f"{found['ms_per_token_ours']:.2f} ms", f"**{1 / found['ratio']:.2f}x**"])
    holds = all(found["ratio"] <= 1 for found in figures.values())
    agree = {name: agreement(bank, prompts, rows=16, new=24) for name, (bank, prompts, *_) in bases.items()}
    worst = max(found["ratio_off_by"] for found in agree.values())
    text = table(["base", "rows", "", "generate, CPU per token", "ours", ""], lines) + (
        f"\n\nLog-probs from the rollout and from a training pass, fp32: ratios off by up to {worst:.0e}, so not exactly 1."
    )
    publish("rollouts", claim=CLAIM, holds=holds, figures={"times": figures, "agreement": agree}, text=text)
    return 0 if holds else 1


if __name__ == "__main__":
    raise SystemExit(main())
