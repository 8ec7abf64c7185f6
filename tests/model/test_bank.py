"""Adapters: what is trainable after every switch, exact copies, a plain base when they are gone, errors that say what is there."""

import json
from pathlib import Path

import pytest
import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file

from lite.errors import ArtifactError, PreconditionError
from lite.knobs import LoraSpec
from lite.model.bank import AdapterBank
from lite.model.base import Base
from lite.model.forward import reward_rows
from lite.model.heads import ScalarHead

from .conftest import LORA, add, gradient, logits, stir

LAYERS, LINEAR = 2, 7


def trainable(bank: AdapterBank) -> set[int]:
    return {id(p) for p in bank.base.model.parameters() if p.requires_grad}


def adapter(bank: AdapterBank, role: str) -> set[int]:
    return {id(p) for p in bank.parameters(role)}


def modes(bank: AdapterBank) -> set[bool]:
    return {m.training for m in bank.base.model.modules()}


# -- what is trainable --------------------------------------------------------------------------------------------------------


def test_after_every_step_nothing_is_trainable_outside_a_block_and_exactly_one_adapter_inside(bank, tmp_path):
    def check() -> None:
        assert trainable(bank) == set()
        assert modes(bank) == {False}
        for role in bank.names:
            assert len(adapter(bank, role)) == LAYERS * LINEAR * 2
            with bank.using(role):
                assert trainable(bank) == set()
                assert modes(bank) == {False}
            if role != "reward":
                with bank.using(role, training=True):
                    assert trainable(bank) == adapter(bank, role)
                    assert modes(bank) == {True}
            assert trainable(bank) == set()
        with bank.using(None):
            assert trainable(bank) == set()
        with bank.mixing([*bank.names, None]):
            assert trainable(bank) == set()
            assert modes(bank) == {False}
        assert trainable(bank) == set()

    check()
    add(bank, "policy")
    check()
    bank.save("policy", tmp_path)
    bank.load("reward", tmp_path)
    check()
    bank.copy("reward", "value")
    check()
    bank.drop("policy")
    check()
    bank.add("again", LORA, seed=1)
    check()
    bank.drop("reward")
    check()
    bank.clear()
    check()


def test_the_weights_that_learn_are_those_of_the_role_and_no_others(bank, rows):
    add(bank, "policy", "value")
    before = {role: bank.snapshot(role) for role in bank.names}
    gradient(bank, "policy", rows)
    optimizer = torch.optim.SGD([*bank.parameters("policy"), *bank.parameters("value")], lr=1.0)
    with bank.using("policy", training=True) as trunk:
        trunk(input_ids=torch.tensor([[1, 2, 3]]), use_cache=False).last_hidden_state.sum().backward()
    optimizer.step()
    assert bank.change("policy") > 0
    assert all(torch.equal(w, before["value"][k]) for k, w in bank.snapshot("value").items())
    assert all(p.grad is None for p in bank.parameters("value"))


@pytest.mark.parametrize("role", ["frozen", None])
def test_what_is_frozen_refuses_training(bank, role):
    add(bank, "frozen", trainable=False)
    with pytest.raises(ValueError, match="is frozen"), bank.using(role, training=True):
        pass
    assert trainable(bank) == set()


def test_an_exception_inside_a_block_leaves_the_base_frozen_and_in_eval_mode(bank):
    add(bank, "policy")
    for block in (bank.using("policy", training=True), bank.mixing(["policy", None])):
        with pytest.raises(MemoryError), block:
            raise MemoryError
        assert trainable(bank) == set()
        assert modes(bank) == {False}
    with bank.using("policy") as trunk:  # and no hook of the mixed pass: it would want two rows
        trunk(input_ids=torch.ones(3, 4, dtype=torch.long), use_cache=False)


# -- blocks -------------------------------------------------------------------------------------------------------------------


def test_nothing_may_switch_inside_a_block(bank, tmp_path):
    add(bank, "policy", "value")
    bank.save("policy", tmp_path)

    def enter(block) -> None:
        with block:
            pass

    attempts = {
        "using": lambda: enter(bank.using("value")),
        "base": lambda: enter(bank.using(None)),
        "mixing": lambda: enter(bank.mixing(["value"])),
        "add": lambda: bank.add("x", LORA, seed=1),
        "load": lambda: bank.load("x", tmp_path),
        "copy": lambda: bank.copy("value", "x"),
        "drop": lambda: bank.drop("value"),
        "clear": bank.clear,
    }
    with bank.using("policy", training=True):
        for name, attempt in attempts.items():
            with pytest.raises(RuntimeError, match="inside the block of policy"):
                attempt()
            assert trainable(bank) == adapter(bank, "policy"), name
            assert modes(bank) == {True}, name
    assert bank.names == ("policy", "value")


