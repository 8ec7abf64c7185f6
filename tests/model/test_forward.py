"""Log-probs, values and rewards against a naive computation over all logits, and what must not change them."""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lite.model.bank import AdapterBank
from lite.model.encoding import Row
from lite.model.forward import (
    collate,
    hidden_states,
    logprob_rows,
    micro_batches,
    response_logprobs,
    response_rewards,
    response_values,
    reward_rows,
    score_rows,
)

from .conftest import add

CPU = torch.device("cpu")
CLOSE = {"rtol": 1e-4, "atol": 2e-5}


def naive(bank: AdapterBank, role: str | None, row: Row, temperature: float = 1.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probs (R,), entropies (R,) and hidden states (T, D) of one row, from the whole table of logits."""
    ids = torch.tensor([row.prompt + row.response])
    with bank.using(role), torch.no_grad():
        found = bank.base.model(input_ids=ids, output_hidden_states=True, use_cache=False)
    table = (found.logits[0].float() / temperature).log_softmax(-1)[len(row.prompt) - 1 : -1]
    logp = torch.stack([table[j, token] for j, token in enumerate(row.response)])
    return logp, -(table.exp() * table).sum(-1), found.hidden_states[-1][0]


class Names(TorchDispatchMode):
    """Counts torch's operations by name."""

    def __enter__(self) -> Counter[str]:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.count: Counter[str] = Counter()
        super().__enter__()
        return self.count

    def __torch_dispatch__(self, function, types, positional=(), named=None):
        self.count[function.overloadpacket.__name__] += 1
        return function(*positional, **(named or {}))


# -- log-probs --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("role", [None, "policy"])
def test_response_logprobs_are_those_of_the_whole_table(bank, rows, role, temperature):
    add(bank, "policy")
    batch = collate(rows, pad_id=bank.base.pad_id, device=CPU)
    with bank.using(role) as trunk, torch.no_grad():
        hidden = hidden_states(trunk, batch)
        found = response_logprobs(hidden, bank.vocabulary, batch, temperature=temperature, entropy=True)
        plain = response_logprobs(hidden, bank.vocabulary, batch, temperature=temperature)
    assert torch.equal(plain.logp, found.logp)
    assert plain.entropy.shape == (len(rows), 0)
    for i, row in enumerate(rows):
        logp, entropy, _ = naive(bank, role, row, temperature)
        n = len(row.response)
        torch.testing.assert_close(found.logp[i, :n], logp, **CLOSE)
        torch.testing.assert_close(found.entropy[i, :n], entropy, **CLOSE)
    assert torch.equal(found.logp[~batch.keep], torch.zeros(int((~batch.keep).sum())))
    assert torch.equal(found.entropy[~batch.keep], torch.zeros(int((~batch.keep).sum())))


@pytest.mark.parametrize("micro_tokens", [1, 40, 10_000])
def test_neither_padding_nor_the_size_of_a_micro_batch_changes_a_log_prob(bank, rows, micro_tokens):
    add(bank, "policy")
    found = logprob_rows(bank, rows, role="policy", temperature=0.9, micro_tokens=micro_tokens)
    assert found.shape == (5, 12)
    for i, row in enumerate(rows):
        n = len(row.response)
        torch.testing.assert_close(found[i, :n], naive(bank, "policy", row, 0.9)[0], **CLOSE)
        assert found[i, n:].abs().sum() == 0


def test_the_id_of_the_padding_changes_nothing(bank, rows):
    results = []
    for pad_id in (0, 2, 300):
        batch = collate(rows, pad_id=pad_id, device=CPU)
        with bank.using(None) as trunk, torch.no_grad():
            results.append(response_logprobs(hidden_states(trunk, batch), bank.vocabulary, batch).logp)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_the_gradient_is_that_of_the_whole_table(bank, rows):
    add(bank, "policy")
    parameters, row = bank.parameters("policy"), rows[2]
    batch = collate([rows[1], row], pad_id=bank.base.pad_id, device=CPU)
    grads = []
    for whole in (False, True):
        with bank.using("policy", training=True) as trunk:
            if whole:
                ids = torch.tensor([row.prompt + row.response])
                logits = bank.base.model(input_ids=ids, use_cache=False).logits[0]
                chosen = (logits / 0.8).log_softmax(-1)[len(row.prompt) - 1 : -1].gather(1, torch.tensor(row.response)[:, None])
                chosen.mean().backward()
            else:
                logp = response_logprobs(hidden_states(trunk, batch), bank.vocabulary, batch, temperature=0.8).logp
                logp[1, : len(row.response)].mean().backward()
        grads.append(torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]))
        for p in parameters:
            p.grad = None
    assert float(grads[0].norm()) > 0
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-3, atol=1e-6)


