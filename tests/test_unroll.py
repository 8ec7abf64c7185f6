"""Rounds of a recipe: what they become, and how their mistakes are told."""

import pytest

from lite import recipe
from lite.errors import RecipeError
from lite.plan import plan

TEXT = """
task: helpful
stages:
  - prompts
  - seed
  - sft: {as: baseline, targets: examples}
  - eft
  - sft: {as: m1, targets: examples}
rounds: 2
each_round:
  - instruct
  - respond: {from: {policy: previous}}
  - judge: {from: {policy: previous}}
  - judge: {as: second, from: {policy: before_previous}}
  - pair: {from: {judgements: judge, second: second}}
  - dpo: {from: {policy: previous}}
  - gate: {from: {policy: dpo, before: previous, baseline: baseline}}
  - evaluate: {against: [base, previous], from: {policies: [previous, dpo]}}
finally:
  - evaluate: {against: [previous, m1]}
"""


def load(*overrides: str, text: str = TEXT) -> recipe.Recipe:
    return recipe.loads(text, overrides, where="x.yaml")


def problems(*overrides: str, text: str = TEXT) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load(*overrides, text=text)
    return caught.value.problems


def inputs(loaded: recipe.Recipe) -> dict[str, dict]:
    return {s.id: {k: v for k, v in s.inputs.items() if v} for s in loaded.stages}


def test_rounds_become_a_flat_list():
    ids = [s.id for s in load().stages]
    each = ["instruct", "respond", "judge", "second", "pair", "dpo", "gate", "evaluate"]
    assert ids == ["prompts", "seed", "baseline", "eft", "m1", *(f"r1.{e}" for e in each), *(f"r2.{e}" for e in each), "evaluate"]


def test_previous_is_the_model_of_the_round_before():
    found = inputs(load())
    assert [found[f"r{n}.respond"]["policy"] for n in (1, 2)] == ["m1", "r1.dpo"]
    assert [found[f"r{n}.second"]["policy"] for n in (1, 2)] == ["baseline", "m1"]
    assert found["r2.dpo"] == {"pairs": "r2.pair", "policy": "r1.dpo"}
    assert found["r2.gate"]["before"] == "r1.dpo"
    assert found["r2.gate"]["policy"] == "r2.dpo"
    assert found["r2.gate"]["baseline"] == "baseline"


def test_a_name_in_a_round_is_the_rounds_own_first():
    loaded = load()
    found = inputs(loaded)
    assert found["r2.pair"] == {"candidates": "r2.respond", "judgements": "r2.judge", "second": "r2.second"}
    assert found["r1.evaluate"]["policies"] == ("m1", "r1.dpo")
    against = {s.id: s.spec.against for s in loaded.stages if s.kind == "evaluate"}
    assert against == {"r1.evaluate": ("base", "m1"), "r2.evaluate": ("base", "r1.dpo"), "evaluate": ("r2.dpo", "m1")}


def test_later_rounds_see_what_earlier_ones_wrote():
    found = inputs(load())
    assert found["r1.instruct"]["prompts"] == ("prompts",)
    assert found["r2.instruct"]["prompts"] == ("prompts", "r1.instruct")
    assert found["m1"]["examples"] == ("seed", "eft")
    assert found["baseline"]["examples"] == ("seed",)  # a seed is examples


def test_overrides_reach_one_round_or_all():
    lr = {s.id: s.spec.lr for s in load("each_round.dpo.lr=1e-3", "r2.dpo.lr=5e-4").stages if s.kind == "dpo"}
    assert lr == {"r1.dpo": 1e-3, "r2.dpo": 5e-4}
    lr = {s.id: s.spec.lr for s in load("r2.dpo.lr=5e-4", "each_round.dpo.lr=1e-3").stages if s.kind == "dpo"}
    assert lr == {"r1.dpo": 1e-3, "r2.dpo": 5e-4}  # the narrower one wins, wherever it stands


def test_the_number_of_rounds_is_an_override():
    assert [s.id for s in load("rounds=0").stages] == ["prompts", "seed", "baseline", "eft", "m1", "evaluate"]
    assert load("rounds=3").stages[-2].id == "r3.evaluate"
    assert inputs(load("rounds=0"))["evaluate"]["policies"] == ("baseline", "m1")


def test_a_seed_of_the_recipe_and_knobs_of_the_stage_go_by_the_same_word():
    loaded = load("seed=5", "seed.ift=7")
    assert (loaded.seed, loaded.stages[1].spec.ift) == (5, 7)


def test_an_override_may_name_previous_too():
    assert inputs(load("r2.judge.from={policy: m1}"))["r2.judge"]["policy"] == "m1"
    assert inputs(load("each_round.judge.from={policy: m1}"))["r1.judge"]["policy"] == "m1"
    assert inputs(load("r2.judge.from={policy: before_previous}"))["r2.judge"]["policy"] == "m1"


def test_the_written_out_recipe_is_flat_and_the_same():
    loaded = load()
    again = recipe.loads(loaded.to_yaml(), where="again")
    assert (again.rounds, loaded.rounds) == (0, 2)  # each_round is not there any more
    assert again == loaded.model_copy(update={"rounds": 0})
    assert [n.fingerprint for n in plan(again)] == [n.fingerprint for n in plan(loaded)]


