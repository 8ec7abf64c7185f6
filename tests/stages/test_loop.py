"""Contrast, reward, PPO and evaluation, small, on the embedded base."""

import math
from dataclasses import replace

import pytest
import torch

from lite.artifacts import Pairs, Policy
from lite.errors import ArtifactError, DivergedError
from lite.knobs import LoraSpec
from lite.knobs.judging import EvaluateSpec
from lite.knobs.ppo import PpoSpec
from lite.knobs.training import RewardSpec
from lite.knobs.writing import ContrastSpec, PromptsSpec
from lite.model.encoding import encode, encode_row
from lite.model.forward import logprob_rows, reward_rows
from lite.records import Pair, write_rows
from lite.runs.publish import write_json
from lite.stages.contrast import contrast
from lite.stages.evaluate import evaluate
from lite.stages.ppo import ppo
from lite.stages.prompts import prompts
from lite.stages.reward import reward
from lite.stages.rollouts import Row
from lite.text.dialogue import STOP

SMALL_PPO = {"steps": 2, "rollouts": 16, "minibatch": 8, "epochs": 2, "lr": 5e-4, "max_new_tokens": 48, "kl_coef": 0.05, "warmup_steps": 0}


@pytest.fixture(scope="module")
def asked(make_bench, folder):
    return prompts(PromptsSpec(train=48, dev=8, test=12), out=folder("prompts"), bench=make_bench("prompts"))


@pytest.fixture(scope="module")
def made(asked, make_bench, folder):
    return contrast(ContrastSpec(max_new_tokens=64), prompts=asked, out=folder("pairs"), bench=make_bench("contrast"))


@pytest.fixture(scope="module")
def judged(made, make_bench, folder):
    return reward(RewardSpec(epochs=1, lr=1e-3, batch_pairs=8), pairs=made, out=folder("reward"), bench=make_bench("reward"))


def test_pairs_follow_the_rules(asked, made):
    rows, report = made.rows(), made.report()
    assert report["pairs"] == len(rows) >= 40
    assert report["pairs"] + sum(report["dropped"].values()) == 48
    for row in rows:
        assert row.prompt.endswith("\n\nAssistant:")
        assert row.p_plus != row.p_minus
        assert 1 <= row.attempts <= 5
        assert row.label == 1.0
        assert row.stop_chosen == row.stop_rejected == "turn"
        assert STOP not in row.chosen
        assert row.chosen.strip() != row.rejected.strip()


def test_batch_size_and_shared_prefix_change_no_pair(asked, make_bench, folder):
    few = contrast(ContrastSpec(max_new_tokens=48, batch_rows=5), prompts=asked, out=folder("few"), bench=make_bench("contrast"))
    plain = contrast(ContrastSpec(max_new_tokens=48, shared_prefix=False), prompts=asked, out=folder("plain"), bench=make_bench("contrast"))
    assert few.rows() == plain.rows()


def test_a_limit_that_nothing_meets_drops_every_pair_and_says_why(asked, make_bench, folder):
    found = contrast(ContrastSpec(max_new_tokens=2, attempts=2), prompts=asked, out=folder("none"), bench=make_bench("contrast"))
    assert found.report()["dropped"]["no_next_turn"] + found.report()["dropped"]["empty"] >= 46


def test_the_reward_model_learns_its_pairs(made, judged, make_bench, folder, tiny_bank):
    trained = reward(
        RewardSpec(epochs=8, lr=2e-3, batch_pairs=8, held_out=0.2), pairs=made, out=folder("longer"), bench=(bench := make_bench("reward"))
    )
    last = [m["accuracy"] for m in bench.reporter.metrics][-4:]
    assert sum(last) / 4 > 0.9
    assert trained.report()["adapter_change"] > 0.01
    assert 0 <= judged.report()["accuracy"] <= 1


