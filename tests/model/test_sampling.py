"""The sampler alone: the inverse of the cumulated distribution at a given uniform number."""

import pytest
import torch
from torch import Tensor
from transformers import TopPLogitsWarper

from lite.model.generate import Decoding, _draw, _noise

LOGITS = torch.tensor([0.3, -1.0, 2.0, 0.0, 1.5, -3.0, 0.9, 0.25])
GRID = 20_000


def drawn(logits: Tensor, uniform: Tensor, **decoding: float) -> Tensor:
    rows = logits.expand(len(uniform), -1)
    return _draw(rows, uniform, Decoding(max_new_tokens=1, **decoding))  # type: ignore[arg-type]


def shares(logits: Tensor, **decoding: float) -> Tensor:
    """How often each token is drawn on an even grid of uniform numbers: its probability, to one part of the grid."""
    uniform = (torch.arange(GRID, dtype=torch.float64) + 0.5) / GRID
    return drawn(logits, uniform, **decoding).bincount(minlength=len(logits)) / GRID


@pytest.mark.parametrize("temperature", [0.3, 0.7, 1.0, 2.5])
def test_tokens_are_drawn_as_often_as_softmax_says(temperature):
    wanted = (LOGITS / temperature).softmax(-1)
    torch.testing.assert_close(shares(LOGITS, temperature=temperature), wanted, rtol=0, atol=2 / GRID)


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_the_nucleus_is_that_of_transformers(top_p, temperature):
    scaled = (LOGITS / temperature)[None]
    wanted = (TopPLogitsWarper(top_p)(None, scaled) if top_p < 1 else scaled).softmax(-1)[0]  # type: ignore[arg-type]
    found = shares(LOGITS, temperature=temperature, top_p=top_p)
    assert torch.equal(found > 0, wanted > 0)
    torch.testing.assert_close(found, wanted, rtol=0, atol=2 / GRID)


def test_real_seeds_give_the_distribution():
    """Chi-square with 7 degrees of freedom: 24.3 is passed once in a thousand times, and the seeds are fixed."""
    n = 4000
    found = drawn(LOGITS, _noise(range(n), 1)[:, 0]).bincount(minlength=len(LOGITS))
    wanted = LOGITS.softmax(-1) * n
    assert float(((found - wanted) ** 2 / wanted).sum()) < 24.3


def test_the_draw_is_the_inverse_of_the_cumulated_distribution():
    logits = torch.tensor([0.1, 0.2, 0.3, 0.4]).log()
    uniform = torch.tensor([0.0, 0.0999, 0.1001, 0.2999, 0.3001, 0.5999, 0.6001, 1 - 2**-53], dtype=torch.float64)
    assert drawn(logits, uniform).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_a_token_without_probability_is_never_drawn(top_p):
    nothing = float("-inf")
    logits = torch.tensor([nothing, nothing, 1.0, nothing, 0.5, nothing, nothing])
    edge = torch.tensor([0.0, 2**-53, logits.softmax(-1)[2].item(), 0.5, 1 - 2**-53], dtype=torch.float64)
    grid = torch.arange(GRID, dtype=torch.float64) / GRID
    assert set(drawn(logits, torch.cat([edge, grid]), top_p=top_p).tolist()) == {2, 4}


def test_a_single_possible_token_is_drawn_whatever_the_number():
    logits = torch.full((9,), float("-inf"))
    logits[8] = 0.0
    assert set(drawn(logits, torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64)).tolist()) == {8}


def test_temperature_0_is_the_likeliest_token():
    assert set(drawn(LOGITS, torch.rand(20, dtype=torch.float64), temperature=0.0).tolist()) == {2}


def test_two_tokens_that_are_all_but_equal_keep_their_places_in_the_nucleus():
    """Ranked by probability they would change places with the last bit, and the draw with them."""
    one, two = torch.tensor([0.5, 1.0, 1.0 + 1e-6, -2.0]), torch.tensor([0.5, 1.0 + 1e-6, 1.0, -2.0])
    uniform = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    differ = drawn(one, uniform, top_p=0.9) != drawn(two, uniform, top_p=0.9)
    assert int(differ.sum()) <= 1


def test_noise_is_a_matter_of_the_seed_alone():
    noise = _noise([3, 4, 2**62 + 1], 40)
    assert noise.dtype == torch.float64
    assert (noise.shape, bool((noise >= 0).all()), bool((noise < 1).all())) == ((3, 40), True, True)
    assert torch.equal(_noise([4], 40)[0], noise[1])
    assert torch.equal(_noise([2**62 + 1, 3], 25)[1], noise[0, :25])
    assert len({tuple(row) for row in noise.tolist()}) == 3
    state = torch.get_rng_state()
    _noise([1], 5)
    assert torch.equal(torch.get_rng_state(), state)


def test_noise_is_finer_than_32_bits():
    """In steps of 2^-24, 0 would come up once in 17 million draws, and with it the vocabulary's first token however unlikely."""
    grains = (_noise(range(50), 50) * 2**24) % 1
    assert float((grains > 0).float().mean()) > 0.99
