import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lite.fit.sizes import HEAD_CHUNK
from lite.objectives.logprobs import token_logprobs

N, D, V = 23, 8, 50


@pytest.fixture
def head(table):
    hidden, weight, bias = table(N, D), table(V, D, seed=1), table(V, seed=2)
    return hidden, weight, bias, torch.randint(V, (N,), generator=torch.Generator().manual_seed(3))


def full(hidden, weight, targets, *, temperature=1.0, bias=None):
    """The whole (N, V) table, by torch's own functions."""
    logits = torch.nn.functional.linear(hidden, weight, bias) / temperature
    logp = -torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    return logp, torch.distributions.Categorical(logits=logits).entropy()


@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.0])
@pytest.mark.parametrize("chunk", [1, 4, N, 100])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("head_learns", [False, True])
def test_values_and_gradients_equal_the_full_computation(head, table, temperature, chunk, with_bias, head_learns):
    hidden, weight, bias, targets = head
    upstream, results = table(N, seed=4), []
    for function, option in ((full, {}), (token_logprobs, {"chunk": chunk})):
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_(head_learns)
        b = bias.clone().requires_grad_(head_learns) if with_bias else None
        logp, entropy = function(h, w, targets, temperature=temperature, bias=b, **option)
        (logp * upstream).sum().backward()
        results.append([logp, entropy, h.grad, w.grad, None if b is None else b.grad])
    for ours, theirs in zip(results[1], results[0], strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("head_learns", [False, True])
def test_gradient_by_finite_differences(head, head_learns):
    hidden, weight, _, targets = head
    h, w = hidden[:5].double().requires_grad_(), weight.double().requires_grad_(head_learns)
    assert torch.autograd.gradcheck(lambda h, w: token_logprobs(h, w, targets[:5], temperature=0.8, chunk=2).logp, (h, w))


def test_only_the_weight_learns(head):
    hidden, weight, _, targets = head
    weight.requires_grad_()
    token_logprobs(hidden, weight, targets, chunk=4).logp.sum().backward()
    theirs = torch.autograd.grad(full(hidden, weight, targets)[0].sum(), weight)[0]
    assert hidden.grad is None
    assert torch.allclose(weight.grad, theirs, atol=1e-5)


class Watch(TorchDispatchMode):
    """Counts the largest tensor that any operation gives, and the most elements of tables (?, V) alive at once."""

    def __init__(self, words=V):
        super().__init__()
        self.words = words
        self.largest = self.alive = self.peak = 0
        self.shapes = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, tuple) else (out,):
            if not isinstance(t, torch.Tensor):
                continue
            self.largest = max(self.largest, t.numel())
            self.shapes.add(tuple(t.shape))
            fresh = all(t is not a and not t._is_view() for a in args if isinstance(a, torch.Tensor))
            if fresh and t.ndim == 2 and t.shape[1] == self.words:
                self.alive += t.numel()
                weakref.finalize(t, self.gone, t.numel())
        self.peak = max(self.peak, self.alive)
        return out

    def gone(self, numel):
        self.alive -= numel


@pytest.mark.parametrize("head_learns", [False, True])
def test_no_table_is_larger_than_a_chunk(head, head_learns):
    hidden, weight, _, targets = head
    hidden.requires_grad_()
    weight.requires_grad_(head_learns)
    chunk = 9  # chunk * V = 450 > N * D, V * D: what remains large is a table
    with Watch() as ours:
        token_logprobs(hidden, weight, targets, chunk=chunk).logp.sum().backward()
    assert ours.largest == chunk * V
    assert chunk * V <= ours.peak <= 2 * chunk * V
    with Watch() as theirs:
        full(hidden, weight, targets)[0].sum().backward()
    assert theirs.largest == N * V  # the watch does see what it must
    assert theirs.peak >= 2 * N * V


def test_at_32k_words_the_head_takes_a_quarter_of_the_full_logits():
    """2,048 positions, forward and backward, in the chunks that the passes use; full logits alone would be 250 MiB in fp32."""
    positions, words = 2048, 32_000
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(positions, 8, generator=generator, requires_grad=True)
    targets = torch.randint(words, (positions,), generator=generator)
    with Watch(words) as watch:
        token_logprobs(hidden, torch.randn(words, 8, generator=generator), targets, chunk=HEAD_CHUNK).logp.sum().backward()
    assert 0 < watch.peak <= 0.25 * positions * words


def test_a_frozen_head_is_not_run_again_in_the_backward(head):
    hidden, weight, _, targets = head
    logp = token_logprobs(hidden.requires_grad_(), weight, targets, chunk=4).logp.sum()
    with Watch() as watch:
        logp.backward()
    assert watch.largest <= N * D


