import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lite.objectives.masks import at_last, kept, masked_mean, masked_sum, masked_var, row_sums, scatter_kept, share, standardize

NAN = float("nan")


def test_mean_sum_and_variance_by_hand():
    x = torch.tensor([[1.0, 2.0, NAN], [6.0, NAN, NAN]])
    keep = torch.tensor([[True, True, False], [True, False, False]])
    assert masked_sum(x, keep) == 9  # 1 + 2 + 6
    assert masked_mean(x, keep) == 3  # 9 / 3
    assert masked_var(x, keep) == pytest.approx(14 / 3)  # (4 + 1 + 9) / 3
    assert row_sums(x, keep).tolist() == [3, 6]


def test_nothing_kept_is_zero_not_nan():
    x, none = torch.full((2, 3), NAN), torch.zeros(2, 3, dtype=torch.bool)
    for value in (masked_sum(x, none), masked_mean(x, none), masked_var(x, none), share(x, none, 0.0)):
        assert value == 0
    for center in (True, False):
        assert not standardize(x, none, center=center).any()


def test_one_kept_entry_has_no_spread():
    x, keep = torch.tensor([[5.0, NAN]]), torch.tensor([[True, False]])
    assert masked_var(x, keep) == 0
    assert standardize(x, keep, center=True).tolist() == [[0, 0]]
    assert standardize(x, keep, center=False).tolist() == [[5, 0]]


def test_standardize_by_hand():
    x, keep = torch.tensor([[1.0, 3.0, 100.0]]), torch.tensor([[True, True, False]])
    # mean 2, variance ((1-2)^2 + (3-2)^2) / 2 = 1
    assert standardize(x, keep, center=True).tolist() == [[-1, 1, 0]]
    assert standardize(x, keep, center=False).tolist() == [[1, 3, 0]]


def test_a_large_constant_has_no_spread():
    x, keep = torch.full((64, 37), 1000.1), torch.ones(64, 37, dtype=torch.bool)
    assert not standardize(x, keep, center=True).any()
    assert masked_var(x, keep) == 0


def test_two_passes_survive_a_large_mean(table):
    x, keep = table(64, 32), torch.ones(64, 32, dtype=torch.bool)
    shifted = standardize(x + 4096.0, keep, center=True)
    assert torch.allclose(shifted, standardize((x + 4096.0) - 4096.0, keep, center=True), atol=1e-5)


@pytest.mark.parametrize("center", [True, False])
def test_standardize_agrees_with_trl_up_to_bessel(trl_ppo, table, keep, center):
    x, n = table(4, 7) * 3 + 2, keep.sum()
    theirs = trl_ppo.masked_whiten(x, keep, shift_mean=center)
    if center:
        ours = standardize(x, keep, center=True) * ((n - 1) / n).sqrt()  # TRL divides by n - 1
    else:
        mean = trl_ppo.masked_mean(x, keep)
        ours = (standardize(x, keep, center=False) - mean) * ((n - 1) / n).sqrt() + mean
    assert torch.allclose(ours[keep], theirs[keep], atol=1e-5)
    assert masked_mean(x, keep) == pytest.approx(trl_ppo.masked_mean(x, keep).item())
    assert masked_var(x, keep) == pytest.approx(trl_ppo.masked_var(x, keep, unbiased=False).item())


def test_reductions_accumulate_in_fp32():
    x, keep = torch.ones(1, 1000, dtype=torch.bfloat16), torch.ones(1, 1000, dtype=torch.bool)
    assert masked_sum(x, keep).dtype == torch.float32
    assert masked_sum(x, keep) == 1000  # bf16 would stop at 256
    spread = torch.tensor([[256.0, 258.0]], dtype=torch.bfloat16)
    assert standardize(spread, torch.ones(1, 2, dtype=torch.bool), center=True).tolist() == [[-1, 1]]  # bf16 has no 257
    assert masked_sum(x.double(), keep).dtype == torch.float64
    uneven, all_kept = torch.tensor([[0.0, 1.0, 100.0]], dtype=torch.bfloat16), torch.ones(1, 3, dtype=torch.bool)
    exact = standardize(uneven.double(), all_kept, center=True).float()  # deviations such as -33.67, which bf16 has not
    assert torch.allclose(standardize(uneven, all_kept, center=True), exact, atol=1e-6)


def test_shares_add_up_to_the_mean(table, keep):
    x, total = table(4, 7), keep.sum()
    parts = [share(x[i : i + 1], keep[i : i + 1], total) for i in range(4)]
    assert sum(parts) == pytest.approx(masked_mean(x, keep).item())


def test_a_mask_never_broadcasts(table):
    with pytest.raises(ValueError, match=r"keep has shape \(4,\), its tensor has \(4, 4\)"):
        masked_mean(table(4, 4), torch.ones(4, dtype=torch.bool))


def test_gradient_outside_the_mask_is_zero_even_for_nan():
    x = torch.tensor([2.0, NAN], requires_grad=True)
    (kept(x, torch.tensor([True, False])) ** 2).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [4, 0]


def test_last_kept_position(keep):
    x = torch.arange(28.0).reshape(4, 7)
    assert row_sums(x, at_last(keep)).tolist() == [6, 9, 14, 25]
    assert at_last(keep).sum(-1).tolist() == [1, 1, 1, 1]
    hole = torch.tensor([[True, False, True, False], [False] * 4])
    assert row_sums(torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]]), at_last(hole)).tolist() == [3, 0]


def test_scatter_is_the_inverse_of_selection(table, keep):
    x = table(4, 7).requires_grad_()
    back = scatter_kept(x[keep], keep)
    assert torch.equal(back, kept(x, keep))
    assert torch.equal(torch.autograd.grad((back * 3).sum(), x)[0], 3.0 * keep)
    with pytest.raises(ValueError, match=r"14 positions are kept, the values have shape \(13,\)"):
        scatter_kept(x[keep][1:], keep)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(-50, 50, width=32), st.booleans()), min_size=1, max_size=40), st.booleans())
def test_standardize_properties(entries, center):
    x, keep = torch.tensor([v for v, _ in entries]), torch.tensor([k for _, k in entries])
    z = standardize(x, keep, center=center)
    assert z.isfinite().all()
    assert not z[~keep].any()
    assert torch.equal(standardize(torch.where(keep, x, NAN), keep, center=center), z)  # what is not kept is not read
    if masked_var(x, keep) > 1e-3:
        assert masked_var(z, keep) == pytest.approx(1, abs=1e-3)
        assert masked_mean(z, keep) == pytest.approx(0 if center else masked_mean(x, keep).item(), abs=1e-4)