@pytest.mark.parametrize("checkpointing", [True, False])
def test_a_backward_pass_after_its_block_is_refused(bank, checkpointing):
    add(bank, "policy", "value")
    bank.checkpointing(checkpointing)
    with bank.using("policy", training=True) as trunk:
        loss = trunk(input_ids=torch.tensor([[1, 2, 3]]), use_cache=False).last_hidden_state.sum()
    with pytest.raises(RuntimeError, match=r"backward\(\) of policy outside its block"):
        loss.backward(retain_graph=True)
    with bank.using("value", training=True), pytest.raises(RuntimeError, match=r"backward\(\) of policy outside its block"):
        loss.backward()
    assert all(p.grad is None for role in bank.names for p in bank.parameters(role))


# -- adapters ------------------------------------------------------------------------------------------------------------------


def test_a_fresh_adapter_is_the_base_and_depends_on_its_seed_alone(bank):
    plain = logits(bank, None)
    torch.manual_seed(1)
    bank.add("a", LORA, seed=7)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    bank.add("b", LORA, seed=7)
    assert torch.equal(torch.get_rng_state(), state)
    bank.add("c", LORA, seed=8)
    a, b, c = (bank.snapshot(role) for role in "abc")
    assert torch.equal(logits(bank, "a"), plain)
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], c[k]) for k in a)


def test_a_switch_changes_what_the_model_says_and_back(bank):
    plain = logits(bank, None)
    add(bank, "policy", "value")
    policy, value = logits(bank, "policy"), logits(bank, "value")
    assert not torch.allclose(policy, plain, atol=1e-3)
    assert not torch.allclose(policy, value, atol=1e-3)
    assert torch.equal(logits(bank, None), plain)
    assert torch.equal(logits(bank, "policy"), policy)


def test_a_switch_leaves_the_layers_as_peft_leaves_them_and_asks_none_of_them(bank, monkeypatch):
    """The bank writes two attributes of every layer itself: PEFT's own calls took 40 ms per block on 32 layers."""
    add(bank, "policy", "value")
    layers = [layer for layer in bank.base.model.modules() if isinstance(layer, LoraLayer)]

    def state() -> list[tuple[list[str], bool]]:
        return [(layer.active_adapters, layer.disable_adapters) for layer in layers]

    theirs = {}
    for role, on in (("policy", True), ("value", True), ("value", False)):
        for layer in layers:
            layer.set_adapter(bank._find(role).key)
            layer.enable_adapters(on)
        theirs[role if on else None] = state()
    calls: list[str] = []
    for name in ("set_adapter", "enable_adapters"):
        monkeypatch.setattr(LoraLayer, name, lambda *_, name=name: calls.append(name))
    ours = {}
    for role in ("policy", "value", None):
        with bank.using(role, training=role is not None):
            ours[role] = state()
    assert ours == theirs and len({str(s) for s in ours.values()}) == 3 and not calls
    assert len(layers) == LAYERS * LINEAR


def test_a_copy_is_exact_and_independent(bank):
    add(bank, "reward", trainable=False)
    bank.copy("reward", "value")
    before, moved = bank.snapshot("reward"), bank.change("reward")
    assert torch.equal(logits(bank, "value"), logits(bank, "reward"))
    assert all(torch.equal(w, before[k]) for k, w in bank.snapshot("value").items())
    assert bank.change("value") == 0
    stir(bank, "value")
    assert bank.change("value") > 0
    assert bank.change("reward") == moved
    assert all(torch.equal(w, before[k]) for k, w in bank.snapshot("reward").items())


def test_a_copy_keeps_the_scale_too(bank, tmp_path):
    bank.add("reward", LoraSpec(r=4, alpha=64, dropout=0.25), seed=1)
    stir(bank, "reward")
    bank.save("reward", tmp_path)
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings | {"use_rslora": True}))
    bank.load("scaled", tmp_path)
    bank.copy("scaled", "value")
    assert not torch.allclose(logits(bank, "scaled"), logits(bank, "reward"), atol=1e-3)
    assert torch.equal(logits(bank, "value"), logits(bank, "scaled"))


def test_dropout_acts_in_training_and_not_otherwise(bank):
    bank.add("policy", LoraSpec(r=4, alpha=8, dropout=0.5), seed=1)
    stir(bank, "policy")
    assert torch.equal(logits(bank, "policy"), logits(bank, "policy"))
    with bank.using("policy", training=True) as trunk, torch.no_grad():
        a, b = (trunk(input_ids=torch.tensor([[1, 2, 3]]), use_cache=False).last_hidden_state for _ in range(2))
    assert not torch.equal(a, b)


