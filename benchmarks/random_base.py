"""A Llama with random weights and a vocabulary of made-up words: what a benchmark needs of a base, made in a second.

The stop string is spelled by two tokens and there is no end-of-text token, so that what a random model writes practically always
has full length: the chance of a stop is 1 / V^2 per token. (A test can still spell it.)
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from lite import tasks
from lite.knobs import BaseSpec, LoraSpec
from lite.model.bank import AdapterBank
from lite.model.base import load_base
from lite.stages.bench import Bench
from lite.text.dialogue import STOP

PAD, BOS = "<pad>", "<s>"
FIRST_WORD = 4
"""Ids below: padding, begin of text, and the two parts of the stop string."""
STOP_IDS = (2, 3)


@dataclass(frozen=True)
class Shape:
    hidden: int = 256
    layers: int = 4
    heads: int = 4
    inner: int = 704
    vocabulary: int = 32000
    positions: int = 2048


TINY = Shape(hidden=64, layers=2, heads=2, inner=192, vocabulary=320, positions=256)


def write_base(folder: Path, shape: Shape, *, seed: int = 17) -> Path:
    """Weights and tokenizer as any checkpoint of the Hub."""
    logging.set_verbosity_error()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.inner,
        max_position_embeddings=shape.positions,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=None,
        initializer_range=0.08,  # at 0.02 a random model says nearly the same after every prompt
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    tokenizer(shape.vocabulary).save_pretrained(folder)
    return folder


def tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """One id per made-up word `` w123``; texts are put together without spaces of their own."""
    names = [PAD, BOS, STOP[:-1], STOP[-1:], *(f" w{i}" for i in range(FIRST_WORD, vocabulary))]
    words = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token=PAD))
    words.pre_tokenizer = pre_tokenizers.Split(Regex(r" w\d+|\n\nHuman|:"), "isolated")
    words.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=None,
        unk_token=PAD,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def load_bank(folder: Path) -> AdapterBank:
    """The base in NF4 with fp32 arithmetic, on the CPU: every machine can repeat it."""
    return AdapterBank(load_base(BaseSpec(model=str(folder), quantize="nf4", dtype="float32", device="cpu")))


def add_roles(bank: AdapterBank, names: tuple[str, ...], *, lora: LoraSpec, spread: float, seed: int = 17) -> None:
    """Adapters whose B is random too, so that every role says something of its own."""
    for k, name in enumerate(names):
        bank.add(name, lora, seed=seed + k)
        generator = torch.Generator().manual_seed(seed + 100 + k)
        with torch.no_grad():
            for p in bank.parameters(name):
                if not p.any():
                    p.copy_(torch.randn(p.shape, generator=generator) * spread)


@contextmanager
def plain(bank: AdapterBank, role: str | None) -> Iterator[nn.Module]:
    """The trunk with PEFT's own forward of a role, in eval mode: what a plain side runs. (Training passes are PEFT's; inference is not.)"""
    with bank.using(role, training=role is not None) as trunk:
        bank.base.model.eval()
        yield trunk


def random_ids(shape: Shape, lengths: list[int], *, seed: int) -> list[tuple[int, ...]]:
    """Texts of made-up words, as ids."""
    generator = torch.Generator().manual_seed(seed)
    return [tuple(torch.randint(FIRST_WORD, shape.vocabulary, (n,), generator=generator).tolist()) for n in lengths]


class _Bar:
    def advance(self, n: int = 1, **figures: float) -> None:
        pass


@dataclass
class Silent:
    """A reporter that says nothing and keeps the metrics."""

    metrics: list[Mapping[str, Any]] = field(default_factory=list)

    def progress(self, total: int, unit: str, what: str) -> AbstractContextManager[_Bar]:
        return nullcontext(_Bar())

    def metric(self, **values: Any) -> None:
        self.metrics.append(values)

    def show(self, **values: Any) -> None:
        pass

    def log(self, text: str) -> None:
        pass


def bench(bank: AdapterBank, folder: Path) -> Bench:
    return Bench(task=tasks.load("helpful"), seed=17, stage="ppo", ckpt=folder, reporter=Silent(), load_bank=lambda: bank)
