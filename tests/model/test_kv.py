"""The cache that grows by blocks gives the attention what transformers' own gives it, and copies a small part of the bytes."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from lite.model import kv
from lite.model.kv import BlockCache, BlockLayer

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "olmo2", "olmo3")


def model(family: str, attention: str) -> PreTrainedModel:
    config = CONFIG_MAPPING[family](
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=256,
        pad_token_id=0,
    )
    torch.manual_seed(3)
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()


def forward(net: PreTrainedModel, ids: torch.Tensor, attend: torch.Tensor, cache) -> torch.Tensor:
    """Last hidden states of new columns; positions count tokens."""
    positions = (attend.cumsum(-1) - 1).clamp_(min=0)[:, -ids.shape[1] :]
    with torch.no_grad():
        return net.get_decoder()(
            input_ids=ids, attention_mask=attend, position_ids=positions, past_key_values=cache, use_cache=True
        ).last_hidden_state


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_sees_what_it_sees_with_a_dynamic_cache(family, attention, monkeypatch):
    monkeypatch.setattr(kv, "BLOCK", 3)
    net = model(family, attention)
    ours, theirs = BlockCache(), DynamicCache()
    ids = torch.randint(1, 97, (3, 12), generator=torch.Generator().manual_seed(1))
    attend = torch.ones(3, 5, dtype=torch.long)
    attend[1, :2] = 0
    for at in range(4, 12):
        new = ids[:, :5] if at == 4 else ids[:, at : at + 1]
        attend = attend if at == 4 else torch.cat([attend, attend.new_ones(3, 1)], 1)
        a, b = (forward(net, new, attend, cache) for cache in (ours, theirs))
        torch.testing.assert_close(a[attend[:, -a.shape[1] :].bool()], b[attend[:, -b.shape[1] :].bool()], rtol=1e-5, atol=1e-6)
    assert ours.get_seq_length() == theirs.get_seq_length() == 12


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("widths", [(4, 7), (9, 2), (5, 5)])
def test_rows_of_two_caches_go_on_as_each_would_alone(attention, widths, monkeypatch):
    """Row 1 of the first leaves with the columns that only it saw; the second's rows come in under row 0 and row 2."""
    monkeypatch.setattr(kv, "BLOCK", 2)
    net = model("llama", attention)
    generator = torch.Generator().manual_seed(2)
    texts = [torch.randint(1, 97, (n,), generator=generator) for n in (widths[0] - 1, widths[0], widths[0] - 2, widths[1], widths[1] - 1)]
    tokens = torch.randint(1, 97, (4, 3), generator=generator)

    def padded(rows: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        width = max(len(r) for r in rows)
        ids = torch.stack([torch.nn.functional.pad(r, (width - len(r), 0)) for r in rows])
        return ids, (ids > 0).long()

    cache, other = BlockCache(), BlockCache()
    own = padded(texts[:3])
    more = padded(texts[3:])
    forward(net, *own, cache)
    forward(net, *more, other)
    keep = torch.tensor([0, 2])
    cache.take(keep, first=1, beside=other)
    assert all(layer.keys is None for layer in other.layers)
    attends = [own[1][keep][:, 1:], more[1]]
    width = max(a.shape[1] for a in attends)
    assert cache.get_seq_length() == width
    attend = torch.cat([torch.nn.functional.pad(a, (width - a.shape[1], 0)) for a in attends])
    found = []
    for column in tokens.T:
        attend = torch.cat([attend, attend.new_ones(4, 1)], 1)
        found.append(forward(net, column[:, None], attend, cache)[:, 0])
    for row, text in enumerate([texts[0], texts[2], *texts[3:]]):
        whole = torch.cat([text, tokens[row]])[None]
        alone = forward(net, whole, torch.ones_like(whole), DynamicCache())[0, -3:]
        torch.testing.assert_close(torch.stack(found)[:, row], alone, rtol=1e-4, atol=1e-5)


def test_a_row_may_be_taken_several_times():
    layer = BlockLayer()
    x = torch.randn(2, 1, 3, 4)
    layer.update(x, -x)
    layer.take(torch.tensor([1, 0, 1]), 1, None)
    keys, values = layer.update(torch.ones(3, 1, 1, 4), torch.ones(3, 1, 1, 4))
    assert torch.equal(keys[:, :, :2], x[[1, 0, 1]][:, :, 1:]) and torch.equal(values[:, :, :2], -keys[:, :, :2])
    assert keys.shape == (3, 1, 3, 4) and (keys[:, :, 2] == 1).all()


def test_what_is_not_written_is_zero_and_never_what_memory_held():
    layer = BlockLayer()
    layer.update(torch.full((1, 1, 2, 4), torch.nan), torch.full((1, 1, 2, 4), torch.nan))
    other = BlockLayer()
    other.update(torch.ones(1, 1, 1, 4), torch.ones(1, 1, 1, 4))
    layer.take(torch.tensor([0]), 0, other)
    assert layer.keys is not None
    assert (layer.keys[1, :, 0] == 0).all() and (layer.keys[1, :, 1] == 1).all() and (layer.keys[:, :, 2:] == 0).all()


class Moved(TorchDispatchMode):
    """Bytes that operations write to tensors of four dimensions, and how many tensors they make."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.made = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket in (torch.ops.aten.cat, torch.ops.aten.new_zeros, torch.ops.aten.copy_) and result.ndim == 4:
            self.bytes += result.numel() * result.element_size()
            self.made += func.overloadpacket is not torch.ops.aten.copy_
        return result


def test_a_token_copies_itself_and_its_share_of_a_block_not_the_whole_cache():
    """512 tokens through one layer: 1,024 concatenations become 34 copies, and a fifteenth of the bytes."""
    found = {}
    for cache in (BlockCache(), DynamicCache()):
        prompt, token = torch.zeros(2, 2, 64, 8), torch.zeros(2, 2, 1, 8)
        cache.update(prompt, prompt, 0)
        with Moved() as count:
            for _ in range(512):
                cache.update(token, token, 0)
        found[type(cache)] = count
        assert cache.get_seq_length() == 576
    assert found[DynamicCache].made == 2 * 512
    assert found[BlockCache].made <= 2 * (512 // kv.BLOCK + 1)
    assert found[BlockCache].bytes <= found[DynamicCache].bytes / 15
