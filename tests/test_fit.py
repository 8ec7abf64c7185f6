"""The estimate by arithmetic and from outside: published sizes, the floors of the literature, the shipped recipes and command line."""

import json
import os
import re
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from lite import recipe
from lite.contracts import CONTRACTS
from lite.errors import PreconditionError
from lite.fit import backend, cards, preflight, shape, show, sizes, together
from lite.fit.bases import copies, download
from lite.fit.demand import Decode, Pass
from lite.fit.estimate import estimate, refuse, refuse_unknown, settle
from lite.fit.loop import DEMANDS
from lite.fit.shape import Unknown, from_config, known_models, shape_of
from lite.fit.turn import MOVING, SLACK
from lite.fit.ways import way_to_fit, ways
from lite.knobs import BaseSpec
from lite.plan import plan

GIB = 2**30
BASE = BaseSpec.model_validate({})
BIG = [name for name in recipe.built_in() if not name.startswith("tiny")]


def known(name: str) -> shape.Shape:
    return known_models()[name]


def loaded(name: str, *overrides: str) -> tuple[recipe.Recipe, tuple]:
    found = recipe.load(recipe.find(name), overrides)
    return found, plan(found)


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    """No test depends on what the Hub's cache of this machine holds."""
    monkeypatch.setattr(shape, "hub_cache", lambda: tmp_path / "hub")
    return tmp_path / "hub"


# -- shapes -----------------------------------------------------------------------------------------------------------------

PUBLISHED = {  # billions of parameters, from the models' cards and papers
    "huggyllama/llama-7b": 6.738,
    "huggyllama/llama-13b": 13.016,
    "huggyllama/llama-30b": 32.529,
    "huggyllama/llama-65b": 65.286,
    "meta-llama/Llama-3.1-8B": 8.030,
    "meta-llama/Llama-3.2-3B": 3.213,
    "meta-llama/Llama-3.2-1B": 1.236,
    "mistralai/Mistral-7B-v0.1": 7.242,
    "mistralai/Mistral-7B-v0.3": 7.248,
    "Qwen/Qwen2.5-72B": 72.706,
    "Qwen/Qwen2.5-32B": 32.764,
    "Qwen/Qwen2.5-14B": 14.770,
    "Qwen/Qwen2.5-7B": 7.616,
    "Qwen/Qwen2.5-3B": 3.086,
    "Qwen/Qwen2.5-1.5B": 1.544,
    "Qwen/Qwen2.5-0.5B": 0.494,
    "Qwen/Qwen3-14B-Base": 14.768,
    "Qwen/Qwen3-8B-Base": 8.191,
    "Qwen/Qwen3-4B-Base": 4.022,
    "Qwen/Qwen3-1.7B-Base": 1.721,
    "Qwen/Qwen3-0.6B-Base": 0.596,
    "allenai/OLMo-2-0325-32B": 32.234,
    "allenai/OLMo-2-1124-13B": 13.716,
    "allenai/OLMo-2-1124-7B": 7.299,
}


def test_well_known_bases_have_their_published_numbers_of_parameters():
    assert {name: round(found.parameters / 1e9, 3) for name, found in known_models().items()} == PUBLISHED


def test_a_config_is_read_with_the_defaults_of_its_family():
    config = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96, "vocab_size": 100}
    llama = from_config({"model_type": "llama", "attention_bias": True, **config})
    qwen2 = from_config({"model_type": "qwen2", "num_key_value_heads": 2, "head_dim": None, **config})
    qwen3 = from_config({"model_type": "qwen3", **config})
    olmo2 = from_config({"model_type": "olmo2", "tie_word_embeddings": True, **config})
    assert not [s for s in (llama, qwen2, qwen3, olmo2) if isinstance(s, Unknown)]
    assert (llama.qkv_bias, llama.o_bias, llama.kv_heads, llama.head_dim, llama.tied) == (True, True, 4, 16, False)
    assert (qwen2.qkv_bias, qwen2.o_bias, qwen2.kv_width) == (True, False, 32)
    assert (qwen3.qk_norm, qwen3.head_dim, qwen3.qkv_bias) == ("head", 128, False)
    assert (olmo2.qk_norm, olmo2.tied) == ("row", True)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "mamba"}, "mamba"),
        ({"model_type": "llama", "hidden_size": 64}, "num_attention_heads"),
        ({"model_type": "llama", "quantization_config": {"bits": 4}}, "quantised"),
    ],
)
def test_a_config_that_cannot_be_estimated_says_why(config, words):
    found = from_config(config)
    assert isinstance(found, Unknown)
    assert words in found.reason


def write_config(folder: Path, hidden: int) -> None:
    folder.mkdir(parents=True)
    config = {"hidden_size": hidden, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96, "vocab_size": 100}
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **config}))


def test_the_cached_config_wins_over_the_known_models_and_a_revision_over_main(empty_cache):
    name = "huggyllama/llama-7b"
    assert shape_of(BaseSpec(model=name)) == known(name)
    repo = empty_cache / "models--huggyllama--llama-7b"
    write_config(repo / "snapshots" / "aaa", 64)
    write_config(repo / "snapshots" / "bbb", 128)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("aaa")
    (repo / "refs" / "v2").write_text("bbb")
    hidden = [getattr(shape_of(BaseSpec(model=name, revision=r)), "hidden", None) for r in (None, "v2", "bbb")]
    assert hidden == [64, 128, 128]


def test_folders_and_the_tiny_base_are_read_and_others_are_unknown(tmp_path):
    write_config(tmp_path / "model", 64)
    assert getattr(shape_of(BaseSpec(model=str(tmp_path / "model"))), "hidden", None) == 64
    tiny = shape_of(BASE)
    assert isinstance(tiny, shape.Shape)
    assert tiny.layers > 0
    stranger = shape_of(BaseSpec(model="some/stranger"))
    assert isinstance(stranger, Unknown)
    assert "not known until the config of some/stranger can be read" in stranger.reason
    (tmp_path / "model" / "config.json").write_text("{")
    assert isinstance(shape_of(BaseSpec(model=str(tmp_path / "model"))), Unknown)


# -- bytes ------------------------------------------------------------------------------------------------------------------


def test_nf4_by_hand():
    """100 weights: 50 bytes of nibbles, 2 scales of a byte, one fp32 scale of those, the offset, and tables of 16 and 256 values."""
    assert sizes.nf4(100) == 50 + 2 + 4 + 4 + 64 + 1024
    assert sizes.nf4(101) == sizes.nf4(100) + 1
    large = 4096 * 11008
    assert 8 * sizes.nf4(large) / large == pytest.approx(4.127, abs=0.001)


