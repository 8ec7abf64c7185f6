"""Makes the embedded base from nothing: ``python -m lite.micro.build``. Corpus, tokenizer, training, figures, one go.

A Llama of about one million weights, trained on fresh documents of the corpus with Muon on the matrices and AdamW on
the rest: warm-up, constant, linear decay, counted in steps. One thread and addressed chance: on one machine and one
version of torch two builds give the same bytes. What was left out: packing (one document a row, so no attention
between documents), checkpoints to resume from, weight averaging.
"""

import argparse
import copy
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lite.chance import random_for
from lite.micro import BASE_DIR, tokenizer
from lite.micro.corpus import Document, document

CHOICE_WEIGHT = 5.0
"""How many tokens the letter of a choice counts for: one noisy letter in a hundred tokens is drowned otherwise."""


@dataclass(frozen=True, slots=True)
class Shape:
    """All widths are multiples of 64, so that NF4 blocks fit."""

    hidden: int = 128
    layers: int = 4
    heads: int = 4
    inner: int = 384
    vocabulary: int = 1344
    positions: int = 512


@dataclass(frozen=True, slots=True)
class Schedule:
    seed: int = 17
    steps: int = 10500
    batch_tokens: int = 3072
    rate: float = 4e-3
    warmup: float = 0.02
    constant_until: float = 0.6
    tokenizer_documents: int = 12000

    def rate_at(self, step: int) -> float:
        done = step / self.steps
        fall = max(0.01, (1 - done) / (1 - self.constant_until)) if done > self.constant_until else 1.0
        return self.rate * min(fall, (step + 1) / max(1, self.warmup * self.steps))


def new_model(shape: Shape, seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        intermediate_size=shape.inner,
        max_position_embeddings=shape.positions,
        tie_word_embeddings=True,
        rms_norm_eps=1e-5,
        pad_token_id=tokenizer.PAD_ID,
        bos_token_id=tokenizer.BOS_ID,
        eos_token_id=tokenizer.EOS_ID,
    )
    model = LlamaForCausalLM(config)
    model.set_attn_implementation("eager")  # on a CPU the backward pass of fused attention takes a third of a step
    return model


class Batch(NamedTuple):
    ids: Tensor  # (B, T) long, right-padded
    weight: Tensor  # (B, T) float, what each token counts for as a target; 0 on padding


def batches(tok: PreTrainedTokenizerFast, schedule: Schedule, chunk: int = 2048) -> Iterator[Batch]:
    """Batches of about ``batch_tokens`` tokens, documents of like length together."""
    start = 0
    while True:
        rows = [_row(tok, document(schedule.seed, n)) for n in range(start, start + chunk)]
        groups: list[list[tuple[list[int], list[float]]]] = [[]]
        for row in sorted(rows, key=lambda row: len(row[0])):
            if (len(groups[-1]) + 1) * len(row[0]) > schedule.batch_tokens:
                groups.append([])
            groups[-1].append(row)
        random_for("batches", schedule.seed, start).shuffle(groups)
        for group in groups:
            width = len(group[-1][0])
            ids = [ids + [tokenizer.PAD_ID] * (width - len(ids)) for ids, _ in group]
            weights = [weights + [0.0] * (width - len(weights)) for _, weights in group]
            yield Batch(torch.tensor(ids), torch.tensor(weights))
        start += chunk


def _row(tok: PreTrainedTokenizerFast, doc: Document) -> tuple[list[int], list[float]]:
    ids = tok(doc.text)["input_ids"] + ([tokenizer.EOS_ID] if doc.closed else [])
    return ids, [1.0] * (len(ids) - 1) + [CHOICE_WEIGHT if doc.kind == "choice" else 1.0]


def loss(model: LlamaForCausalLM, batch: Batch) -> Tensor:
    """Weighted mean of the next-token cross-entropy; logits are made for real targets only."""
    hidden = model.model(input_ids=batch.ids[:, :-1], use_cache=False).last_hidden_state
    targets, weight = batch.ids[:, 1:], batch.weight[:, 1:]
    keep = weight > 0
    each = F.cross_entropy(model.lm_head(hidden[keep]).float(), targets[keep], reduction="none")
    return (each * weight[keep]).sum() / weight.sum()