def test_bf16_states_give_fp32_log_probs(bank_bf16, rows):
    found = logprob_rows(bank_bf16, rows, role=None, temperature=1.0, micro_tokens=100)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[0, :7], naive(bank_bf16, None, rows[0])[0], rtol=0.05, atol=0.1)


# -- values and rewards ------------------------------------------------------------------------------------------------------------------


def test_a_value_is_read_before_its_token_and_a_reward_at_the_last_token(bank, rows):
    add(bank, "reward")
    head = bank.head("reward").randomize(4)
    with torch.no_grad():
        head.bias.fill_(0.5)
    batch = collate(rows, pad_id=bank.base.pad_id, device=CPU)
    with bank.using("reward") as trunk, torch.no_grad():
        hidden = hidden_states(trunk, batch)
        values, rewards = response_values(hidden, head, batch), response_rewards(hidden, head, batch)
    assert (values.dtype, rewards.dtype) == (torch.float32, torch.float32)
    for i, row in enumerate(rows):
        states = naive(bank, "reward", row)[2]
        by_hand = states @ head.weight.detach()[0] + 0.5
        p, n = len(row.prompt), len(row.response)
        torch.testing.assert_close(values[i, :n], by_hand[p - 1 : p + n - 1], **CLOSE)
        torch.testing.assert_close(rewards[i], by_hand[p + n - 1], **CLOSE)
    assert values[~batch.keep].abs().sum() == 0  # off-mask 0, not the bias
    assert not values.requires_grad


def test_a_pooled_reward_is_the_mean_over_the_response_tokens_alone(bank, rows):
    add(bank, "reward")
    head = bank.head("reward").randomize(4)
    head.pool = "mean"
    found = reward_rows(bank, rows, role="reward", micro_tokens=10_000)
    alone = torch.cat([reward_rows(bank, [row], role="reward", micro_tokens=10_000) for row in rows])
    for i, row in enumerate(rows):
        states = naive(bank, "reward", row)[2]
        torch.testing.assert_close(found[i], (states[len(row.prompt) :] @ head.weight.detach()[0]).mean(), **CLOSE)
    torch.testing.assert_close(found, alone, **CLOSE)  # padding is no part of the mean
    assert len({len(row.response) for row in rows}) > 1


@pytest.mark.parametrize("micro_tokens", [1, 50, 10_000])
def test_reward_rows_are_in_the_order_of_the_rows(bank, rows, micro_tokens):
    add(bank, "reward")
    head = bank.head("reward").randomize(4)
    found = reward_rows(bank, rows, role="reward", micro_tokens=micro_tokens)
    wanted = torch.stack([naive(bank, "reward", row)[2][-1] @ head.weight.detach()[0] for row in rows])
    torch.testing.assert_close(found, wanted, **CLOSE)
    assert not found.requires_grad
    assert reward_rows(bank, [], role="reward", micro_tokens=9).shape == (0,)


# -- the mixed pass ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("micro_tokens", [1, 90, 10_000])
@pytest.mark.parametrize("value", ["value", None])
def test_one_mixed_pass_equals_three_separate_ones(bank, rows, micro_tokens, value):
    add(bank, "policy", "reward", "value")
    reward_head, value_head = bank.head("reward").randomize(1), bank.head("value").randomize(2)
    found = score_rows(bank, rows, reward="reward", value=value, temperature=0.8, micro_tokens=micro_tokens)
    reference = logprob_rows(bank, rows, role=None, temperature=0.8, micro_tokens=10_000)
    torch.testing.assert_close(found.reference, reference, **CLOSE)
    torch.testing.assert_close(found.rewards, reward_rows(bank, rows, role="reward", micro_tokens=10_000), **CLOSE)
    if value is None:
        assert found.values.shape == (5, 0)
        return
    batch = collate(rows, pad_id=bank.base.pad_id, device=CPU)
    with bank.using("value") as trunk, torch.no_grad():
        values = response_values(hidden_states(trunk, batch), value_head, batch)
        wrong = response_values(hidden_states(trunk, batch), reward_head, batch)
    torch.testing.assert_close(found.values, values, **CLOSE)
    assert not torch.allclose(found.values, wrong, atol=1e-2)
    assert not any(t.requires_grad for t in found)


def test_a_mixed_pass_is_one_pass_over_the_base(bank, rows):
    add(bank, "reward", "value")
    passes = []
    hook = bank.trunk.register_forward_pre_hook(lambda *_: passes.append(1))
    score_rows(bank, rows, reward="reward", value="value", temperature=1.0, micro_tokens=10_000)
    hook.remove()
    assert len(passes) == 1