def test_optimiser_states_by_hand():
    assert sizes.adam_8bit([4095]) == 8 * 4095
    assert sizes.adam_8bit([4096]) == 2 * (4096 + 4 * 16)
    assert sizes.adam_8bit([4097]) == 2 * (4097 + 4 * 17)


def test_unquantised_and_wide_bases():
    llama = known("huggyllama/llama-7b")
    whole = [
        sizes.base_weights(llama, spec) + sizes.embeddings(llama, spec)
        for spec in (BaseSpec(quantize="none"), BaseSpec(quantize="none", dtype="float32"))
    ]
    assert whole == [2 * llama.parameters, 4 * llama.parameters]
    assert sizes.dequantised(llama, BaseSpec(quantize="none")) == 0


# The floors table: base; adapters and states at 14 and at 22 bytes per number; training peaks at 1, 2 and 4 rows of 512 tokens;
# KiB of cache per token; rows of 512 tokens on 8, 12, 16 and 24 GB.
FLOORS = {
    "huggyllama/llama-7b": (3.60, (0.52, 0.82), (5.1, 5.3, 5.8), 512, (11, 26, 42, 73)),
    "meta-llama/Llama-3.1-8B": (5.31, (0.55, 0.86), (7.1, 7.4, 7.9), 128, (17, 79, 141, 265)),
    "huggyllama/llama-30b": (16.22, (1.60, 2.50), (19.4, 20.0, 21.1), 1560, (None, None, None, 6)),
    "Qwen/Qwen2.5-32B": (17.89, (1.76, 2.76), (21.6, 22.1, 23.1), 256, (None, None, None, 22)),
}


def whole_base(found: shape.Shape) -> int:
    return sizes.base_weights(found, BASE) + sizes.embeddings(found, BASE)


@pytest.mark.parametrize("name", FLOORS)
def test_the_floors_of_the_literature_come_out(name):
    base, adapters, _, cache, _ = FLOORS[name]
    found = known(name)
    numbers = sum(sizes.lora(found, 16))
    assert whole_base(found) / GIB == pytest.approx(base, abs=0.01)
    assert [14 * numbers / GIB, 22 * numbers / GIB] == pytest.approx(adapters, rel=0.01)
    assert sizes.kv_cache(found, 1, 2) / 1024 == pytest.approx(cache, rel=0.01)


@pytest.mark.parametrize("name", FLOORS)
def test_the_training_peaks_of_the_literature_come_out_within_4_percent(name):
    found = known(name)
    rest = (
        whole_base(found) + 14 * sum(sizes.lora(found, 16)) + sizes.CONTEXT + sizes.dequantised(found, BASE) + sizes.head_logits(found, 2)
    )
    peaks = [(rest + sizes.training(found, 512 * rows, 16, 2, checkpointing=True)) / GIB for rows in (1, 2, 4)]
    assert peaks == pytest.approx(FLOORS[name][2], rel=0.04)


@pytest.mark.parametrize("name", FLOORS)
def test_the_rollout_rows_of_the_literature_come_out_within_a_quarter_gib(name):
    """Three fp32 adapters, two of them with states; the table counts the cache alone."""
    found = known(name)
    own = sizes.lora(found, 16)
    rest = whole_base(found) + 3 * sizes.fp32(own) + 2 * sizes.adam_8bit(own) + sizes.CONTEXT
    for card, expected in zip((8, 12, 16, 24), FLOORS[name][4], strict=True):
        row = sizes.kv_cache(found, 512, 2)
        rows = (cards.usable(card) - rest) // row
        assert (rows < 1) if expected is None else abs(rows - expected) * row <= 0.25 * GIB, (card, rows)


def test_checkpointing_pays_and_costs_what_a_layer_keeps():
    found = known("huggyllama/llama-7b")
    with_it, without = (sizes.training(found, 1000, 16, 2, checkpointing=on) for on in (True, False))
    kept = sizes.layer_kept(found, 16, 2, dropout=False)
    assert without - with_it == 1000 * (31 * kept - 32 * 4096 * 2)
    assert sizes.layer_kept(found, 16, 2, dropout=True) > kept


# -- stages -----------------------------------------------------------------------------------------------------------------


def test_every_stage_that_uses_the_base_has_an_estimate():
    missing = [kind for kind, contract in CONTRACTS.items() if contract.uses_base and kind not in DEMANDS]
    assert not missing, f"say in lite/fit/demand.py what {missing} ask for"


def test_a_ppo_stage_holds_three_adapters_and_the_states_of_two():
    found, nodes = loaded("rlcd_helpful_30b")
    ppo = next(fit for fit in estimate(found, nodes, card_gib=24) if fit.kind == "ppo")
    own, head = sizes.lora(known("huggyllama/llama-30b"), 16), [6656, 1]
    by_name = {moment.name: moment.parts for moment in ppo.moments}
    assert set(by_name) == {"read prompts", "write", "score", "update"}
    for parts in by_name.values():
        assert parts["adapters"] == 4 * (3 * sum(own) + 2 * sum(head))
        assert parts["optimiser"] == sizes.adam_8bit([*own, *own, *head])
        assert parts["slack"] == int(SLACK * sum(parts.get(part, 0) for part in MOVING))
    assert by_name["update"]["gradients"] == 4 * (2 * sum(own) + sum(head))
    assert "gradients" not in by_name["write"]
    assert "kv" not in by_name["update"]
    assert ppo.peak == max(sum(parts.values()) for parts in by_name.values())


def test_joint_values_save_an_adapter_and_its_states():
    separate, joint = (
        next(fit for fit in estimate(*loaded("rlcd_helpful", f"ppo.value={value}"), card_gib=24) if fit.kind == "ppo")
        for value in ("separate", "joint")
    )
    assert separate.height.parts["adapters"] > joint.height.parts["adapters"]
    assert separate.height.parts["optimiser"] > joint.height.parts["optimiser"]


def test_the_reward_adapters_rank_is_that_of_its_own_stage():
    small, large = (estimate(*loaded("rlcd_helpful", f"reward.lora.r={r}"), card_gib=24)[3].moments[0].parts["adapters"] for r in (8, 64))
    own = sum(sizes.lora(known("huggyllama/llama-7b"), 1))
    assert large - small == 4 * 2 * (64 - 8) * own  # the value adapter is a copy of it