def test_change_by_hand(bank):
    add(bank, "policy")
    assert bank.change("policy") > 0  # stirred
    bank.copy("policy", "value")
    weights = bank.snapshot("value")
    bank.restore("value", {k: 1.5 * w for k, w in weights.items()})
    assert bank.change("value") == pytest.approx(0.5, rel=1e-5)
    bank.restore("value", weights)
    assert bank.change("value") == 0


def test_a_snapshot_is_a_copy_and_restores_to_the_bit(bank, rows):
    add(bank, "policy")
    before, kept = logits(bank, "policy"), bank.snapshot("policy")
    stir(bank, "policy")
    assert not torch.equal(logits(bank, "policy"), before)
    bank.restore("policy", kept)
    assert torch.equal(logits(bank, "policy"), before)
    bank.drop("policy")
    bank.add("policy", LORA, seed=99)
    bank.restore("policy", kept)  # the names do not depend on which adapter it is
    assert torch.equal(logits(bank, "policy"), before)


def test_the_base_is_plain_again_when_the_last_adapter_goes(base):
    bank = AdapterBank(base)
    plain, parameters = logits(bank, None), [name for name, _ in base.model.named_parameters()]
    add(bank, "policy", "value")
    with bank.using("policy", training=True):
        pass
    bank.drop("policy")  # the active one: PEFT would warn
    assert bank.names == ("value",)
    assert torch.equal(logits(bank, None), plain)
    bank.drop("value")
    assert [name for name, _ in base.model.named_parameters()] == parameters
    assert torch.equal(logits(bank, None), plain)
    add(bank, "policy")  # and may be adapted anew
    bank.clear()
    assert [name for name, _ in base.model.named_parameters()] == parameters
    assert torch.equal(logits(bank, None), plain)


def test_clear_forgets_heads_and_checkpointing(bank):
    bank.head("value").randomize(1)  # a joint value head has no adapter of its own
    add(bank, "policy")
    bank.checkpointing(True)
    bank.clear()
    assert bank.names == ()
    assert float(bank.head("value").weight.detach().abs().sum()) == 0
    assert not any(getattr(m, "gradient_checkpointing", False) for m in bank.base.model.modules())


@pytest.mark.parametrize("role", ["r1.dpo", "values", "layers", "self_attn", "model", "a", "type", "policy 2"])
def test_any_stage_id_may_name_a_role(bank, role):
    """PEFT's own names may hold no dot and not be those of a module's attributes or parts."""
    add(bank, "policy")
    before = bank.snapshot("policy")
    add(bank, role)
    assert len(adapter(bank, role)) == LAYERS * LINEAR * 2
    assert not adapter(bank, role) & adapter(bank, "policy")
    with bank.using(role, training=True):
        assert trainable(bank) == adapter(bank, role)
    bank.drop(role)
    assert all(torch.equal(w, before[k]) for k, w in bank.snapshot("policy").items())


@pytest.mark.parametrize("method", ["parameters", "snapshot", "change", "drop"])
def test_an_unknown_role_is_a_key_error_that_names_those_there_are(bank, method):
    add(bank, "policy", "value")
    with pytest.raises(KeyError, match="no adapter 'polcy'; there are: policy, value"):
        getattr(bank, method)("polcy")


def test_other_key_errors(bank, tmp_path):
    for attempt in (
        lambda: bank.save("x", tmp_path),
        lambda: bank.copy("x", "y"),
        lambda: bank.restore("x", {}),
        lambda: bank.using("x").__enter__(),
        lambda: bank.mixing(["x", None]).__enter__(),
    ):
        with pytest.raises(KeyError, match="there are: none"):
            attempt()
    add(bank, "policy")
    with pytest.raises(KeyError, match="an adapter 'policy' already"):
        bank.add("policy", LORA, seed=1)
    with pytest.raises(KeyError, match="an adapter 'policy' already"):
        bank.copy("policy", "policy")
    assert bank.names == ("policy",)


# -- folders ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(bank, tmp_path) -> Path:
    add(bank, "other", "reward", "last")
    bank.save("reward", tmp_path / "adapter")
    return tmp_path / "adapter"


def test_save_and_load_are_exact(bank, saved):
    before = logits(bank, "reward")
    bank.clear()
    bank.load("r1.reward", saved)
    assert torch.equal(logits(bank, "r1.reward"), before)
    assert bank.change("r1.reward") == 0
    with pytest.raises(ValueError, match="frozen"), bank.using("r1.reward", training=True):
        pass


