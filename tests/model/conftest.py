"""A base made in the test session: two layers, 64 wide, random weights strong enough that what it writes is not one token again and again."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lite.knobs import BaseSpec, LoraSpec
from lite.model.bank import AdapterBank
from lite.model.base import Base, load_base
from lite.model.encoding import Row, encode
from lite.model.forward import collate, hidden_states, response_logprobs

PAD, BOS, EOS = "<pad>", "<s>", "</s>"
VOCABULARY = 448  # more rows than either tokenizer has tokens, as in many checkpoints
TEXT = [
    "\n\nHuman: Hello there, how are you today?\n\nAssistant: I am well, thank you for asking. What can I do for you?",
    "\n\nHuman: Name three fruits.\n\nAssistant: 1. apples\n2. pears\n3. plums\n\nHuman: Thanks!",
]
LORA = LoraSpec(r=4, alpha=8)


def byte_level_tokenizer() -> PreTrainedTokenizerFast:
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=340, special_tokens=[PAD, BOS, EOS], initial_alphabet=alphabet, show_progress=False)
    tok.train_from_iterator(TEXT * 4, trainer)
    return _dressed(tok)


def metaspace_tokenizer() -> PreTrainedTokenizerFast:
    """As the first Llama's: a space before the text, spaces as ``▁``, other characters spelt in bytes, the first space stripped again."""
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    specials = [PAD, BOS, EOS, "<unk>"]
    tok.train_from_iterator([f" {t}" for t in TEXT] * 4, trainers.BpeTrainer(vocab_size=180, special_tokens=specials, show_progress=False))
    learnt = json.loads(tok.to_str())["model"]
    vocab = {piece: i for piece, i in learnt["vocab"].items() if "\n" not in piece}
    places = {piece: i for i, piece in enumerate([*vocab, *(f"<0x{byte:02X}>" for byte in range(256))])}
    merges = [(a, b) for a, b in learnt["merges"] if {a, b, a + b} <= set(places)]
    tok = Tokenizer(models.BPE(places, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tok.add_special_tokens(specials)
    tok.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return _dressed(tok)


def _dressed(tok: Tokenizer) -> PreTrainedTokenizerFast:
    bos = tok.token_to_id(BOS)
    tok.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, bos)])
    assert tok.get_vocab_size() <= VOCABULARY
    return PreTrainedTokenizerFast(tokenizer_object=tok, pad_token=PAD, bos_token=BOS, eos_token=EOS)


@pytest.fixture(scope="session")
def pico_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the base."""
    folder, tok = tmp_path_factory.mktemp("pico"), byte_level_tokenizer()
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=False,
        pad_token_id=tok.pad_token_id,
        bos_token_id=tok.bos_token_id,
        eos_token_id=tok.eos_token_id,
    )
    model = LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim == 2:
                scale = 1.0 if "embed_tokens" in name else 1.5 / p.shape[1] ** 0.5
                p.copy_(torch.randn(p.shape, generator=generator) * scale)
    model.save_pretrained(folder)
    tok.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def base(pico_base: Path) -> Base:
    return load_base(BaseSpec(model=str(pico_base), device="cpu"))


@pytest.fixture(scope="session")
def base_bf16(pico_base: Path) -> Base:
    return load_base(BaseSpec(model=str(pico_base), device="cpu", dtype="bfloat16"))


@pytest.fixture(scope="session")
def plain_base(pico_base: Path) -> Base:
    """Not quantised."""
    return load_base(BaseSpec(model=str(pico_base), device="cpu", quantize="none"))


@pytest.fixture
def bank(base: Base) -> Iterator[AdapterBank]:
    yield from cleared(base)


@pytest.fixture
def bank_bf16(base_bf16: Base) -> Iterator[AdapterBank]:
    yield from cleared(base_bf16)


@pytest.fixture
def plain_bank(plain_base: Base) -> Iterator[AdapterBank]:
    yield from cleared(plain_base)


def cleared(base: Base) -> Iterator[AdapterBank]:
    bank = AdapterBank(base)
    yield bank
    bank.clear()


@pytest.fixture
def prompts(base: Base) -> list[tuple[int, ...]]:
    """Prompts of different lengths."""
    texts = [
        "\n\nHuman: Hello there\n\nAssistant:",
        "How are you",
        "\n\nHuman: Name three fruits.\n\nAssistant: 1.",
        "x",
        "I am well, thank you",
    ]
    return [encode(base.tokenizer, text) for text in texts]


@pytest.fixture
def rows(prompts: list[tuple[int, ...]]) -> list[Row]:
    """Rows with prompts and responses of different lengths."""
    generator = torch.Generator().manual_seed(3)
    lengths = (7, 1, 12, 4, 9)
    return [Row(p, tuple(torch.randint(3, 300, (n,), generator=generator).tolist())) for p, n in zip(prompts, lengths, strict=True)]


def add(bank: AdapterBank, *roles: str, trainable: bool = True) -> None:
    """Fresh adapters that do something: with B at zero every role would be the base."""
    for role in roles:
        bank.add(role, LORA, seed=len(bank.names), trainable=trainable)
        stir(bank, role)


def stir(bank: AdapterBank, role: str, *, seed: int = 11) -> None:
    generator = torch.Generator().manual_seed(seed + len(bank.names))
    with torch.no_grad():
        for p in bank.parameters(role):
            p.add_(torch.randn(p.shape, generator=generator) * 0.1)


def gradient(bank: AdapterBank, role: str, rows: Sequence[Row]) -> Tensor:
    """d(mean response log-prob) / d(adapter), one flat vector; the adapter's own gradients are empty before and after."""
    batch = collate(rows, pad_id=bank.base.pad_id, device=bank.base.device)
    parameters = bank.parameters(role)
    with bank.using(role, training=True) as trunk:
        response_logprobs(hidden_states(trunk, batch), bank.vocabulary, batch).logp[batch.keep].mean().backward()
    found = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    for p in parameters:
        p.grad = None
    return found


def cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a, b, dim=0))


def logits(bank: AdapterBank, role: str | None, ids: Sequence[int] = (1, 5, 9, 20, 33)) -> Tensor:
    with bank.using(role) as trunk, torch.no_grad():
        return trunk(input_ids=torch.tensor([list(ids)]), use_cache=False).last_hidden_state @ bank.vocabulary.T