@pytest.mark.parametrize(
    "knob", ["contrast.batch_rows", "ppo.rollout_rows", "ppo.micro_tokens", "reward.micro_tokens", "evaluate.batch_rows"]
)
def test_the_largest_value_fits_and_the_next_does_not(knob):
    stage, name = knob.split(".")
    fits = {fit.id: fit for fit in estimate(*loaded("rlcd_helpful"), card_gib=12)}
    best = fits[stage].largest[name]
    assert best > 0
    step = 64 if name == "micro_tokens" else 1
    at, over = (
        {f.id: f for f in estimate(*loaded("rlcd_helpful", f"{knob}={value}"), card_gib=12)}[stage] for value in (best, best + step)
    )
    assert at.fits
    assert not over.fits


@pytest.mark.parametrize(("card", "on"), [(8, True), (24, False), (None, False)])
def test_checkpointing_goes_off_by_itself_where_that_fits(card, on):
    found, nodes = loaded("rlcd_helpful")
    assert {node.spec.checkpointing for node in nodes if node.kind in ("reward", "ppo")} == {"auto"}
    settled = settle(found, nodes, card)
    assert {node.id: node.spec.checkpointing for node in settled if node.kind in ("reward", "ppo")} == {"reward": on, "ppo": on}
    assert [node.fingerprint for node in settled] == [node.fingerprint for node in nodes]
    if card:
        auto, by_hand = (estimate(found, plan, card_gib=card) for plan in (nodes, settled))
        assert [(fit.moments, fit.seconds) for fit in auto] == [(fit.moments, fit.seconds) for fit in by_hand]


def test_checkpointing_is_on_where_nothing_is_known_and_off_on_a_cpu_and_a_choice_stays():
    stranger, cpu, chosen = (
        settle(*loaded("rlcd_helpful", *words), 24)[3].spec.checkpointing
        for words in (["base.model=some/stranger"], ["base.device=cpu", "ppo.micro_tokens=65536"], ["ppo.checkpointing=true"])
    )
    assert (stranger, cpu, chosen) == (True, False, True)


def base_bytes(fit) -> int:
    return fit.moments[0].parts["base"] + fit.moments[0].parts["embeddings"]


def test_every_stage_is_counted_on_its_own_base():
    plain, sim, big = ({fit.id: fit for fit in estimate(*loaded(name), card_gib=24)} for name in ("rlcd_helpful", "rlcd_helpful_sim30b", "rlcd_helpful_30b"))  # fmt: skip
    assert {id: base_bytes(sim[id]) for id in sim if sim[id].moments} == {
        "contrast": whole_base(known("huggyllama/llama-30b")),
        **{id: whole_base(known("huggyllama/llama-7b")) for id in ("reward", "ppo", "evaluate")},
    }
    assert sim["contrast"].seconds == big["contrast"].seconds  # as many prompts, rows and tokens
    assert sim["contrast"].moments == big["contrast"].moments
    assert sim["ppo"].disk == plain["ppo"].disk


def test_bases_that_fit_are_not_replaced():
    told = ways(*loaded("rlcd_helpful_sim30b"), 16)
    assert told[0].startswith("contrast.base.model=huggyllama/llama-13b ")
    assert not [way for way in told if way.startswith("base.model") or " base.model" in way]
    told = ways(*loaded("rlcd_helpful_sim30b", "base.model=huggyllama/llama-65b"), 24)
    assert told[0].startswith("base.model=huggyllama/llama-30b ")
    assert not [way for way in told if "contrast.base" in way]


def test_an_unknown_simulator_leaves_the_other_stages_their_estimate():
    found, nodes = loaded("rlcd_helpful_sim30b", "contrast.base.model=some/stranger")
    assert {fit.id: bool(fit.unknown) for fit in estimate(found, nodes, card_gib=24)} == dict.fromkeys(
        ("prompts", "reward", "ppo", "evaluate"), False
    ) | {"contrast": True}
    refuse(found, nodes, card_gib=24)
    with pytest.raises(PreconditionError, match="ppo"):
        refuse(found, nodes, card_gib=6)


def test_longer_prompts_take_more_where_a_knob_bounds_them_and_512_tokens_are_taken_where_none_does():
    peaks = {words: estimate(*loaded("rlcd_helpful", f"prompts.max_words={words}"), card_gib=8)[1].peak for words in (100, 200, "null")}
    assert peaks[100] < peaks[200] < peaks["null"]
    longest = int(200 * 1.5) + 40
    per_token = 8 * sizes.kv_cache(known("huggyllama/llama-7b"), 1, 2)
    assert peaks["null"] - peaks[200] == pytest.approx(1.05 * (512 - longest) * per_token, rel=0.05)


def test_an_unknown_base_is_no_refusal():
    found, nodes = loaded("rlcd_helpful", "base.model=some/stranger")
    fits = estimate(found, nodes, card_gib=8)
    assert [bool(fit.unknown) for fit in fits] == [False, True, True, True, True]
    refuse(found, nodes, card_gib=8)
    assert "not known until the config of some/stranger can be read" in show.text(found, fits, 8)
    assert show.to_json(found, fits, 8)["fits"] is None
    assert "disk: not known for the run" in show.text(found, fits, 8)
    with pytest.raises(
        PreconditionError, match=r"no estimate for contrast, reward, ppo, evaluate\n  `hf download some/stranger config.json`"
    ):
        refuse_unknown(fits)
    refuse_unknown(estimate(*loaded("rlcd_helpful"), card_gib=8))


def test_an_unknown_base_is_told_once_with_its_own_name_and_what_may_be_meant():
    found, nodes = loaded("rlcd_helpful", "base.model=huggyllama/lama-7b", "base.revision=v2")
    fits = estimate(found, nodes, card_gib=24)
    with pytest.raises(PreconditionError) as refused:
        refuse_unknown(fits)
    told = str(refused.value)
    assert "`hf download huggyllama/lama-7b config.json --revision v2` fetches its config alone" in told
    assert "did you mean 'huggyllama/llama-7b'?" in told
    assert show.text(found, fits, 24).count("not known until") == 1
    assert "not known until" not in told  # it stands in the estimate
    with pytest.raises(PreconditionError) as refused:
        refuse_unknown(estimate(*loaded("rlcd_helpful", "base.model=some/stranger"), card_gib=24))
    assert "did you mean" not in str(refused.value)
    with pytest.raises(PreconditionError, match=r"no estimate for ppo\n  no estimate for models of type 'mamba'"):
        refuse_unknown([replace(fits[3], unknown="no estimate for models of type 'mamba'", advice="")])