def test_rows_of_a_mixed_pass_belong_to_the_roles_named(bank):
    add(bank, "a", "b")
    ids = torch.tensor([[1, 7, 8, 9]])

    def alone(role: str | None) -> torch.Tensor:
        with bank.using(role) as trunk, torch.no_grad():
            return trunk(input_ids=ids, use_cache=False).last_hidden_state[0]

    roles = ["b", None, "a", "a", "b"]
    with bank.mixing(roles) as trunk, torch.no_grad():
        mixed = trunk(input_ids=ids.repeat(5, 1), use_cache=False).last_hidden_state
    for i, role in enumerate(roles):
        torch.testing.assert_close(mixed[i], alone(role), **CLOSE)
    plain = alone(None)
    with bank.mixing([None, None]) as trunk, torch.no_grad():
        torch.testing.assert_close(trunk(input_ids=ids.repeat(2, 1), use_cache=False).last_hidden_state[1], plain, **CLOSE)
    with bank.mixing(["a"]) as trunk, pytest.raises(ValueError, match="1 roles over 2 rows"):
        trunk(input_ids=ids.repeat(2, 1), use_cache=False)


@contextmanager
def peft(bank: AdapterBank, role: str, roles: Sequence[str | None] = ()) -> Iterator[nn.Module]:
    """PEFT's own forward of one role, or of a row per role."""
    keys = ["__base__" if name is None else bank._find(name).key for name in roles]

    def told(layer, positional, named):
        return positional, named | {"adapter_names": keys}

    with bank.using(role, training=True) as trunk:
        bank.base.model.eval()
        hooks = [layer.register_forward_pre_hook(told, with_kwargs=True) for layer in bank._layers.values() if keys]
        try:
            yield trunk
        finally:
            for hook in hooks:
                hook.remove()


MIXED = [None, None, "a", "a", "b", "b"]


@pytest.mark.parametrize("roles", [None, MIXED], ids=["one role", "mixed"])
def test_inference_has_the_bits_of_pefts_own_and_none_of_its_copies(bank, roles):
    add(bank, "a", "b")
    ids = torch.tensor([[1, 7, 8, 9], [2, 7, 5, 9]]).repeat(3, 1)
    with peft(bank, "a", roles or ()) as trunk, torch.no_grad(), Names() as theirs:
        plain = trunk(input_ids=ids, use_cache=False).last_hidden_state
    with bank.mixing(roles) if roles else bank.using("a") as trunk, torch.no_grad(), Names() as ours:
        found = trunk(input_ids=ids, use_cache=False).last_hidden_state
    with bank.using(None) as trunk, torch.no_grad():
        assert not torch.allclose(found[-1], trunk(input_ids=ids[-1:], use_cache=False).last_hidden_state[0], atol=1e-2)
    assert torch.equal(found, plain)  # alpha / r is a power of two: where the scale is applied makes no difference
    assert ours["mm"] == theirs["mm"] > 0
    copies = "index_put_" if roles else "clone"
    assert theirs[copies] - ours[copies] == (2 if roles else 1) * len(bank._layers)
    assert ours.total() < theirs.total()


# -- batches --------------------------------------------------------------------------------------------------------------------------------


def test_collate_by_hand():
    batch = collate([Row((5, 6), (7, 8)), Row((9,), (10,))], pad_id=0, device=CPU)
    assert batch.ids.tolist() == [[5, 6, 7, 8], [9, 10, 0, 0]]
    assert batch.attend.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch.before.tolist() == [[1, 2], [0, 0]]
    assert batch.targets.tolist() == [[7, 8], [10, 0]]
    assert batch.keep.tolist() == [[True, True], [True, False]]
    assert batch.last.tolist() == [3, 1]


@pytest.mark.parametrize(("row", "what"), [(Row((), (1,)), "prompt"), (Row((1,), ()), "response")])
def test_a_row_without_prompt_or_response_is_a_mistake(row, what):
    with pytest.raises(ValueError, match=f"row 1 has no {what}"):
        collate([Row((1,), (2,)), row], pad_id=0, device=CPU)


def test_no_rows_are_a_mistake():
    with pytest.raises(ValueError, match="no rows"):
        collate([], pad_id=0, device=CPU)


@pytest.mark.parametrize("tokens", [1, 64, 300, 4096])
def test_micro_batches_hold_every_row_once_within_the_budget(tokens):
    lengths = [random.Random(i).randint(1, 200) for i in range(61)]
    groups = micro_batches(lengths, tokens=tokens)
    assert sorted(i for g in groups for i in g) == list(range(61))
    assert all(len(g) == 1 or len(g) * max(lengths[i] for i in g) <= tokens for g in groups)
    tops = [max(lengths[i] for i in g) for g in groups]
    assert tops == sorted(tops, reverse=True)  # the largest first: too little memory shows at once
    assert micro_batches([], tokens=tokens) == []


def test_micro_batches_by_hand():
    assert micro_batches([3, 10, 4, 4, 2], tokens=12) == [[1], [2, 3, 0], [4]]
