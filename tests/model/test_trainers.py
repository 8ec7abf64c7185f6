"""TRL's trainers on a lent adapter: losses against our own log-probs, what batches may not change, and a model that comes back as it was."""

import inspect
import math
import re
import typing

import pytest
import torch
import trl.trainer.base_trainer
from torch.nn.functional import logsigmoid
from trl import DPOTrainer

from lite.errors import DivergedError
from lite.knobs import LoraSpec
from lite.knobs.training import DpoLoss
from lite.model.bank import AdapterBank
from lite.model.course import Course
from lite.model.encoding import Row
from lite.model.forward import logprob_rows
from lite.model.optim import LossScale
from lite.model.trainers import Twin, dpo_trainer, sft_trainer

from .conftest import LORA, add, gradient, logits, stir

ROLE = "policy"


@pytest.fixture
def twins(rows: list[Row]) -> list[Twin]:
    """Pairs with prompts and responses of different lengths."""
    others = rows[1:] + rows[:1]
    return [Twin(row, Row(row.prompt, other.response[::-1])) for row, other in zip(rows, others, strict=True)]


@pytest.fixture
def course(tmp_path):
    def make(*batches, **changes) -> Course:
        plan = {"lr": 1e-3, "warmup": 0.0, "weight_decay": 0.0, "max_grad_norm": 1.0, "micro_tokens": 4096, "seed": 1, "folder": tmp_path}
        return Course(batches=list(batches), **plan | changes)

    return make


def totals(bank: AdapterBank, rows: list[Row], role: str | None = ROLE) -> torch.Tensor:
    return logprob_rows(bank, rows, role=role, temperature=1.0, micro_tokens=4096).sum(1)


def heard(trainer) -> list[dict[str, float]]:
    told: list[dict[str, float]] = []
    trainer.tell = lambda step, figures: told.append({"step": step, **figures})
    return told