def test_the_tiny_base_fits_every_card():
    found, nodes = loaded("tiny_rlcd_helpful")
    fits = estimate(found, nodes, card_gib=4)
    assert all(fit.fits for fit in fits)
    assert download(found) == 0


# -- refusals ---------------------------------------------------------------------------------------------------------------


def suggested(way: str) -> tuple[str, ...]:
    return tuple(word for word in way.partition("   (")[0].split() if "=" in word)


@pytest.mark.parametrize(
    ("name", "card", "overrides"),
    [
        ("rlcd_helpful_30b", 16, ()),
        (
            "rlcd_helpful_30b",
            24,
            ("ppo.rollout_rows=64", "contrast.batch_rows=64", "ppo.checkpointing=false", "reward.checkpointing=false"),
        ),
        ("rlcd_helpful", 8, ("ppo.micro_tokens=65536", "evaluate.batch_rows=200")),
        ("rlcd_harmless", 4, ()),
        ("rlcd_helpful_qwen7b", 8, ()),
        ("self_rewarding", 12, ()),
        ("rlcd_helpful_sim30b", 16, ()),  # the simulator alone is too large
        ("rlcd_helpful_sim30b", 6, ()),  # both bases are
        ("rlcd_helpful_sim30b", 24, ("base.model=huggyllama/llama-65b",)),  # the policy is
    ],
)
def test_a_refusal_names_at_least_three_ways_and_each_of_them_works(name, card, overrides):
    found, nodes = loaded(name, *overrides)
    with pytest.raises(PreconditionError) as refused:
        refuse(found, nodes, card_gib=card)
    told = ways(found, nodes, card)
    assert len(told) >= 3
    assert all(way in str(refused.value) for way in told)
    assert refused.value.exit_code == 3
    for way in told:
        size = re.match(r"a card with (\d+) GB", way)
        refuse(*loaded(name, *overrides, *suggested(way)), card_gib=int(size[1]) if size else card)
    assert any(f"{node.id} (" in str(refused.value) for node in nodes)


def test_a_refusal_counts_as_the_table_does_and_so_finely_that_too_much_looks_like_it():
    found, nodes = loaded("rlcd_helpful")
    with pytest.raises(PreconditionError) as refused:
        refuse(found, nodes, card_gib=6)
    told = str(refused.value)
    usable, need = re.search(r"6 GiB \((.*) of it usable\)", told), re.search(r"reward \(update\): (.*) GiB, of it base (.*?), act", told)
    assert usable and need
    assert float(need[1]) > float(usable[1])
    table = show.text(found, estimate(found, nodes, card_gib=6), 6)
    assert re.search(rf"reward +update +{need[2]} .* {need[1]} +<- peak", table)


def test_a_refusal_names_what_all_rounds_lack_once():
    found, nodes = loaded("self_rewarding")
    with pytest.raises(PreconditionError, match=r"r1\.dpo, r2\.dpo \(update\): ") as refused:
        refuse(found, nodes, card_gib=10)
    needs = [line.partition("): ")[2] for line in str(refused.value).splitlines() if "GiB, of it" in line]
    assert len(needs) == 5 < sum(not fit.fits for fit in estimate(found, nodes, card_gib=10))


def test_what_all_rounds_share_is_turned_once_and_works():
    told = ways(*loaded("self_rewarding"), 10)
    turned = suggested(told[0])
    assert "each_round.dpo.max_tokens=512" in turned
    assert not re.search(r"\br\d\.", " ".join(told))
    refuse(*loaded("self_rewarding", *turned), card_gib=10)


def test_every_kind_of_stage_has_an_estimate_so_every_recipe_on_the_tiny_base_can_be_told_to_fit():
    assert set(DEMANDS) == set(CONTRACTS)
    for name in (name for name in recipe.built_in() if name.startswith("tiny_")):
        fits = estimate(*loaded(name), card_gib=8)
        refuse_unknown(fits)
        assert all(fit.fits for fit in fits), name


def test_rounds_that_are_alike_are_shown_once():
    """And those apart of which one differs; what all take together is as it was."""
    found, nodes = loaded("self_rewarding")
    fits = estimate(found, nodes, card_gib=24)
    rows = {row.id: row.rounds for row in show.once(fits)}
    assert [id for id in rows if id.startswith("r")] == [
        f"r1-r2.{stage}" for stage in ("instruct", "respond", "judge", "pair", "dpo", "gate")
    ]
    assert sum(rows.values()) == len(fits) and [id for id, rounds in rows.items() if rounds == 1] == [
        fit.id for fit in fits if not fit.id.startswith("r")
    ]
    table = show.text(found, fits, 24)
    assert "a round" in table and "r2." not in table.replace("r1-r2.", "").partition("on this card")[0]
    found, nodes = loaded("self_rewarding", "r2.respond.batch_rows=8")
    changed = [row.id for row in show.once(estimate(found, nodes, card_gib=24))]
    assert {"r1.respond", "r2.respond", "r1-r2.judge"} <= set(changed)
    apart = [replace(fits[0], id=id) for id in ("dpo", "r1.dpo")]
    assert [row.id for row in show.once(apart)] == ["dpo", "r1.dpo"]


@pytest.mark.parametrize("own", ["r2.dpo.compare.judging.batch_rows=128", "r1.dpo.lr=2e-6"])
def test_a_round_with_overrides_of_its_own_is_turned_by_itself(own):
    overrides = ("each_round.dpo.compare.judging.batch_rows=64", own)
    turned = suggested(ways(*loaded("self_rewarding", *overrides), 20)[0])
    assert not [word for word in turned if word.startswith("each_round")]  # which an override of one round would overrule
    refuse(*loaded("self_rewarding", *overrides, *turned), card_gib=20)


def test_a_recipe_with_its_rounds_written_out_is_turned_round_by_round():
    flat = recipe.loads(loaded("self_rewarding")[0].to_yaml())
    turned = suggested(ways(flat, plan(flat), 10)[0])
    assert "r2.dpo.max_tokens=512" in turned
    changed = recipe.loads(flat.to_yaml(), turned)
    refuse(changed, plan(changed), card_gib=10)


def test_a_gate_is_judged_by_a_knob_of_its_own_group_and_its_plan_names_it():
    gate = next(fit for fit in estimate(*loaded("self_rewarding"), card_gib=16) if fit.id == "r1.gate")
    assert set(gate.largest) == {"batch_rows", "judging.batch_rows"}
    assert gate.largest["judging.batch_rows"] < gate.largest["batch_rows"]  # the judge's prompts are longer
    judged = gate.largest["judging.batch_rows"]
    for rows, fits in ((judged, True), (judged + 1, False)):
        changed = estimate(*loaded("self_rewarding", f"r1.gate.judging.batch_rows={rows}"), card_gib=16)
        assert next(fit for fit in changed if fit.id == "r1.gate").fits == fits