def optimisers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [
        torch.optim.Muon(matrices, lr=0.0, weight_decay=0.05, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=0.0, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]


def train(model: LlamaForCausalLM, tok: PreTrainedTokenizerFast, schedule: Schedule, snapshots: Path | None = None) -> int:
    """Trains the model in place and returns the number of tokens it read."""
    model.train()
    opts = optimisers(model)
    started, tokens, mean = time.monotonic(), 0, 0.0
    marks = {schedule.steps // 20, *(schedule.steps * k // 10 for k in range(1, 10))} if snapshots else set()
    for step, batch in enumerate(islice(batches(tok, schedule), schedule.steps)):
        for opt in opts:
            for group in opt.param_groups:
                group["lr"] = schedule.rate_at(step)
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(model, batch)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for opt in opts:
            opt.step()
            opt.zero_grad(set_to_none=True)
        tokens += int((batch.weight > 0).sum())
        mean = value.item() if step == 0 else 0.99 * mean + 0.01 * value.item()
        if (step + 1) % 200 == 0 or step + 1 == schedule.steps:
            spent = time.monotonic() - started
            left = spent / (step + 1) * (schedule.steps - step - 1)
            print(
                f"step {step + 1}/{schedule.steps} loss {mean:.4f} {tokens / 1e6:.2f} M tokens {tokens / spent:.0f} tokens/s {spent / 60:.1f} min, {left / 60:.1f} min to go",
                flush=True,
            )
        if snapshots and step + 1 in marks:
            save(model, tok, snapshots / f"step{step + 1:05d}")
    return tokens


def save(model: LlamaForCausalLM, tok: PreTrainedTokenizerFast, out: Path) -> None:
    """The model in bfloat16 and its tokenizer, as any checkpoint of the Hub."""
    out.mkdir(parents=True, exist_ok=True)
    half = copy.deepcopy(model).eval()
    half.bfloat16()
    half.save_pretrained(out)
    (out / "generation_config.json").unlink(missing_ok=True)
    tok.save_pretrained(out)


def build(out: Path, shape: Shape, schedule: Schedule, snapshots: Path | None = None) -> dict[str, object]:
    """Tokenizer, training, files. Returns what ``build.json`` says, without the figures."""
    torch.set_num_threads(1)
    started = time.monotonic()
    texts = [document(schedule.seed, -1 - n).text for n in range(schedule.tokenizer_documents)]
    tok = tokenizer.train(texts, vocabulary=shape.vocabulary, positions=shape.positions)
    model = new_model(shape, schedule.seed)
    weights = sum(p.numel() for p in model.parameters())
    print(f"{weights / 1e6:.2f} M weights, {len(tok)} tokens in the vocabulary", flush=True)
    tokens = train(model, tok, schedule, snapshots)
    save(model, tok, out)
    seconds = round(time.monotonic() - started)
    return {
        "shape": asdict(shape),
        "schedule": asdict(schedule),
        "weights": weights,
        "tokens": tokens,
        "seconds": seconds,
        "torch": torch.__version__,
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m lite.micro.build", description="Make the embedded base from nothing.")
    parser.add_argument("--out", type=Path, default=BASE_DIR, help="folder of the base (default: the package's own)")
    parser.add_argument("--steps", type=int, default=Schedule().steps, help="optimiser steps")
    parser.add_argument("--snapshots", type=Path, help="also save about every tenth of the steps here")
    options = parser.parse_args(argv)
    facts = build(options.out, Shape(), Schedule(steps=options.steps), options.snapshots)
    from lite.micro import figures  # after training: a build that fails early loads nothing more

    measured, missed = figures.measure(options.out)
    (options.out / "build.json").write_text(json.dumps(facts | {"figures": measured}, indent=1) + "\n", encoding="utf-8")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