# -- losses -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stirred", [False, True])
def test_the_first_step_of_dpo_has_loss_ln_2_and_margin_0_wherever_it_starts(bank, twins, course, stirred):
    bank.add(ROLE, LORA, seed=0)
    if stirred:
        stir(bank, ROLE)
    with dpo_trainer(bank, ROLE, course(twins), beta=0.1, loss="sigmoid") as trainer:
        trainer.refer(twins)
        told = heard(trainer)
        trainer.train()
    assert told[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert told[0]["margin"] == pytest.approx(0.0, abs=1e-5)
    assert bank.change(ROLE) > 1e-4


def test_trls_dpo_loss_is_that_of_our_own_log_probs(bank, twins, course):
    """Another implementation of the log-probs, the mask and the head, and the reference is where training began."""
    add(bank, ROLE)
    before = [totals(bank, [getattr(t, side) for t in twins]) for side in ("chosen", "rejected")]
    with dpo_trainer(bank, ROLE, course(twins), beta=0.3, loss="sigmoid") as trainer:
        trainer.refer(twins)
        stir(bank, ROLE, seed=5)
        found = trainer.measure(twins)
    after = [totals(bank, [getattr(t, side) for t in twins]) for side in ("chosen", "rejected")]
    margins = 0.3 * ((after[0] - before[0]) - (after[1] - before[1]))
    assert float(margins.abs().min()) > 0.01
    assert found["loss"] == pytest.approx(float(-logsigmoid(margins).mean()), rel=1e-4)
    assert found["margin"] == pytest.approx(float(margins.mean()), rel=1e-3)
    assert found["accuracy"] == pytest.approx(float((margins > 0).float().mean()))


def test_a_soft_label_is_the_weight_of_its_order_and_the_rest_goes_to_the_other(bank, twins, course):
    """Each pair by hand: label * loss of the pair + (1 - label) * loss of the pair turned round."""
    add(bank, ROLE)
    labels = torch.tensor([1.0, 0.75, 0.6, 0.5, 0.9, 0.55, 0.8, 0.7][: len(twins)])
    soft = [t._replace(label=float(w)) for t, w in zip(twins, labels, strict=True)]
    before = [totals(bank, [getattr(t, side) for t in twins]) for side in ("chosen", "rejected")]
    with dpo_trainer(bank, ROLE, course(soft), beta=0.3, loss="sigmoid") as trainer:
        trainer.refer(soft)
        at_first = trainer.measure(soft)
        stir(bank, ROLE, seed=5)
        found = trainer.measure(soft)
    after = [totals(bank, [getattr(t, side) for t in twins]) for side in ("chosen", "rejected")]
    m = 0.3 * ((after[0] - before[0]) - (after[1] - before[1]))
    by_hand = -labels * logsigmoid(m) - (1 - labels) * logsigmoid(-m)
    assert found["loss"] == pytest.approx(float(by_hand.mean()), rel=1e-4)
    assert abs(float(by_hand.mean() + logsigmoid(m).mean())) > 0.01  # and hard labels would give another loss
    assert at_first["loss"] == pytest.approx(math.log(2), abs=1e-5)


def test_the_nll_term_is_a_mean_over_responses_of_means_over_tokens(bank, twins, course):
    add(bank, ROLE)
    chosen = [t.chosen for t in twins]
    per_token = -totals(bank, chosen) / torch.tensor([len(row.response) for row in chosen])
    with dpo_trainer(bank, ROLE, course(twins), beta=0.1, loss="sigmoid", nll=0.3) as trainer:
        trainer.refer(twins)
        found = trainer.measure(twins)
    assert found["loss"] == pytest.approx(math.log(2) + 0.3 * float(per_token.mean()), rel=1e-4)


def test_the_sft_loss_is_a_mean_over_response_tokens(bank, rows, course):
    add(bank, ROLE)
    by_hand = -totals(bank, rows).sum() / sum(len(row.response) for row in rows)
    with sft_trainer(bank, ROLE, course(rows)) as trainer:
        found = trainer.measure(rows)
    assert found["loss"] == pytest.approx(float(by_hand), rel=1e-4)


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_the_adapters_dropout_acts_while_it_is_trained_and_not_in_the_reference(bank, twins, course, kind):
    """TRL's DPO switches dropout off by default. Two steps on the same rows, with other seeds of dropout: other updates."""
    found = []
    for seed in (1, 2):
        bank.add(ROLE, LoraSpec(r=4, alpha=8, dropout=0.5), seed=0)
        stir(bank, ROLE)
        chosen = [t.chosen for t in twins]
        with (
            sft_trainer(bank, ROLE, course(chosen, seed=seed))
            if kind == "sft"
            else dpo_trainer(bank, ROLE, course(twins, seed=seed), beta=0.1, loss="sigmoid")
        ) as trainer:
            if kind == "dpo":
                trainer.refer(twins)
                known = dict(trainer.reference)
                trainer.reference.clear()
                trainer.refer(twins)
                assert trainer.reference == known
            trainer.train()
        found.append(bank.snapshot(ROLE))
        bank.clear()
    assert max(float((found[0][k] - found[1][k]).abs().max()) for k in found[0]) > 1e-5


def test_every_loss_of_trl_is_there_and_no_other():
    names = set(re.findall(r'loss_type == "(\w+)"', inspect.getsource(DPOTrainer._compute_loss)))
    assert names - {"sft"} == set(typing.get_args(DpoLoss))


@pytest.mark.parametrize("loss", typing.get_args(DpoLoss))
def test_every_loss_trains(plain_bank, twins, course, loss):
    add(plain_bank, ROLE)
    with dpo_trainer(plain_bank, ROLE, course(twins[:3]), beta=0.1, loss=loss, label_smoothing=1e-3) as trainer:
        trainer.refer(twins)
        told = heard(trainer)
        trainer.train()
    assert math.isfinite(told[0]["loss"])
    assert told[0]["margin"] == pytest.approx(0.0, abs=1e-5)
    assert plain_bank.change(ROLE) > 0


# -- batches ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sft", "dpo", "aot"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_micro_batches_and_checkpointing_change_no_update_and_no_figure(bank, twins, course, kind, checkpointing):
    chosen = [t.chosen for t in twins]
    found = []
    for tokens in (64, 4096):
        add(bank, ROLE)
        bank.checkpointing(checkpointing and tokens == 64)
        if kind == "sft":
            with sft_trainer(bank, ROLE, course(chosen, chosen[:2], micro_tokens=tokens)) as trainer:
                told = heard(trainer)
                trainer.train()
        else:
            loss = "sigmoid" if kind == "dpo" else kind
            with dpo_trainer(bank, ROLE, course(twins, twins[:2], micro_tokens=tokens), beta=0.1, loss=loss, nll=0.2) as trainer:
                trainer.refer(twins)
                told = heard(trainer)
                trainer.train()
        found.append((bank.snapshot(ROLE), told))
        bank.clear()
    (small, told_small), (whole, told_whole) = found
    assert max(float((small[k] - whole[k]).abs().max()) for k in small) < 1e-5
    assert [t["step"] for t in told_small] == [1, 2]
    for a, b in zip(told_small, told_whole, strict=True):
        assert a == pytest.approx(b, rel=1e-3, abs=1e-4)


def test_every_update_is_that_of_our_own_gradient(bank, rows, course):
    """One step of SFT on rows of one target token each: the gradient of the mean log-prob, clipped, through AdamW's first step."""
    single = [Row(row.prompt, row.response[:1]) for row in rows]
    add(bank, ROLE)
    ours = gradient(bank, ROLE, single)
    before = torch.cat([p.detach().flatten().clone() for p in bank.parameters(ROLE)])
    with sft_trainer(bank, ROLE, course(single, lr=1e-4, max_grad_norm=1e9)) as trainer:
        trainer.train()
    moved = torch.cat([p.detach().flatten() for p in bank.parameters(ROLE)]) - before
    big = ours.abs() > 1e-4  # AdamW's first step is lr * sign(gradient) where the gradient is not tiny
    assert torch.allclose(moved[big], 1e-4 * ours[big].sign(), atol=1e-6)


# -- a model that comes back as it was ------------------------------------------------------------------------------------------


def state(bank: AdapterBank) -> dict[str, object]:
    model = bank.base.model
    return {
        "config": dict(vars(model.config)),
        "generation": dict(vars(model.generation_config)),  # type: ignore[arg-type]
        "patched": [name for name, m in model.named_modules() if "forward" in vars(m)],
        "hooks": [name for name, m in model.named_modules() if m._forward_hooks or m._forward_pre_hooks or m._backward_hooks],
        "trainable": [name for name, p in model.named_parameters() if p.requires_grad],
        "training": [name for name, m in model.named_modules() if m.training],
        "gradients": [name for name, p in model.named_parameters() if p.grad is not None],
        "names": [name for name, _ in model.named_parameters()],
    }


@pytest.mark.parametrize("kind", ["sft", "dpo"])
@pytest.mark.parametrize("fails", [False, True])
def test_the_model_comes_back_as_it_was_also_from_a_failure(bank, twins, course, kind, fails):
    add(bank, ROLE, "other")
    were, other = state(bank), bank.snapshot("other")
    says = logits(bank, "other")
    try:
        if kind == "sft":
            with sft_trainer(bank, ROLE, course([t.chosen for t in twins])) as trainer:
                trainer.train()
                if fails:
                    raise KeyboardInterrupt
        else:
            with dpo_trainer(bank, ROLE, course(twins), beta=0.1, loss="sigmoid") as trainer:
                trainer.refer(twins)
                trainer.train()
                if fails:
                    raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    assert state(bank) == were
    assert torch.equal(logits(bank, "other"), says)
    assert all(torch.equal(other[k], w) for k, w in bank.snapshot("other").items())


def test_strange_adapters_are_gone_afterwards_and_the_own_ones_stay(bank, twins):
    add(bank, ROLE)

    def build(model):
        model.add_adapter("ref", model.peft_config[model.active_adapter])
        return model

    with bank.lent(ROLE, build):
        pass
    assert not [name for name, _ in bank.base.model.named_parameters() if ".ref." in name]
    with bank.lent(ROLE, lambda model: model) as model:
        assert [name for name, p in model.named_parameters() if p.requires_grad]
        with pytest.raises(RuntimeError, match=f"inside the block of the trainer of {ROLE}"), bank.using(None):
            pass


def test_a_frozen_adapter_is_not_lent(bank):
    add(bank, ROLE, trainable=False)
    with pytest.raises(ValueError, match="frozen"), bank.lent(ROLE, lambda model: model):
        pass


def test_a_trainer_that_casts_the_weights_is_refused(bank):
    """TRL casts what is trainable to bf16 as it is built; a trainer that cast the rest too would lose the start's last bits."""

    def build(model):
        for p in bank.parameters(ROLE):
            p.data = p.data.bfloat16()

    add(bank, ROLE)
    with pytest.raises(RuntimeError, match="cast"), bank.lent(ROLE, build):
        pass


def test_weights_on_a_bf16_base_start_to_the_bit_stay_fp32_and_move_at_a_rate_of_1e_6(bank_bf16, twins, course):
    add(bank_bf16, ROLE)
    start = bank_bf16.snapshot(ROLE)
    with dpo_trainer(bank_bf16, ROLE, course(twins, lr=1e-6), beta=0.1, loss="sigmoid") as trainer:
        assert all(torch.equal(p, start[k]) for k, p in bank_bf16.snapshot(ROLE).items())
        trainer.refer(twins)
        told = heard(trainer)
        trainer.train()
    assert {p.dtype for p in bank_bf16.parameters(ROLE)} == {torch.float32}
    assert bank_bf16.change(ROLE) > 0
    assert told[0]["margin"] == pytest.approx(0.0, abs=1e-3)


def test_log_probs_on_a_bf16_base_are_summed_in_fp32(bank_bf16, twins, course):
    """In bf16 sums of log-probs near -70 would step by 0.25."""
    add(bank_bf16, ROLE)
    ours = totals(bank_bf16, [t.chosen for t in twins]).tolist()
    with dpo_trainer(bank_bf16, ROLE, course(twins), beta=0.1, loss="sigmoid") as trainer:
        trainer.refer(twins)
        theirs = [trainer.reference[t][0] for t in twins]
    assert theirs == pytest.approx(ours, abs=0.02)


# -- refusals -------------------------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_before_the_weights_are_touched(bank, twins, course):
    add(bank, ROLE)
    start = bank.snapshot(ROLE)
    with dpo_trainer(bank, ROLE, course(twins), beta=0.1, loss="sigmoid") as trainer:
        trainer.refer(twins)
        trainer.reference[twins[2]] = (math.nan, 0.0)
        with pytest.raises(DivergedError, match="dpo step 1: the loss is nan"):
            trainer.train()
    assert all(torch.equal(start[k], w) for k, w in bank.snapshot(ROLE).items())


def test_a_gradient_that_is_not_finite_stops_before_the_weights_are_touched(bank, rows, course):
    add(bank, ROLE)
    start = bank.snapshot(ROLE)
    with sft_trainer(bank, ROLE, course(rows)) as trainer:
        hook = bank.parameters(ROLE)[0].register_hook(lambda grad: grad * math.inf)
        with pytest.raises(DivergedError, match="step 1: the gradient is not finite"):
            trainer.train()
        hook.remove()
    assert all(torch.equal(start[k], w) for k, w in bank.snapshot(ROLE).items())


@pytest.mark.parametrize(("value", "moves"), [(2.0**16, True), (2.0**140, False)])
def test_scaled_gradients_give_the_same_update_and_an_overflow_none(value, moves, bank, twins, course):
    def trained(scale: LossScale) -> dict[str, torch.Tensor]:
        bank.add(ROLE, LORA, seed=0)
        with dpo_trainer(bank, ROLE, course(twins, twins), beta=0.1, loss="sigmoid") as trainer:
            trainer.scale = scale
            trainer.refer(twins)
            trainer.train()
        found = bank.snapshot(ROLE)
        assert (bank.change(ROLE) > 0) == moves or not scale.on
        bank.drop(ROLE)
        return found

    scale = LossScale(torch.float16)
    scale.value = value
    plain, scaled = trained(LossScale(torch.float32)), trained(scale)
    assert all(torch.equal(plain[k], scaled[k]) for k in plain) == moves
    assert (scale.value, scale.good) == ((value, 2) if moves else (value / 4, 0))


def test_nothing_is_printed_sent_or_left_behind(bank, twins, course, tmp_path, monkeypatch, capfd):
    sent = []
    monkeypatch.setattr(trl.trainer.base_trainer, "send_telemetry", lambda *a, **k: sent.append(a))
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.chdir(tmp_path)
    add(bank, ROLE)
    with dpo_trainer(bank, ROLE, course(twins, folder=tmp_path), beta=0.1, loss="sigmoid") as trainer:
        trainer.refer(twins)
        trainer.train()
    assert not sent
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr().out == ""