@pytest.mark.parametrize("name", BIG)
def test_every_knob_that_moves_memory_has_a_largest_value(name):
    for fit in estimate(*loaded(name), card_gib=24):
        moving = {knob for moment in fit.moments for knob in moment.knobs} - {"checkpointing"}
        assert set(fit.largest) == moving, fit.id


SHORT = ("each_round.dpo.max_tokens=512", "each_round.dpo.micro_tokens=1024", "eft.batch_rows=8", "m1-gate.judging.batch_rows=8",
         "each_round.judge.batch_rows=8", "each_round.gate.judging.batch_rows=8")  # fmt: skip


@pytest.mark.parametrize(("card", "overrides"), [(10, SHORT), (24, ("each_round.dpo.compare.judging.batch_rows=128",))])
def test_the_knob_whose_moment_is_refused_is_the_first_to_be_turned(card, overrides):
    found, nodes = loaded("self_rewarding", *overrides)
    with pytest.raises(PreconditionError, match=r"r1\.dpo.* \(compare\.judging: read prompts\)"):
        refuse(found, nodes, card_gib=card)
    turned = suggested(ways(found, nodes, card)[0])
    assert {word.partition("dpo.")[2].partition("=")[0] for word in turned} == {"compare.judging.batch_rows"}
    refuse(*loaded("self_rewarding", *overrides, *turned), card_gib=card)


def test_checkpoints_that_are_compared_are_written_and_judged_and_a_model_is_measured_once():
    def of(stage: str, *overrides: str):
        return next(fit for fit in estimate(*loaded("self_rewarding", *overrides), card_gib=24) if fit.id == stage)

    compared, alone = of("r1.dpo"), of("r1.dpo", "each_round.dpo.compare=null", "each_round.dpo.from={policy: previous}")
    assert {m.name.partition(": ")[0] for m in compared.moments} - {m.name for m in alone.moments} == {"compare", "compare.judging"}
    assert compared.seconds > alone.seconds
    assert of("r1.gate").seconds[1] == pytest.approx(of("m1-gate").seconds[1] / 2, rel=0.01)


def test_texts_that_are_too_long_for_a_card_are_offered_to_be_cut_and_with_that_it_fits():
    offered = next(way for way in ways(*loaded("self_rewarding"), 12) if "longer texts are cut" in way)
    turned = suggested(offered)
    assert any(word.startswith("each_round.dpo.max_tokens=") for word in turned)
    assert all(fit.fits for fit in estimate(*loaded("self_rewarding", *turned), card_gib=12))


@pytest.mark.parametrize(
    ("name", "card", "base", "shortest"),
    [
        ("self_rewarding", 8, "Qwen/Qwen3-4B-Base", 512),
        ("self_rewarding", 6, "Qwen/Qwen3-1.7B-Base", 512),
        ("self_rewarding", 4, "Qwen/Qwen3-1.7B-Base", 256),
        ("dpo_helpful", 4, "Qwen/Qwen3-1.7B-Base", 256),
    ],
)
def test_on_a_small_card_the_largest_base_is_offered_that_fits_with_shorter_texts(name, card, base, shortest):
    offered = ways(*loaded(name), card)[0]
    assert "longer texts are cut" in offered
    turned = suggested(offered)
    assert f"base.model={base}" in turned
    lengths = [int(word.partition("=")[2]) for word in turned if ".max_tokens=" in word]
    assert min(lengths) >= shortest
    assert (min(lengths) < 512) == (shortest < 512)
    assert all(fit.fits for fit in estimate(*loaded(name, *turned), card_gib=card))


def test_what_is_asked_too_much_is_turned_down_and_the_rest_is_left_alone():
    found, nodes = loaded("rlcd_helpful", "ppo.checkpointing=false", "ppo.micro_tokens=4096", "ppo.rollout_rows=40")
    way = way_to_fit(found, nodes, 8)
    assert way is not None
    assert {text.split("=")[0] for text in way.overrides} == {"ppo.rollout_rows", "ppo.checkpointing"}
    assert way.peak <= cards.usable(8)
    assert way_to_fit(*loaded("rlcd_helpful"), 8).overrides == ()


def test_passes_are_shortened_before_they_are_checkpointed():
    found, nodes = loaded(
        "rlcd_helpful", "ppo.checkpointing=false", "ppo.micro_tokens=4096", "reward.checkpointing=false", "reward.micro_tokens=4096"
    )
    way = way_to_fit(found, nodes, 24)
    assert way is not None
    assert not [text for text in way.overrides if "checkpointing" in text]
    assert [text for text in way.overrides if text.startswith("ppo.micro_tokens=")]


def test_a_moment_that_no_knob_moves_can_be_too_much_by_itself():
    """The evaluation's log-probs run over 4,096 tokens at once, whatever its knobs say."""
    text = "base: {model: huggyllama/llama-30b}\ntask: helpful\nstages: [prompts: {max_words: 30, source: a.txt}, contrast, evaluate]"
    found = recipe.loads(text)
    fits = {fit.id: fit for fit in estimate(found, plan(found), card_gib=24)}
    score = next(moment for moment in fits["evaluate"].moments if moment.name == "score")
    card = 1.001 * score.bytes / 0.97 / GIB
    assert way_to_fit(found, plan(found), card)
    assert way_to_fit(found, plan(found), 0.99 * card) is None


@pytest.fixture
def every_base_can_be_had(monkeypatch):
    for refusal in ("refuse_offline", "refuse_unreachable"):
        monkeypatch.setattr(preflight.online, refusal, lambda *_, **__: None)


@pytest.mark.usefixtures("every_base_can_be_had")
def test_a_run_on_the_cpu_asks_for_no_card(tmp_path, monkeypatch):
    monkeypatch.setattr(cards, "this_card", lambda: 4.0)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**15))
    found, nodes = loaded("rlcd_helpful", "base.device=cpu")
    preflight.preflight(found, nodes, runs=tmp_path, only=[node.id for node in nodes])
    found, nodes = loaded("rlcd_helpful")
    with pytest.raises(PreconditionError, match="4 GiB"):
        preflight.preflight(found, nodes, runs=tmp_path, only=[node.id for node in nodes])


