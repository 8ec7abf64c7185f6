"""When memory runs out: the work is done in smaller pieces, with the same result. Nothing here runs out of memory for real."""

import logging
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from lite.errors import PreconditionError
from lite.model.bank import AdapterBank
from lite.model.forward import logprob_rows, micro_batches, refine, reward_rows, score_rows
from lite.model.generate import Decoding, generate
from lite.model.memory import TRIES, Budget

from .conftest import add

CLOSE = {"rtol": 1e-4, "atol": 2e-5}


@contextmanager
def small_card(bank: AdapterBank, *, tokens: int = 10**9, rows: int = 10**9, fail_at: int = -1) -> Iterator[list[int]]:
    """A card with room for so many tokens or rows per pass, or for all but one pass; gives the sizes of the passes that went through."""
    passes: list[int] = []
    asked = 0

    def check(trunk: object, positional: object, named: dict[str, torch.Tensor]) -> None:
        nonlocal asked
        asked += 1
        ids = named["input_ids"]
        if ids.numel() > tokens or len(ids) > rows or asked == fail_at:
            raise torch.OutOfMemoryError("CUDA out of memory")
        passes.append(ids.numel())

    hook = bank.trunk.register_forward_pre_hook(check, with_kwargs=True)
    try:
        yield passes
    finally:
        hook.remove()


# -- the budget -------------------------------------------------------------------------------------------------------------------------


def needs(most: int, seen: list[int]):
    def attempt(limit: int) -> int:
        seen.append(limit)
        if limit > most:
            raise torch.OutOfMemoryError
        return limit

    return attempt


def test_halves_until_it_fits_undoes_every_failure_says_so_and_remembers(caplog):
    budget, seen, undone = Budget(), [], []
    with caplog.at_level(logging.WARNING):
        assert budget.spend("rows", 100, needs(30, seen), undo=lambda: undone.append(len(seen))) == 25
    assert seen == [100, 50, 25]
    assert undone == [1, 2]
    assert [r.message for r in caplog.records] == [
        "out of memory with 100 rows at once; goes on with 50",
        "out of memory with 50 rows at once; goes on with 25",
    ]
    seen.clear()
    assert [budget.spend("rows", asked, needs(30, seen)) for asked in (100, 10)] == [25, 10]
    assert budget.spend("tokens", 28, needs(30, seen)) == 28  # another kind of work
    assert seen == [25, 10, 28]


@pytest.mark.parametrize(("asked", "tried"), [(4096, [4096, 2048, 1024, 512, 256, 128]), (5, [5, 2, 1])])
def test_gives_up_after_five_halvings_or_at_one(asked, tried):
    seen: list[int] = []
    with pytest.raises(PreconditionError, match=rf"out of memory with {tried[-1]} rows at once, where {asked} were asked for"):
        Budget().spend("rows", asked, needs(0, seen))
    assert seen == tried
    assert len(tried) <= TRIES + 1


def test_other_errors_are_left_alone():
    with pytest.raises(ZeroDivisionError):
        Budget().spend("rows", 8, lambda rows: rows // 0, undo=pytest.fail)


def test_what_a_failed_attempt_held_is_gone_before_the_next_one():
    held: list[weakref.ref] = []
    gone: list[bool] = []

    def attempt(limit: int) -> None:
        gone.extend(ref() is None for ref in held)
        tensor = torch.zeros(limit)
        held.append(weakref.ref(tensor))
        if limit > 2:
            raise torch.OutOfMemoryError

    Budget().spend("rows", 8, attempt)
    assert gone == [True, True, True]  # one at the second attempt, two at the third


def test_refining_leaves_what_fits_as_it_is():
    lengths = [5, 9, 2, 9, 7, 1, 3]
    groups = micro_batches(lengths, tokens=20)
    assert refine(groups, lengths, tokens=20) == groups
    halves = refine(groups, lengths, tokens=10)
    assert sorted(i for group in halves for i in group) == list(range(7))
    assert all(len(group) == 1 or len(group) * max(lengths[i] for i in group) <= 10 for group in halves)


# -- scoring ----------------------------------------------------------------------------------------------------------------------------


def test_scores_are_the_same_on_a_small_card(bank, rows):
    add(bank, "reward", "value")

    def score() -> list[torch.Tensor]:
        return [
            *score_rows(bank, rows, reward="reward", value="value", temperature=0.7, micro_tokens=4096),
            reward_rows(bank, rows, role="reward", micro_tokens=4096),
            logprob_rows(bank, rows, role=None, temperature=1.0, micro_tokens=4096),
        ]

    expected = score()
    most = 3 * max(len(row) for row in rows)  # one row, three roles
    with small_card(bank, tokens=most) as passes:
        found = score()
        assert max(passes) <= most
        before = len(passes)
        again = score()
        assert len(passes) - before == 3 * (len(passes) - before) // 3 > 3  # several passes each
    for a, b, c in zip(expected, found, again, strict=True):
        torch.testing.assert_close(b, a, **CLOSE)
        assert torch.equal(b, c)


def test_a_second_scoring_runs_out_no_more(bank, rows, caplog):
    add(bank, "reward")
    with small_card(bank, tokens=60), caplog.at_level(logging.WARNING):
        reward_rows(bank, rows, role="reward", micro_tokens=4096)
        first = len(caplog.records)
        reward_rows(bank, rows, role="reward", micro_tokens=4096)
    assert first > 0
    assert len(caplog.records) == first


def test_a_row_that_does_not_fit_alone_is_an_error_that_says_what_to_do(bank, rows):
    with small_card(bank, tokens=3), pytest.raises(PreconditionError, match="a smaller base; `lite plan RECIPE --card GB`"):
        logprob_rows(bank, rows, role=None, temperature=1.0, micro_tokens=4096)
    assert len(logprob_rows(bank, rows, role=None, temperature=1.0, micro_tokens=4096)) == len(rows)  # the bank is in order afterwards


# -- writing ----------------------------------------------------------------------------------------------------------------------------


def write(bank: AdapterBank, prompts: list[tuple[int, ...]], told: list[int], **options) -> list:
    return generate(
        bank,
        None,
        prompts,
        seeds=range(len(prompts)),
        decoding=Decoding(12, stop=None),
        done=lambda n, tokens: told.append(n),
        **options,
    )


@pytest.mark.parametrize("groups", [None, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]])
def test_responses_are_the_same_on_a_small_card(bank, prompts, groups):
    prompts = [p for p in prompts for _ in range(2)]
    expected = write(bank, prompts, [], groups=groups)
    told: list[int] = []
    with small_card(bank, rows=3):
        assert write(bank, prompts, told, rows=8, groups=groups) == expected
    assert sum(told) == len(prompts)


@pytest.mark.parametrize("fail_at", [1, 5, 14, 20])
def test_responses_that_are_finished_stay_when_memory_runs_out_later(bank, prompts, fail_at):
    prompts = prompts * 2
    expected = write(bank, prompts, [])
    told: list[int] = []
    with small_card(bank, fail_at=fail_at):
        assert write(bank, prompts, told, rows=4) == expected
    assert sum(told) == len(prompts)  # nothing is written twice, or the bar would run over
