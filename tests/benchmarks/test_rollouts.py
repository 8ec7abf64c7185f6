"""Both sides of the claim on rollouts write what they say they write; what is kept of log-probs is told as it is."""

import pytest

from benchmarks import rollouts
from benchmarks.random_base import TINY, add_roles, load_bank, random_ids, write_base
from lite.knobs import LoraSpec


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    bank = load_bank(write_base(tmp_path_factory.mktemp("base"), TINY))
    add_roles(bank, (rollouts.POLICY,), lora=LoraSpec(), spread=0.001)
    return bank


def test_both_sides_write_every_token(bank):
    prompts = random_ids(TINY, [6, 9, 4, 12, 7], seed=1)
    found = rollouts.measure(bank, prompts, rows=2, new=5, stops=False)
    assert found["tokens_ours"] == found["tokens_generate"] == 5 * 5
    assert found["ms_per_token_ours"] > 0 and found["ms_per_token_generate"] > 0


def test_log_probs_of_a_rollout_are_close_but_not_those_of_the_training_pass(bank):
    found = rollouts.agreement(bank, random_ids(TINY, [6, 9, 4, 12], seed=1), rows=4, new=8)
    assert 0 < found["largest"] < 1e-4
