"""SFT and DPO as stages, small, on the embedded base: what is learnt, where it starts, what is left out, what is kept."""

import math
from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from lite import micro, recipe
from lite.artifacts import Examples, Pairs
from lite.errors import ArtifactError, DivergedError, RecipeError
from lite.knobs import BaseSpec, LoraSpec
from lite.knobs.training import DpoSpec, SftSpec
from lite.model.bank import WEIGHTS, AdapterBank
from lite.model.base import load_base
from lite.model.encoding import encode_targets
from lite.model.forward import logprob_rows
from lite.records import Example, Pair, write_rows
from lite.stages import tuning
from lite.stages.dpo import dpo
from lite.stages.sft import sft
from lite.text.dialogue import STOP

QUICK = {"lr": 1e-3, "warmup": 0.0, "lora": {"r": 4, "alpha": 8}}


@pytest.fixture(scope="module")
def pairs(folder) -> Pairs:
    """Twenty pairs that differ in manner alone."""
    out = folder("pairs")
    rows = [
        Pair(
            f"p{i}",
            f"\n\nHuman: What is {i} and {i}?\n\nAssistant:",
            f" Sure, it is {2 * i}.",
            " Go away!",
            1.0,
            "",
            "",
            0,
            1,
            "turn",
            "turn",
        )
        for i in range(20)
    ]
    write_rows(out / "pairs.jsonl", rows)
    return Pairs(out)


@pytest.fixture(scope="module")
def taught(pairs, make_bench, folder):
    return sft(
        SftSpec(**QUICK, epochs=2, batch_examples=4, held_out=0.2),
        pairs=pairs,
        examples={},
        policy=None,
        out=folder("taught"),
        bench=make_bench("sft"),
    )


def relabelled(pairs: Pairs, folder, labels: list[float]) -> Pairs:
    out = folder("relabelled")
    write_rows(out / "pairs.jsonl", [replace(row, label=label) for row, label in zip(pairs.rows(), labels, strict=False)])
    return Pairs(out)


# -- SFT ----------------------------------------------------------------------------------------------------------------------


def test_context_distillation_learns_the_preferred_responses(taught, tiny_bank):
    report = taught.report()
    assert (report["examples"], report["held_out_examples"], report["kinds"], report["too_long"]) == (16, 4, {"chosen": 16}, 0)
    assert report["steps"] == 8
    assert report["last"]["loss"] < 0.97 * report["first"]["loss"]
    assert report["adapter_change"] > 1e-3
    assert set(report["held_out"]) == {"8"}


def test_examples_are_learnt_as_they_stand_from_every_stage_that_is_named(make_bench, folder):
    parts = {}
    for kind in ("ift", "eft"):
        out = folder(kind)
        write_rows(
            out / "examples.jsonl", [Example(f"{kind}{i}", f"\n\nHuman: Say {i}.\n\nAssistant:", f" {i}!{STOP}", kind) for i in range(6)]
        )
        parts[kind] = Examples(out)
    spec = SftSpec(**QUICK, targets="examples", epochs=1, held_out=0.0)
    report = sft(spec, pairs=None, examples=parts, policy=None, out=folder("out"), bench=(bench := make_bench("sft"))).report()
    assert report["kinds"] == {"ift": 6, "eft": 6}
    assert report["held_out"] == {}
    tokenizer = bench.bank().base.tokenizer
    rows = [encode_targets(tokenizer, e.prompt, [e.response], max_tokens=512) for part in parts.values() for e in part.rows()]
    assert report["tokens"] == sum(len(row[0].response) for row in rows if row)


def test_responses_that_do_not_fit_are_left_out_and_counted(make_bench, folder):
    out = folder("long")
    write_rows(
        out / "examples.jsonl",
        [Example(f"e{i}", "\n\nHuman: Go on.\n\nAssistant:", " on" * (10 if i else 60) + STOP, "ift") for i in range(5)],
    )
    spec = SftSpec(**QUICK, targets="examples", epochs=1, max_tokens=32, held_out=0.0)
    report = sft(spec, pairs=None, examples={"e": Examples(out)}, policy=None, out=folder("out"), bench=make_bench("sft")).report()
    assert (report["examples"], report["too_long"]) == (4, 1)
    with pytest.raises(ArtifactError, match="5 of them longer than max_tokens = 8"):
        sft(
            spec.model_copy(update={"max_tokens": 8}),
            pairs=None,
            examples={"e": Examples(out)},
            policy=None,
            out=folder("o"),
            bench=make_bench("sft"),
        )


def test_what_is_not_there_cannot_be_learnt(make_bench, folder):
    with pytest.raises(ArtifactError, match="no pairs"):
        sft(SftSpec(), pairs=None, examples={}, policy=None, out=folder("out"), bench=make_bench("sft"))