def test_an_adapter_of_some_layers_only_leaves_the_others_alone(bank, saved):
    file, settings = saved / "adapter_model.safetensors", saved / "adapter_config.json"
    save_file({k: w for k, w in load_file(file).items() if "v_proj" in k}, file)
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"target_modules": ["v_proj"]}))
    bank.load("few", saved)
    few, plain, ids = logits(bank, "few"), logits(bank, None), torch.tensor([[1, 7, 8, 9]])
    with bank.using("few"):
        inside = {name: layer.lora_A.keys() for name, layer in bank._layers.items()}
    assert sum(bank._find("few").key in keys for keys in inside.values()) == LAYERS
    assert not torch.allclose(few, plain, atol=1e-3)
    with bank.mixing(["few", "other"]) as trunk, torch.no_grad():
        mixed = trunk(input_ids=ids.repeat(2, 1), use_cache=False).last_hidden_state
    for role, row in zip(("few", "other"), mixed, strict=True):
        with bank.using(role) as trunk, torch.no_grad():
            torch.testing.assert_close(trunk(input_ids=ids, use_cache=False).last_hidden_state[0], row, rtol=1e-4, atol=2e-5)


def test_a_base_that_lay_elsewhere_when_the_adapter_was_made_is_no_matter(bank, saved):
    settings = json.loads((saved / "adapter_config.json").read_text())
    (saved / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": "/another/machine/base"}))
    bank.clear()
    bank.load("reward", saved)  # PEFT would warn, and warnings are errors here


def test_a_loaded_adapter_may_be_trained_on(bank, saved, rows):
    bank.clear()
    bank.load("policy", saved, trainable=True)
    assert float(gradient(bank, "policy", rows).norm()) > 0


def test_loading_keeps_a_head_that_is_there_already(bank, saved):
    head = bank.head("new").randomize(1)
    bank.load("new", saved)
    assert bank.head("new") is head


def damage(folder: Path, kind: str) -> None:
    file, settings = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    if kind == "no weights":
        file.unlink()
    elif kind == "no configuration":
        settings.unlink()
    elif kind == "no folder":
        file.unlink()
        settings.unlink()
        folder.rmdir()
    elif kind == "half a file":
        file.write_bytes(file.read_bytes()[:200])
    elif kind == "no JSON":
        settings.write_text("{")
    else:
        weights = load_file(file)
        name = next(iter(weights))
        if kind == "wider":
            weights = {k: torch.cat([w, w], dim=int("lora_A" in k)) for k, w in weights.items()}
        elif kind == "a tensor short":
            del weights[name]
        elif kind == "a tensor over":
            weights[name.replace("layers.0", "layers.7")] = weights[name].clone()
        save_file(weights, file)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no weights", "adapter_model.safetensors missing"),
        ("no configuration", "adapter_config.json missing"),
        ("no folder", "adapter_config.json and adapter_model.safetensors missing"),
        ("half a file", "not a PEFT adapter"),
        ("no JSON", "not a PEFT adapter"),
        ("wider", "28 tensors do not fit"),
        ("a tensor short", "1 tensors do not fit"),
        ("a tensor over", "1 tensors do not fit"),
    ],
)
def test_a_damaged_or_foreign_folder_is_an_artifact_error_and_changes_nothing(bank, saved, kind, message):
    before, names = logits(bank, "reward"), bank.names
    bank.head("new").randomize(3)
    damage(saved, kind)
    with pytest.raises(ArtifactError, match=message) as caught:
        bank.load("new", saved)
    assert str(saved) in str(caught.value)
    assert bank.names == names
    assert "new" in bank.heads
    assert torch.equal(logits(bank, "reward"), before)
    assert trainable(bank) == set()


def test_a_model_without_the_llama_layers_is_refused(base):
    model = torch.nn.ModuleDict({"c_attn": torch.nn.Linear(4, 4), "up_proj": torch.nn.Linear(4, 4)})
    with pytest.raises(PreconditionError, match="gpt has no layers named q_proj, k_proj, v_proj, o_proj, gate_proj, down_proj; take"):
        AdapterBank(Base(model, base.tokenizer, base.device, "gpt"))


# -- heads ---------------------------------------------------------------------------------------------------------------------


def test_a_head_starts_at_zero_stays_the_same_object_and_goes_with_its_adapter(bank, rows):
    add(bank, "reward")
    head = bank.head("reward")
    assert isinstance(head, ScalarHead)
    assert bank.head("reward") is head
    assert reward_rows(bank, rows, role="reward", micro_tokens=64).abs().sum() == 0
    head.randomize(1)
    bank.drop("reward")
    assert bank.head("reward") is not head