def test_a_change_in_one_round_changes_no_earlier_fingerprint():
    old = {n.id: n.fingerprint for n in plan(load())}
    new = {n.id: n.fingerprint for n in plan(load("r2.judge.draws=5"))}
    changed = [id for id in old if old[id] != new[id]]
    assert changed == ["r2.judge", "r2.pair", "r2.dpo", "r2.gate", "r2.evaluate", "evaluate"]


def test_the_judges_template_is_part_of_the_fingerprint(tmp_path):
    template = tmp_path / "mine.txt"
    prints = []
    for words in ("Judge {question}: {response}", "Rate {question}: {response}"):
        template.write_text(words)
        from lite import templates

        templates.load.cache_clear()
        nodes = {n.id: n.fingerprint for n in plan(load(f"r2.judge.template={template}", f"r2.gate.judging.template={template}"))}
        prints.append(nodes)
    assert prints[0]["r2.judge"] != prints[1]["r2.judge"]
    assert prints[0]["r1.gate"] == prints[1]["r1.gate"]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["each_round.dpo.bata=1"], "each_round[5].bata (r1.dpo): no such key; did you mean 'beta'?"),
        (["r2.dpo.bata=1"], "each_round[5].bata (r2.dpo): no such key; did you mean 'beta'?"),
        (["each_round.dpoo.beta=1"], "override each_round.dpoo.beta=1: no such place; did you mean 'each_round.dpo.beta'?"),
        (["r3.dpo.beta=1"], "override r3.dpo.beta=1: no such place; did you mean"),
        (["rounds=-1"], "rounds: a whole number from 0 to 99 is needed (got -1)"),
        (["rounds=two"], "rounds: a whole number from 0 to 99 is needed"),
        (["each_round.judge.from={policy: previos}"], "no stage before this one has the id 'previos'; did you mean 'previous'?"),
        (["each_round.judge.template=jugde_micro"], "each_round[2].template (r1.judge): no template 'jugde_micro'"),
        (["each_round.judge.template=choice"], "a judge's template has the slots"),
        (["each_round.instruct.template=judge_micro"], "a writer's template has the one slot {examples}"),
    ],
)
def test_mistakes_in_rounds_are_told_once(overrides, said):
    found = problems(*overrides)
    assert len(found) == 1, found
    assert found[0].startswith(said) or said in found[0]


def test_previous_needs_a_model_before():
    found = problems(text="{task: helpful, stages: [prompts], rounds: 1, each_round: [{respond: {from: {policy: previous}}}]}")
    assert any("there is no model that 'previous' could be" in p for p in found)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{task: helpful, stages: [prompts], rounds: 2}", "there is no `each_round`"),
        ("{task: helpful, stages: [prompts], each_round: [contrast]}", "say how often with `rounds: 2`"),
        ("{task: helpful, stages: [prompts], rounds: 1, each_round: []}", "each_round: a list of stages is needed"),
        ("{task: helpful, stages: [prompts], rounds: 1, each_round: [{contrast: {as: a.b}}]}", "an id in a round has no dot"),
        ("{task: helpful, stages: [prompts], rounds: 1, each_round: [contrast, contrast]}", "each_round[0] has the id 'r1.contrast' too"),
        ("{task: helpful, stages: [prompts, {contrast: {as: previous}}]}", "'previous' means something else"),
        ("{task: helpful, stages: [prompts], rounds: 1, each_round: [contrast], finaly: [evaluate]}", "did you mean 'finally'?"),
    ],
)
def test_a_recipe_of_rounds_that_is_none(text, said):
    assert any(said in problem for problem in problems(text=text)), problems(text=text)


def test_checkpoints_are_compared_on_prompts_that_are_named():
    with_prompts = TEXT.replace(
        "dpo: {from: {policy: previous}}", "dpo: {from: {policy: previous, prompts: prompts}, compare: {every: 50}}"
    )
    assert inputs(load(text=with_prompts))["r2.dpo"] == {"pairs": "r2.pair", "policy": "r1.dpo", "prompts": "prompts"}
    without = TEXT.replace("dpo: {from: {policy: previous}}", "dpo: {from: {policy: previous}, compare: {every: 50}}")
    assert any("name the stage whose dev prompts they answer" in p for p in problems(text=without))
    idle = TEXT.replace("dpo: {from: {policy: previous}}", "dpo: {from: {policy: previous, prompts: prompts}}")
    assert any("nothing is compared on the prompts" in p for p in problems(text=idle))


def test_a_round_may_be_aligned_by_ppo():
    by_ppo = (
        TEXT.replace("  - dpo: {from: {policy: previous}}", "  - reward\n  - ppo: {from: {policy: previous}}")
        .replace("policy: dpo", "policy: ppo")
        .replace("[previous, dpo]", "[previous, ppo]")
    )
    found = inputs(load(text=by_ppo))
    assert found["r2.ppo"] == {"prompts": "r2.instruct", "reward": "r2.reward", "policy": "r1.ppo"}
    assert found["r2.reward"] == {"pairs": "r2.pair"}
    assert found["r2.gate"]["before"] == "r1.ppo"