# -- DPO ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def preferred(pairs, taught, make_bench, folder):
    bench = make_bench("dpo")
    spec = DpoSpec(**QUICK, epochs=2, batch_pairs=4, held_out=0.2, eval_every=3)
    return dpo(spec, pairs=pairs, policy=taught, prompts=None, out=folder("preferred"), bench=bench), bench


def test_a_round_starts_where_the_last_one_ended_with_loss_ln_2_and_margin_0(preferred):
    report = preferred[0].report()
    assert report["first"]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert report["first"]["margin"] == pytest.approx(0.0, abs=1e-5)
    assert report["last"]["margin"] > 0.05
    assert report["adapter_change"] > 1e-3
    assert (report["pairs"], report["held_out_pairs"], report["steps"]) == (16, 4, 8)
    assert set(report["held_out"]) == {"3", "6", "8"}
    assert report["held_out"]["8"]["loss"] < report["held_out"]["3"]["loss"] < math.log(2)
    assert {"loss", "accuracy", "margin", "grad_norm", "lr", "chosen_logp", "rejected_logp"} <= set(preferred[1].reporter.metrics[0])


def test_the_adapter_is_one_plain_lora_that_goes_on_from_the_last(taught, preferred, tiny_bank, make_bench):
    tiny_bank.clear()
    tuning.begin(tiny_bank, taught, LoraSpec(), make_bench("dpo"))
    stored = load_file(taught.adapter / WEIGHTS)
    assert all(torch.equal(w, stored[k]) for k, w in tiny_bank.snapshot(tuning.ROLE).items())
    new = load_file(preferred[0].adapter / WEIGHTS)
    assert {k: w.shape for k, w in new.items()} == {k: w.shape for k, w in stored.items()}
    moved = max(float((new[k] - stored[k]).abs().max()) for k in new)
    assert 0 < moved < 0.05


def test_a_saved_policy_loads_with_plain_peft_and_gives_the_same_log_probs(preferred, pairs):
    bank = AdapterBank(load_base(BaseSpec(model="tiny", device="cpu", quantize="none")))
    bank.load("policy", preferred[0].adapter)
    pair = pairs.rows()[3]
    row = (encode_targets(bank.base.tokenizer, pair.prompt, [pair.chosen + STOP], max_tokens=512) or [])[0]
    ours = logprob_rows(bank, [row], role="policy", temperature=1.0, micro_tokens=512)[0]
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(micro.BASE_DIR, dtype=torch.float32), preferred[0].adapter
    ).eval()
    ids = torch.tensor([row.prompt + row.response])
    with torch.no_grad():
        table = model(input_ids=ids).logits[0].log_softmax(-1)
    theirs = torch.stack([table[len(row.prompt) + i - 1, token] for i, token in enumerate(row.response)])
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_dpo_from_the_base_starts_at_the_base(pairs, make_bench, folder):
    spec = DpoSpec(**QUICK, batch_pairs=8, held_out=0.0)
    report = dpo(spec, pairs=pairs, policy=None, prompts=None, out=folder("out"), bench=make_bench("dpo")).report()
    assert report["first"]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert report["held_out"] == {}


def test_ties_are_left_out_and_labels_under_one_half_turn_the_pair_round(pairs, make_bench, folder):
    soft = relabelled(pairs, folder, [0.5, 0.5, 0.55, 0.1, *[0.9] * 8])
    spec = DpoSpec(**QUICK, batch_pairs=4, held_out=0.0, min_gap=0.1)
    report = dpo(spec, pairs=soft, policy=None, prompts=None, out=folder("out"), bench=make_bench("dpo")).report()
    assert report["left_out"] == {"undecided": 3, "too_long": 0}
    assert (report["pairs"], report["turned_round"]) == (9, 1)


def test_labels_may_weigh_the_two_orders(pairs, make_bench, folder):
    """At a label of nearly 1/2 the two orders cancel: the pair teaches nothing, and hard labels would have taught it whole."""
    moved = []
    for labels in ("hard", "soft"):
        spec = DpoSpec(**QUICK, batch_pairs=5, held_out=0.0, labels=labels)
        unsure = relabelled(pairs, folder, [0.5001] * 20)
        moved.append(dpo(spec, pairs=unsure, policy=None, prompts=None, out=folder("out"), bench=make_bench("dpo")).report())
    assert moved[1]["mean_label"] == pytest.approx(0.5001)
    assert "mean_label" not in moved[0]
    assert moved[0]["last"]["margin"] > 10 * abs(moved[1]["last"]["margin"])
    with pytest.raises(ValueError, match="for the loss sigmoid"):
        DpoSpec(labels="soft", loss="ipo")