def test_soft_labels_of_one_half_teach_nothing(made, make_bench, folder):
    flat = folder("flat")
    write_rows(flat / "pairs.jsonl", [replace(row, label=0.5) for row in made.rows()])
    bench = make_bench("reward")
    reward(RewardSpec(epochs=3, lr=1e-3, batch_pairs=8), pairs=Pairs(flat), out=folder("out"), bench=bench)
    assert bench.reporter.metrics[-1]["loss"] == pytest.approx(math.log(2), abs=0.02)


def test_too_few_pairs_is_said(make_bench, folder):
    few = folder("few")
    write_rows(few / "pairs.jsonl", [Pair("a", "p", " x", " y", 1.0, "p", "p", 0, 1, "turn", "turn")])
    with pytest.raises(ArtifactError, match="too few"):
        reward(RewardSpec(), pairs=Pairs(few), out=folder("out"), bench=make_bench("reward"))


@pytest.mark.parametrize("value", ["separate", "joint"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_first_ratio_is_one_and_the_policy_moves(value, checkpointing, asked, judged, make_bench, folder):
    bench = make_bench("ppo")
    spec = PpoSpec(**SMALL_PPO, value=value, checkpointing=checkpointing)
    policy = ppo(spec, prompts=asked, reward=judged, policy=None, out=folder("policy"), bench=bench)
    steps = bench.reporter.metrics
    assert [m["step"] for m in steps] == [1, 2]
    assert all(m["ratio_first"] == 1.0 for m in steps)
    assert steps[0]["kl"] == pytest.approx(0.0, abs=1e-3)
    assert policy.report()["adapter_change"] > 1e-4
    wanted = {"reward", "kl", "entropy", "clip_fraction", "value_clip_fraction", "value_loss", "explained_variance", "response_tokens"}
    assert wanted | {"stop_rate", "tokens_per_s", "memory_gib"} <= set(steps[0])


def test_checkpointing_changes_no_update(asked, judged, make_bench, folder, tiny_bank):
    """The whole step, both roles: recomputing activations must give the same adapter."""
    adapters = []
    for on in (False, True):
        ppo(
            PpoSpec(**SMALL_PPO, checkpointing=on),
            prompts=asked,
            reward=judged,
            policy=None,
            out=folder(f"out{on}"),
            bench=make_bench("ppo"),
        )
        adapters.append(tiny_bank.snapshot("policy"))
    assert max(float((adapters[0][k] - adapters[1][k]).abs().max()) for k in adapters[0]) < 1e-5


def test_micro_batches_change_no_update(asked, judged, make_bench, folder, tiny_bank):
    adapters = []
    for tokens in (200, 100000):
        ppo(
            PpoSpec(**SMALL_PPO | {"steps": 1}, micro_tokens=tokens),
            prompts=asked,
            reward=judged,
            policy=None,
            out=folder(f"out{tokens}"),
            bench=make_bench("ppo"),
        )
        adapters.append(tiny_bank.snapshot("policy"))
    moved = max(float((adapters[0][k] - adapters[1][k]).abs().max()) for k in adapters[0])
    assert moved < 1e-5  # four updates of Adam at lr 5e-4 move single weights by up to 2e-3


def test_a_runaway_stops_and_keeps_the_last_good_adapter(asked, judged, make_bench, folder, tiny_bank):
    bench = make_bench("ppo")
    spec = PpoSpec(**SMALL_PPO | {"steps": 4, "lr": 0.05}, max_kl=1.0)
    with pytest.raises(DivergedError, match=r"KL to the reference is .* over ppo.max_kl = 1") as error:
        ppo(spec, prompts=asked, reward=judged, policy=None, out=folder("policy"), bench=bench)
    kept = bench.ckpt / "last-good"
    assert str(kept) in str(error.value)
    bank = bench.bank()
    bank.load("kept", kept)
    ids = encode(bank.base.tokenizer, "\n\nHuman: How do I bake bread?\n\nAssistant:")
    row = [Row(ids, encode(bank.base.tokenizer, " Sure!")[1:])]
    gap = logprob_rows(bank, row, role="kept", temperature=1.0, micro_tokens=512) - logprob_rows(
        bank, row, role=None, temperature=1.0, micro_tokens=512
    )
    assert torch.isfinite(gap).all()
    assert float(gap.abs().max()) < 1.0


@pytest.fixture(scope="module")
def before(folder, tiny_bank) -> Policy:
    """A policy that is far from the base."""
    out = folder("before")
    tiny_bank.clear()
    tiny_bank.add("m1", LoraSpec(r=4, alpha=8), seed=2)
    noise = torch.Generator().manual_seed(0)
    tiny_bank.restore("m1", {name: w + 0.08 * torch.randn(w.shape, generator=noise) for name, w in tiny_bank.snapshot("m1").items()})
    tiny_bank.save("m1", out / "adapter")
    tiny_bank.clear()
    return Policy(out)


@pytest.mark.parametrize("value", ["separate", "joint"])
def test_ppo_goes_on_from_a_policy_which_is_its_reference(value, asked, judged, before, make_bench, folder, tiny_bank):
    """KL 0 at the first step: to the policy that is named, not to the base, from which it has moved."""
    bench = make_bench("ppo")
    found = ppo(PpoSpec(**SMALL_PPO, value=value), prompts=asked, reward=judged, policy=before, out=folder("policy"), bench=bench)
    first, last = bench.reporter.metrics[0], bench.reporter.metrics[-1]
    assert first["kl"] == pytest.approx(0.0, abs=1e-3)
    assert first["ratio_first"] == 1.0
    assert abs(last["kl"]) > 1e-3
    assert found.report()["adapter_change"] > 1e-4
    bank = bench.bank()
    bank.load("before", before.adapter)
    bank.load("after", found.adapter)
    start, end = bank.snapshot("before"), bank.snapshot("after")
    assert {k: w.shape for k, w in start.items()} == {k: w.shape for k, w in end.items()}  # its r, not the default one
    moved = max(float((start[k] - end[k]).abs().max()) for k in start)
    assert 0 < moved < 0.01
    ids = encode(bank.base.tokenizer, "\n\nHuman: How do I bake bread?\n\nAssistant:")
    row = [Row(ids, encode(bank.base.tokenizer, " Sure! You need flour and yeast. Use the oven for it.")[1:])]
    logp = {role: logprob_rows(bank, row, role=role, temperature=1.0, micro_tokens=512) for role in ("before", None)}
    assert float((logp["before"] - logp[None]).abs().max()) > 0.05


def test_nan_rewards_stop_the_run(asked, judged, make_bench, folder, monkeypatch):
    from lite.stages import rollouts as module

    scored = module.score_rows
    monkeypatch.setattr(module, "score_rows", lambda *a, **k: (s := scored(*a, **k))._replace(rewards=s.rewards * math.nan))
    with pytest.raises(DivergedError, match="reward is nan"):
        ppo(PpoSpec(**SMALL_PPO), prompts=asked, reward=judged, policy=None, out=folder("policy"), bench=make_bench("ppo"))


def test_the_kept_adapter_is_the_best_on_dev_prompts(asked, judged, make_bench, folder):
    bench = make_bench("ppo")
    spec = PpoSpec(**SMALL_PPO | {"steps": 3}, save_every=1, dev_prompts=8)
    report = ppo(spec, prompts=asked, reward=judged, policy=None, out=folder("policy"), bench=bench).report()
    rewards = {int(step): value for step, value in report["dev_reward"].items()}
    assert set(rewards) == {1, 2, 3}
    assert report["steps"] == max(rewards, key=lambda step: (rewards[step], -step))


def test_prompts_that_are_all_too_long_are_said(asked, judged, make_bench, folder):
    with pytest.raises(ArtifactError, match="max_prompt_tokens = 3"):
        ppo(
            PpoSpec(**SMALL_PPO, max_prompt_tokens=3),
            prompts=asked,
            reward=judged,
            policy=None,
            out=folder("policy"),
            bench=make_bench("ppo"),
        )


def test_the_report_has_every_model_and_the_same_prompts(asked, made, judged, make_bench, folder):
    policy = ppo(PpoSpec(**SMALL_PPO), prompts=asked, reward=judged, policy=None, out=folder("policy"), bench=make_bench("ppo"))
    judges = ("oracle", "reward", "length", {"kind": "base", "order": "both", "prompts": 4})
    spec = EvaluateSpec(against=("base", "p_plus"), draws=2, max_new_tokens=64, top_p=1.0, judges=judges, labels_under="reward")
    turned = Pairs(folder("turned"))
    write_rows(turned.path / "pairs.jsonl", [replace(pair, label=1 - pair.label) for pair in made.rows()])
    write_json(turned.path / "report.json", made.report())
    found = evaluate(
        spec,
        prompts=asked,
        pairs={"contrast": made, "turned": turned},
        reward={"reward": judged},
        policies={"ppo": policy},
        rounds={},
        out=folder("eval"),
        bench=make_bench("evaluate"),
    )
    report = found.report()
    assert set(report["models"]) == {"base", "p_plus", "ppo"}
    for name, figures in report["models"].items():
        replies = [r for r in found.rows() if r.model == name]
        assert len({(r.id, r.draw) for r in replies}) == len(replies) == 24
        assert figures["success"] == pytest.approx(sum(bool(r.success) for r in replies) / 24)
        assert figures["success_interval"][0] <= figures["success"] <= figures["success_interval"][1]
        assert len(figures["success_draws"]) == 2
    assert report["models"]["ppo"]["kl_to_base"] != 0
    assert {(c["first"], c["second"]) for c in report["comparisons"]} == {("p_plus", "base"), ("ppo", "base"), ("ppo", "p_plus")}
    assert 0 <= report["reward"]["oracle_accuracy"] <= 1
    assert report["diagnostics"]["pairs"]["labels"]["decided"] > 0
    under = {id: told["labels_under"] for id, told in report["diagnostics"]["pair_sets"].items()}
    bank = make_bench("check").bank()
    bank.load("check", judged.adapter)
    bank.head("check").load(judged.head)
    texts = [encode_row(bank.base.tokenizer, p.prompt, text + STOP) for p in made.rows() for text in (p.chosen, p.rejected)]
    chosen, rejected = reward_rows(bank, texts, role="check", micro_tokens=512).reshape(-1, 2).unbind(1)
    bank.drop("check")
    assert under["contrast"]["accuracy"] == pytest.approx(float((chosen > rejected).float().mean()))
    assert under["contrast"]["accuracy"] + under["turned"]["accuracy"] == pytest.approx(1)
    assert under["contrast"]["decided"] == len(made.rows())
    heads = {(f["judge"], f["first"], f["second"]): f for f in report["judged"]}
    assert set(heads) == {(judge, first, "base") for judge in ("oracle", "reward", "length", "base") for first in ("p_plus", "ppo")}
    said = found.judgements()
    for (judge, first, _), figures in heads.items():
        own = [row for row in said if (row.judge, row.first) == (judge, first)]
        assert len(own) == figures["compared"] == (4 if judge == "base" else 12)
        assert figures["win"] == pytest.approx(sum(row.verdict == "first" for row in own) / len(own))
    longer = {r.id: len(r.text.split()) for r in found.rows() if (r.model, r.draw) == ("ppo", 0)}
    shorter = {r.id: len(r.text.split()) for r in found.rows() if (r.model, r.draw) == ("base", 0)}
    for row in (row for row in said if (row.judge, row.first) == ("length", "ppo")):
        id = row.id.partition("/")[0]
        assert row.verdict == ("tie" if longer[id] == shorter[id] else "first" if longer[id] > shorter[id] else "second")
    assert {(a["one"], a["other"]) for a in report["judges_agree"]} >= {("oracle", "reward"), ("oracle", "base")}
    text = (found.path / "report.md").read_text(encoding="utf-8")
    assert "base under p+" in text
    assert "length-controlled" in text
    assert "Side by side" in text