def test_unsloth_is_asked_for_only_where_a_stage_runs_on_it(monkeypatch):
    monkeypatch.setattr(cards, "any_gpu", lambda: False)
    monkeypatch.delenv(backend.FORCE_CPU, raising=False)
    for there, reason in ((False, backend.NOT_INSTALLED), (True, backend.NO_CARD)):
        monkeypatch.setattr(backend, "installed", lambda there=there: there)
        found, nodes = loaded("tiny_rlcd_helpful", "base.backend=unsloth")
        with pytest.raises(PreconditionError) as e:
            preflight.preflight(found, nodes, runs=Path("runs"), only=["prompts", "contrast"])
        assert str(e.value) == reason
        backend.refuse_backend(found, ["prompts"])
        backend.refuse_backend(loaded("tiny_rlcd_helpful")[0], ["contrast"])
    own = loaded("tiny_rlcd_helpful", "contrast.base.backend=unsloth")[0]
    assert backend.lacking(own, ["contrast"]) and not backend.lacking(own, ["reward"])
    monkeypatch.setattr(cards, "any_gpu", lambda: True)
    backend.refuse_backend(found, ["contrast"])
    assert backend.lacking(loaded("tiny_rlcd_helpful", "base.backend=unsloth", "base.device=cpu")[0], ["contrast"]) == backend.NO_CARD
    monkeypatch.setenv(backend.FORCE_CPU, "1")
    assert backend.lacking(loaded("tiny_rlcd_helpful", "base.backend=unsloth", "base.device=cpu")[0], ["contrast"]) is None


@pytest.mark.usefixtures("every_base_can_be_had")
def test_a_simulator_on_the_cpu_asks_for_no_card(tmp_path, monkeypatch):
    monkeypatch.setattr(cards, "this_card", lambda: 16.0)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**15))
    slim = ("ppo.rollout_rows=10", "evaluate.batch_rows=8")
    for device, fits in (("cpu", True), ("auto", False)):
        found, nodes = loaded("rlcd_helpful_sim30b", f"contrast.base.device={device}", *slim)
        ids = [node.id for node in nodes]
        if fits:
            preflight.preflight(found, nodes, runs=tmp_path, only=ids)
        else:
            with pytest.raises(PreconditionError, match=r"contrast on huggyllama/llama-30b \(write\)"):
                preflight.preflight(found, nodes, runs=tmp_path, only=ids)


def test_stages_that_are_done_already_are_not_refused():
    found, nodes = loaded("rlcd_helpful", "ppo.micro_tokens=65536")
    with pytest.raises(PreconditionError, match="ppo"):
        refuse(found, nodes, card_gib=8, only=["reward", "ppo"])
    refuse(found, nodes, card_gib=8, only=["contrast", "reward"])


# -- disk, cards, time ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "gb"),
    [("8", 8), ("15.5", 15.5), ("8GB", 8), (" 24 GiB", 24), ("141", 141), ("T4", 15), ("V100", None), ("4090", 24), ("RTX 4060", 8),
     ("nvidia geforce rtx 3060", 12), ("A100-80GB", 80), ("a100", None), ("RTX 4060 Ti", None), ("h100", 80), ("8192", None), ("0.5", None),
     ("-8", None), ("inf", None), ("nan", None), ("", None), ("1e400", None)],
)  # fmt: skip
def test_a_card_is_told_by_its_gigabytes_or_its_name(text, gb):
    if gb is not None:
        assert cards.size(text) == gb
        return
    with pytest.raises(ValueError, match=r"the GB of a card's memory are needed, 1 to 300, such as .* 15 for a T4 .*known: T4, RTX 4060"):
        cards.size(text)


def test_a_card_in_mib_is_told_so_and_its_help_knows_a_t4(cli):
    done = cli("plan", "rlcd_helpful", "--card", 8192)
    assert done.returncode == 2 and "in MiB that is 8 GB" in done.stderr and "Traceback" not in done.stderr
    assert cli("plan", "rlcd_helpful", "--card", "T4").returncode == 0
    assert "a T4 offers 15" in " ".join(cli("plan", "--help").stdout.split())


def test_too_little_disk_is_refused_with_a_fifth_to_spare(tmp_path, monkeypatch):
    found, nodes = loaded("rlcd_helpful")
    ids = [node.id for node in nodes]
    need = sum(fit.disk for fit in estimate(found, nodes, card_gib=8))
    fetched = download(found)
    assert fetched == 2 * known("huggyllama/llama-7b").parameters
    free = {"free": int(1.2 * (need + fetched)) - 1}
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: SimpleNamespace(**free))
    with pytest.raises(PreconditionError, match=r"GiB under .*not/yet and 12\.6 GiB under .*\(--runs, HF_HOME\)"):  # each alone would go in
        preflight.refuse_disk(found, nodes, runs=tmp_path / "not" / "yet", only=ids)
    preflight.refuse_disk(found, nodes, runs=tmp_path, only=[])
    free["free"] += 2
    preflight.refuse_disk(found, nodes, runs=tmp_path, only=ids)


def test_a_4_bit_copy_is_counted_unless_it_is_there(tmp_path, monkeypatch):
    monkeypatch.setenv("LITE_CACHE", str(tmp_path))
    found, nodes = loaded("rlcd_helpful", "base.cache_4bit=true")
    llama = known("huggyllama/llama-7b")
    assert copies(found) == sizes.base_weights(llama, BASE) + sizes.embeddings(llama, BASE)
    assert copies(loaded("rlcd_helpful")[0]) == copies(found, ["prompts"]) == 0
    assert "GiB for the 4-bit copy" in show.text(found, estimate(found, nodes, card_gib=8), 8)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**9))
    with pytest.raises(PreconditionError, match=r"3\.6 GiB under .*LITE_CACHE"):
        preflight.refuse_disk(found, nodes, runs=tmp_path, only=[node.id for node in nodes])
    copy = tmp_path / "4bit" / "0123"
    copy.mkdir(parents=True)
    (copy / "copy.json").write_text('{"base": "/hub/models--huggyllama--llama-13b/snapshots/abc"}')
    assert copies(found) > 0
    (copy / "copy.json").write_text('{"base": "/hub/models--huggyllama--llama-7b/snapshots/abc"}')
    assert copies(found) == 0