def test_a_pair_turned_round_teaches_the_opposite(pairs, make_bench, folder):
    turned = relabelled(pairs, folder, [0.0] * 20)
    margins = []
    for given in (pairs, turned):
        bench = make_bench("dpo")
        dpo(DpoSpec(**QUICK, batch_pairs=5, held_out=0.0), pairs=given, policy=None, prompts=None, out=folder("out"), bench=bench)
        bank = bench.bank()
        margins.append(bench.reporter.metrics[-1]["chosen_logp"])
        assert bank.names == ()
    assert margins[0] != pytest.approx(margins[1], rel=0.05)  # the preferred text is the other one


def test_pairs_of_which_none_is_decided_are_said(pairs, make_bench, folder):
    with pytest.raises(ArtifactError, match=r"no pair to learn from: 20 pairs, left out .*'undecided': 20"):
        dpo(DpoSpec(), pairs=relabelled(pairs, folder, [0.5] * 20), policy=None, prompts=None, out=folder("out"), bench=make_bench("dpo"))


def test_the_best_adapter_on_held_out_pairs_is_kept(pairs, make_bench, folder, monkeypatch):
    """The measured losses are made up: the second of three measurements is the best."""
    losses = iter([0.6, 0.4, 0.5])
    spec = DpoSpec(**QUICK, epochs=2, batch_pairs=6, held_out=0.2, eval_every=2, keep="best")
    kept = {}

    class Told(tuning.Watch):
        def _measure(self, step: int) -> None:
            kept[step] = self._bank.snapshot(tuning.ROLE)
            trainer, self._trainer = self._trainer, type("Fake", (), {"measure": lambda _, rows: {"loss": next(losses)}})()
            super()._measure(step)
            self._trainer = trainer

    monkeypatch.setattr(tuning, "Watch", Told)
    found = dpo(spec, pairs=pairs, policy=None, prompts=None, out=folder("out"), bench=make_bench("dpo"))
    assert found.report()["kept_step"] == 4
    stored = load_file(found.adapter / WEIGHTS)
    assert all(torch.equal(w, stored[k]) for k, w in kept[4].items())
    assert not all(torch.equal(w, stored[k]) for k, w in kept[6].items())


def test_a_step_that_diverges_keeps_the_last_good_adapter_and_says_where(pairs, make_bench, folder, tiny_bank, monkeypatch):
    bench = make_bench("dpo")
    whole = tuning.Watch.step

    def spoil(self, step, figures):
        whole(self, step, figures)
        if step == 2:
            tiny_bank.parameters(tuning.ROLE)[0].data.fill_(math.nan)

    monkeypatch.setattr(tuning.Watch, "step", spoil)
    with pytest.raises(DivergedError, match=r"dpo: dpo step 3: the loss is nan.*last good adapter is kept in") as error:
        dpo(DpoSpec(**QUICK, batch_pairs=4, held_out=0.0), pairs=pairs, policy=None, prompts=None, out=folder("out"), bench=bench)
    kept = load_file(bench.ckpt / "last-good" / WEIGHTS)
    assert str(bench.ckpt / "last-good") in str(error.value)
    assert all(torch.isfinite(w).all() for w in kept.values())


def test_a_rank_that_is_not_the_policys_own_is_refused(taught, pairs, make_bench, folder):
    with pytest.raises(RecipeError, match=r"lora.r: 8, but the policy that is trained on has 4"):
        dpo(DpoSpec(lora=LoraSpec(r=8)), pairs=pairs, policy=taught, prompts=None, out=folder("out"), bench=make_bench("dpo"))


# -- recipes --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ("[prompts, contrast, {dpo: {loss: sigmiod}}]", "did you mean 'sigmoid'"),
        ("[prompts, contrast, {dpo: {label_smoothing: 0.1}}]", "label_smoothing does not act on the loss sigmoid"),
        ("[prompts, contrast, {dpo: {loss: exo_pair}}]", "exo_pair needs a label_smoothing"),
        ("[prompts, contrast, {dpo: {keep: best}}]", "give eval_every"),
        ("[prompts, sft]", "chosen needs Pairs"),
        ("[prompts, contrast, {sft: {targets: examples}}]", "examples needs Examples"),
    ],
)
def test_a_recipe_that_cannot_work_is_refused_before_it_runs(stages, message):
    with pytest.raises(RecipeError, match=message):
        recipe.loads(f"base: {{model: tiny}}\ntask: helpful\nstages: {stages}\n", (), name="r")


def test_a_policy_is_gone_on_from_only_where_it_is_named():
    text = "base: {model: tiny}\ntask: helpful\nstages: [prompts, contrast, sft, dpo, {dpo: {as: m2, from: {policy: dpo}}}]\n"
    stages = {stage.id: stage for stage in recipe.loads(text, (), name="r").stages}
    assert stages["dpo"].inputs["policy"] is None
    assert stages["m2"].inputs["policy"] == "dpo"