def test_without_gradient_nothing_is_kept(head):
    hidden, weight, _, targets = head
    hidden.requires_grad_()
    with torch.no_grad(), Watch() as watch:
        logp = token_logprobs(hidden, weight, targets, chunk=4).logp
    assert (N, D) not in watch.shapes  # no slope either
    assert not logp.requires_grad
    assert torch.allclose(logp, full(hidden, weight, targets)[0], atol=1e-5)


def test_entropy_is_detached_and_that_of_the_tempered_distribution():
    # logits 0 and T log 3: at temperature T the odds are 1 : 3 whatever T is
    hidden, weight = torch.tensor([[1.0]], requires_grad=True), torch.tensor([[0.0], [2 * torch.tensor(3.0).log()]])
    logp, entropy = token_logprobs(hidden, weight, torch.tensor([1]), temperature=2.0)
    assert logp.exp().item() == pytest.approx(0.75)
    assert entropy.item() == pytest.approx(0.25 * 1.386294 + 0.75 * 0.287682, abs=1e-5)  # sum of -p log p
    assert logp.requires_grad
    assert not entropy.requires_grad


@pytest.mark.parametrize("head_learns", [False, True])
def test_without_the_entropy_the_rest_is_the_same_to_the_bit(head, head_learns):
    hidden, weight, _, targets = head
    results = []
    for entropy in (True, False):
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_(head_learns)
        found = token_logprobs(h, w, targets, temperature=0.7, chunk=4, entropy=entropy)
        found.logp.sum().backward()
        assert found.entropy.shape == ((N,) if entropy else (0,))
        results.append((found.logp, h.grad, w.grad if head_learns else h.grad))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_a_barred_token_has_no_part_in_the_entropy(head):
    hidden, weight, _, targets = head
    bias = torch.zeros(V).index_fill(0, torch.tensor([7]), float("-inf"))
    logp, entropy = token_logprobs(hidden.requires_grad_(), weight, targets.clamp(max=6), bias=bias)
    logp.sum().backward()
    assert entropy.isfinite().all()
    assert hidden.grad.isfinite().all()


@pytest.mark.parametrize("head_learns", [False, True])
def test_bf16_states_get_fp32_log_probs(head, head_learns):
    hidden, weight, _, targets = head
    h, w = hidden.bfloat16().requires_grad_(), weight.bfloat16().requires_grad_(head_learns)
    logp, entropy = token_logprobs(h, w, targets, chunk=5)
    assert logp.dtype == entropy.dtype == torch.float32
    rounded = torch.nn.functional.linear(h, w).float()  # the product is bf16, all after it fp32
    assert torch.allclose(logp, rounded.log_softmax(-1).gather(1, targets[:, None])[:, 0], atol=1e-6)
    logp.sum().backward()
    assert h.grad is not None
    assert h.grad.dtype == torch.bfloat16
    exact = torch.autograd.grad(full(h.float(), w.float(), targets)[0].sum(), h)[0]
    assert torch.cosine_similarity(h.grad.float().flatten(), exact.float().flatten(), dim=0) > 0.999


def test_the_slope_of_a_likely_token_survives_bf16():
    # p = 1 - e, e = 1 / (1 + exp(8)) = 3.4e-4: in bf16 p is 1 and the slope would vanish
    weight = torch.tensor([[8.0], [0.0]], dtype=torch.bfloat16)
    hidden = torch.ones(1, 1, dtype=torch.bfloat16, requires_grad=True)
    token_logprobs(hidden, weight, torch.tensor([0])).logp.sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.item() == pytest.approx(8 * 3.3535e-4, rel=0.01)  # (1 - p) * 8


def test_autocast_changes_nothing(head):
    hidden, weight, _, targets = head
    plain = token_logprobs(hidden, weight, targets).logp
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(token_logprobs(hidden, weight, targets).logp, plain)


def test_no_positions(head):
    hidden, weight, _, targets = head
    h = hidden[:0].requires_grad_()
    logp, entropy = token_logprobs(h, weight, targets[:0])
    logp.sum().backward()
    assert logp.shape == entropy.shape == (0,)
    assert h.grad is not None


def test_trl_selects_the_same(head):
    selective = pytest.importorskip("trl.trainer.utils", exc_type=ImportError).selective_log_softmax
    hidden, weight, _, targets = head
    assert torch.allclose(token_logprobs(hidden, weight, targets, chunk=6).logp, selective(hidden @ weight.T, targets), atol=1e-5)


@pytest.mark.parametrize("bad", [{"temperature": 0.0}, {"temperature": -1.0}, {"chunk": 0}])
def test_impossible_settings_are_refused(head, bad):
    hidden, weight, _, targets = head
    with pytest.raises(ValueError, match="temperature must be above 0"):
        token_logprobs(hidden, weight, targets, **bad)


def test_targets_must_match(head):
    hidden, weight, _, targets = head
    with pytest.raises(ValueError, match="targets have shape"):
        token_logprobs(hidden, weight, targets[1:])