def test_every_base_is_fetched_once_and_only_for_the_stages_that_run():
    found, nodes = loaded("rlcd_helpful_sim30b", "base.quantize=none")
    small, large = (2 * known(f"huggyllama/llama-{size}b").parameters for size in (7, 30))
    assert download(found) == small + large
    assert download(found, [node.id for node in nodes if node.id != "contrast"]) == small
    assert download(found, ["prompts"]) == 0
    assert download(loaded("rlcd_helpful", "contrast.base.quantize=none")[0]) == small  # the same weights, held twice


def test_a_base_in_the_cache_is_not_fetched_again(empty_cache):
    found, _ = loaded("rlcd_helpful")
    snapshot = empty_cache / "models--huggyllama--llama-7b" / "snapshots" / "main"
    write_config(snapshot, 64)
    assert download(found) > 0  # a config alone is no model
    (snapshot / "model.safetensors").touch()
    assert download(found) == 0


def test_checkpoints_take_their_size_on_disk_and_no_more_with_their_number():
    few, many = (estimate(*loaded("rlcd_helpful", f"ppo.save_every={n}"), card_gib=8)[3].disk for n in (80, 20))
    assert few == many
    adapter = sizes.fp32(sizes.lora(known("huggyllama/llama-7b"), 16))
    # The result; and three checkpoints of two adapters (1.5 times, with their moments), the last good and the best one; heads are small.
    assert few == pytest.approx((1 + 3 * (2 * 1.5 + 2)) * adapter, rel=0.001)


def test_checkpoints_of_dpo_hold_the_last_good_adapter_and_the_best_one_where_it_is_kept():
    best, last = (estimate(*loaded("dpo_helpful", f"dpo.keep={kept}"), card_gib=8)[2].disk for kept in ("best", "last"))
    adapter = sizes.fp32(sizes.lora(known("huggyllama/llama-7b"), 16))
    assert last == pytest.approx((1 + 3 * (1.5 + 1)) * adapter, rel=0.001)
    assert best == pytest.approx((1 + 3 * (1.5 + 2)) * adapter, rel=0.001)


@pytest.mark.parametrize(
    ("gib", "name"), [(6, "RTX 4060"), (8, "RTX 4060"), (15.7, "RTX 4060 Ti"), (23.99, "RTX 4090"), (32, "RTX 4090"), (139.8, "H200")]
)
def test_a_memory_size_stands_for_a_card(gib, name):
    assert cards.class_of(gib).name == name


@pytest.mark.parametrize(("gib", "told"), [(8, "RTX 4060"), (10, "RTX 4060 (8 GB)"), (15.7, "RTX 4060 Ti"), (32, "RTX 4090 (24 GB)")])
def test_a_card_of_another_size_is_said_to_stand_in(gib, told):
    found, nodes = loaded("rlcd_helpful")
    words = show.text(found, estimate(found, nodes, card_gib=gib), gib)
    assert f"time on one {told}  " in words
    assert ("it stands in for" in words) == ("GB" in told)


@pytest.mark.parametrize(("gib", "unpacking", "tokens_per_s"), [(24, 0.087, 260), (141, 0.018, 1236)])
def test_the_published_bounds_of_a_7b_come_out(gib, unpacking, tokens_per_s):
    """Unpacking all weights three times takes 87 ms (4090) and 18 ms (H200); one row is written at 260 and 1,236 tokens/s, the embedding
    table read whole at every step, which it is not."""
    llama, card = known("huggyllama/llama-7b"), cards.class_of(gib)
    assert cards.seconds(Pass(1, 2048, 6, 3), llama, BASE, card)[0] == pytest.approx(unpacking, rel=0.03)
    low, high = cards.seconds(Decode(1, 1, 0, 100, adapter=True), llama, BASE, card)
    assert 100 / low == pytest.approx(tokens_per_s * whole_base(llama) / (whole_base(llama) - 2 * 32000 * 4096), rel=0.01)
    assert high > low


def test_time_grows_with_work_and_shrinks_with_rows():
    llama, card = known("huggyllama/llama-7b"), cards.class_of(24)
    few, many = (cards.seconds(Decode(512, rows, 150, 300, adapter=True), llama, BASE, card) for rows in (8, 64))
    assert few[0] > 2 * many[0]
    long, short = (cards.seconds(Pass(n, 2048, 6, 3), llama, BASE, card) for n in (200_000, 100_000))
    assert long == pytest.approx([2 * s for s in short], rel=0.02)
    ready = sum(f.seconds[0] for f in estimate(*loaded("rlcd_helpful"), card_gib=24))
    assert ready < sum(f.seconds[0] for f in estimate(*loaded("rlcd_helpful"), card_gib=8))


def spent(fits) -> str:
    return show.span((sum(fit.seconds[0] for fit in fits), sum(fit.seconds[1] for fit in fits)))


@pytest.mark.parametrize(("name", "card"), [("rlcd_helpful", 24), ("rlcd_helpful", 80), ("self_rewarding", 24)])
def test_on_a_big_card_the_rows_that_make_a_run_shorter_are_told_and_they_do(name, card):
    found, nodes = loaded(name)
    before = estimate(found, nodes, card_gib=card)
    told = re.search(r"these make it (.*) instead of (.*); the results stay the same:\n  (.*)", show.text(found, before, card))
    assert told
    changed, again = loaded(name, *told[3].split())
    after = estimate(changed, again, card_gib=card)
    assert (told[1], told[2]) == (spent(after), spent(before))
    assert all(fit.fits for fit in after)
    assert sum(fit.seconds[1] for fit in after) < 0.5 * sum(fit.seconds[1] for fit in before)
    assert [node.fingerprint for node in again] == [node.fingerprint for node in nodes]
    assert "these make it" not in show.text(changed, after, card)


@pytest.mark.parametrize(("name", "overrides"), [("rlcd_helpful", ["ppo.rollout_rows=500"]), ("tiny_rlcd_helpful", [])])
def test_nothing_is_made_faster_that_does_not_fit_or_is_short(name, overrides):
    found, nodes = loaded(name, *overrides)
    assert "these make it" not in show.text(found, estimate(found, nodes, card_gib=24), 24)


def test_the_largest_passes_are_told_without_checkpointing_and_with_it():
    ppo = estimate(*loaded("rlcd_helpful"), card_gib=24)[3]
    assert f"micro_tokens={ppo.largest['micro_tokens']} ({ppo.checkpointed} with checkpointing" in show.text(
        loaded("rlcd_helpful")[0], [ppo], 24
    )
    for tokens, on, fits in ((ppo.largest["micro_tokens"], 0, 1), (ppo.checkpointed, 1, 1), (ppo.checkpointed + 64, 1, 0)):
        found, nodes = loaded("rlcd_helpful", f"ppo.micro_tokens={tokens}")
        assert (settle(found, nodes, 24)[3].spec.checkpointing, estimate(found, nodes, card_gib=24)[3].fits) == (on, fits)
    assert estimate(*loaded("rlcd_helpful", "ppo.checkpointing=false"), card_gib=24)[3].checkpointed == 0


@pytest.mark.parametrize(("name", "card"), [("rlcd_helpful", 6), ("self_rewarding", 10)])
def test_every_way_says_how_long_it_takes(name, card):
    for way in ways(*loaded(name), card):
        size = re.match(r"a card with (\d+) GB", way)
        after = estimate(*loaded(name, *suggested(way)), card_gib=int(size[1]) if size else card)
        assert spent(after) in way
        assert size or f"peak {max(fit.peak for fit in after) / GIB:.2f} GiB" in way


def fake_smi(folder: Path, mib: int) -> str:
    folder.mkdir()
    script = folder / "nvidia-smi"
    script.write_text(f"#!/bin/sh\necho $@ > {folder}/asked\necho {mib}\n")
    script.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def test_the_card_of_this_machine_is_asked_for_without_torch(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", fake_smi(tmp_path / "bin", 24564))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert cards.this_card() == pytest.approx(23.99, abs=0.01)
    assert "--id=2" in (tmp_path / "bin" / "asked").read_text()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert cards.this_card() is None
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    (tmp_path / "bin" / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    assert cards.this_card() is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cards.this_card() is None


# -- recipes ----------------------------------------------------------------------------------------------------------------


def header(name: str) -> dict[str, str]:
    """``# Card:   8 GB`` lines of a recipe's header, by their first word."""
    lines = recipe.built_in()[name].read_text(encoding="utf-8").splitlines()
    return {m[1]: m[2] for line in lines if (m := re.fullmatch(r"# (\w+): +(.*)", line))}


@pytest.mark.parametrize("name", BIG)
def test_a_header_says_what_the_estimate_says(name):
    """Of a sweep: what its command takes, which are all runs."""
    told = header(name)
    card = int(told["Card"].split(" GB")[0])
    runs = [loaded(name, *overrides) for overrides in recipe.combinations(recipe.find(name))]
    judged = together.judge([together.Asked("", found, nodes, ()) for found, nodes in runs], card)
    assert all(run.fits for run in judged)
    assert told["Memory"] == f"{max(run.peak for run in judged) / GIB:.1f} GiB at its highest (estimated)."
    each = f"; {len(runs)} runs, {show.span(judged[0].seconds)} each" if len(runs) > 1 else ""
    total = (sum(run.seconds[0] for run in judged), sum(run.seconds[1] for run in judged))
    where = f"on one {cards.class_of(card).name} (estimated from the maker's figures, not measured)"
    assert told["Time"] == f"{show.span(total)} {where}{each}."
    assert told["Command"] == f"lite run recipes/{name}.yaml"
    recipe.load(recipe.find(name), told["Override"].split()[3:])


def test_there_are_recipes_for_both_sizes_and_for_open_bases():
    bases = {name: loaded(name)[0].base.model for name in BIG}
    assert {f"rlcd_{task}{size}" for task in ("harmless", "helpful", "outline") for size in ("", "_30b", "_sim30b")} <= set(bases)
    assert {bases["rlcd_helpful"], bases["rlcd_helpful_30b"]} == {"huggyllama/llama-7b", "huggyllama/llama-30b"}
    assert any(model.startswith(("Qwen/", "allenai/")) for model in bases.values())
    assert all(int(header(name)["Card"].split(" GB")[0]) <= 24 for name in bases)


# -- the command line -------------------------------------------------------------------------------------------------------


def test_a_30b_base_is_refused_on_16_gb_before_anything_is_loaded(cli, tmp_path):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = cli("plan", "recipes/rlcd_helpful_30b.yaml", "--card", 16, HF_HOME=str(tmp_path))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert done.returncode == 3
    assert "lite: rlcd_helpful_30b does not fit a card with 16 GiB" in done.stderr
    assert "base.model=huggyllama/llama-13b" in done.stderr
    assert "a card with 24 GB" in done.stderr
    assert re.search(r"ppo +\d+\.\d\d +NO", done.stdout)
    assert "Traceback" not in done.stderr
    assert seconds < 3  # of this process, however busy the machine is


def test_a_30b_base_fits_24_gb(cli, tmp_path):
    done = cli("plan", "recipes/rlcd_helpful_30b.yaml", "--card", 24, HF_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert re.search(r"ppo +\d+\.\d\d +yes +rollout_rows=\d+ micro_tokens=\d+", done.stdout)
    assert "Estimated, not measured" in done.stdout
    found = json.loads(cli("plan", "rlcd_helpful_30b", "--card", 24, "--json", HF_HOME=str(tmp_path)).stdout)["fit"]
    assert found["fits"] is True
    assert found["usable_gib"] == pytest.approx(0.97 * 24, abs=0.01)
    assert found["download_gib"] == pytest.approx(2 * 32.529e9 / GIB, abs=0.01)
    ppo = found["stages"][3]
    assert ppo["moments"]["write"]["parts_gib"]["kv"] > 1
    assert ppo["peak_gib"] == max(moment["peak_gib"] for moment in ppo["moments"].values())


def test_an_estimate_imports_nothing_heavy(tmp_path):
    code = (
        "import sys\nfrom lite import cli\n"
        "sys.argv = ['lite', 'plan', 'rlcd_helpful', '--card', '24']\n"
        "try:\n    cli.main()\nexcept SystemExit as e:\n    assert not e.code, e.code\n"
        "assert 'lite.fit.estimate' in sys.modules\n"
        "found = [name for name in ('torch', 'numpy', 'transformers', 'peft', 'bitsandbytes') if name in sys.modules]\nassert not found, found\n"
    )
    environment = os.environ | {"HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr


def test_a_run_that_cannot_fit_this_gpu_is_refused_before_a_run_is_made(cli, tmp_path):
    path = fake_smi(tmp_path / "bin", 16376)
    done = cli("run", "rlcd_helpful_30b", "--runs", tmp_path / "runs", PATH=path, HF_HOME=str(tmp_path), CUDA_VISIBLE_DEVICES="0")
    assert done.returncode == 3
    assert "does not fit a card with 15.99 GiB" in done.stderr
    assert "base.model=huggyllama/llama-13b" in done.stderr
    assert not (tmp_path / "runs").exists()
