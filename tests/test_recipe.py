"""Recipes: what they mean, and that every mistake is told, all at once, with its place."""

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lite import recipe, wiring
from lite.artifacts import Policy
from lite.contracts import Need
from lite.errors import LiteError, RecipeError
from lite.plan import plan


def problems(text: str, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        recipe.loads(text, overrides, where="x.yaml")
    return caught.value.problems


def test_stages_may_be_words_mappings_or_empty(small_recipe):
    loaded = recipe.loads("{task: helpful, stages: [prompts, {contrast: }, {reward: {epochs: 2}}]}")
    assert [s.id for s in loaded.stages] == ["prompts", "contrast", "reward"]
    assert loaded.stages[2].spec.epochs == 2
    assert loaded.base.model == "tiny"


def test_inputs_are_the_latest_of_their_type():
    text = "{task: helpful, stages: [prompts, contrast, {contrast: {as: more}}, reward, ppo, {ppo: {as: b}}, evaluate]}"
    inputs = {s.id: dict(s.inputs) for s in recipe.loads(text).stages}
    assert inputs["reward"] == {"pairs": "more"}
    assert inputs["b"] == {"prompts": "prompts", "reward": "reward", "policy": None}  # a policy to go on from is named, or none is meant
    assert inputs["evaluate"] == {
        "prompts": "prompts",
        "pairs": ("contrast", "more"),
        "reward": ("reward",),
        "policies": ("ppo", "b"),
        "rounds": (),
    }


@pytest.mark.parametrize("source", ["{pairs: contrast}", "contrast", "[contrast]", "{pairs: [contrast]}"])
def test_from_names_others_in_three_ways(source):
    text = f"{{task: helpful, stages: [prompts, contrast, {{contrast: {{as: more}}}}, {{reward: {{from: {source}}}}}]}}"
    assert recipe.loads(text).stages[3].inputs == {"pairs": "contrast"}


def test_from_narrows_what_is_read_as_many():
    text = "{task: helpful, stages: [prompts, contrast, reward, ppo, {ppo: {as: b}}, {evaluate: {from: {policies: b}}}]}"
    assert recipe.loads(text).stages[5].inputs["policies"] == ("b",)


def test_overrides_address_ids_and_the_last_one_wins(small_recipe):
    loaded = recipe.loads(
        small_recipe,
        [
            "ppo.kl_coef=0.1",
            "ppo.kl_coef=2e-3",
            "ppo.lora.r=4",
            "seed=18",
            "task=harmless",
            "base.model=Qwen/Qwen2.5-7B",
            "evaluate.against=[base, ppo]",
        ],
    )
    ppo = loaded.stages[3].spec
    assert (ppo.kl_coef, ppo.lora.r, ppo.steps) == (0.002, 4, 2)
    assert (loaded.seed, loaded.task, loaded.base.model) == (18, "harmless", "Qwen/Qwen2.5-7B")
    assert loaded.stages[4].spec.against == ("base", "ppo")


def test_an_id_with_a_dot_is_addressed_whole():
    text = "{task: helpful, stages: [prompts, {contrast: {as: r1.contrast}}]}"
    assert recipe.loads(text, ["r1.contrast.attempts=2"]).stages[1].spec.attempts == 2


def test_the_written_out_recipe_is_the_same_recipe(small_recipe):
    loaded = recipe.loads(small_recipe, ["ppo.preset=n_plus"])
    again = recipe.loads(loaded.to_yaml())
    assert again == loaded
    assert [n.fingerprint for n in plan(again)] == [n.fingerprint for n in plan(loaded)]


def test_a_stages_own_base_takes_from_the_runs_what_it_leaves_out():
    text = """
    base: {model: Qwen/Qwen2.5-7B, revision: v1, device: cpu, dtype: float32}
    task: helpful
    stages: [prompts, {contrast: {base: {model: Qwen/Qwen2.5-32B, dtype: auto}}}]
    """

    def own(*overrides):
        base = recipe.loads(text, overrides).stages[1].spec.base
        return base and (base.model, base.revision, base.device, base.dtype)

    assert own() == ("Qwen/Qwen2.5-32B", None, "cpu", "auto")
    assert own("base.device=cuda", "contrast.base.revision=v2") == ("Qwen/Qwen2.5-32B", "v2", "cuda", "auto")
    assert own("contrast.base=null") is None
    assert own("contrast.base={quantize: none}") == ("Qwen/Qwen2.5-7B", "v1", "cpu", "float32")
    loaded = recipe.loads(text)
    assert recipe.loads(loaded.to_yaml()) == loaded


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ("contrast.base.modle=x", "stages[1].base.modle (contrast): no such key; did you mean 'model'?"),
        ("contrast.base.model=./no/x", "stages[1].base.model (contrast): neither `tiny`, nor a folder that exists, nor a Hub id"),
        ("contrast.base.quantize=nf5", "stages[1].base.quantize (contrast): Input should be 'nf4' or 'none' (got 'nf5')"),
        ("contrast.base=tiny", "stages[1].base (contrast): a mapping such as {knob: value} is needed (got 'tiny')"),
        ("reward.base.model=tiny", "stages[2].base (reward): no such key"),
        ("base.quantise=nf4", "base.quantise: no such key; did you mean 'quantize'?"),
    ],
)
def test_a_mistake_in_a_stages_own_base_is_told_with_its_place(small_recipe, own, expected):
    found = problems(small_recipe, "contrast.temperature=0", own)
    assert len(found) == 1
    assert expected in found[0]


def test_a_stage_on_its_own_base_cannot_use_an_adapter_of_the_runs(monkeypatch):
    contracts = dict(recipe.CONTRACTS)
    contracts["contrast"] = replace(
        contracts["contrast"], reads={**contracts["contrast"].reads, "policy": Need(Policy, optional=True, named=True)}
    )
    monkeypatch.setattr(recipe, "CONTRACTS", contracts)
    monkeypatch.setattr(wiring, "CONTRACTS", contracts)
    text = "{task: helpful, stages: [prompts, contrast, reward, ppo, {contrast: {as: more, from: {policy: ppo}}}]}"
    assert recipe.loads(text).stages[4].inputs["policy"] == "ppo"
    expected = "stages[4].base (more): 'ppo' (policy) is an adapter of the run's base; leave out one of the two"
    assert problems(text, "more.base.model=tiny") == [expected]


def test_all_problems_come_at_once_each_with_its_place():
    found = problems(
        """
        base: {model: tiny, quantise: nf4}
        seed: -1
        task: helpfull
        stagess: 3
        stages:
          - prompts: {train: 600}
          - contrast
          - reward: {epochs: "2", micro_tokens: 0, lora: {rr: 3}}
          - ppo: {bata: 3, steps: yes, lr: .inf, from: {reward: reword, rewards: reward}}
          - evaluate: {against: [base, pppo], labels_under: rewar}
        """,
        "kl_coef=1",
        "pp.steps=2",
        "ppo.steps",
    )
    text = "\n".join(found)
    for expected in (
        "base.quantise: no such key; did you mean 'quantize'?",
        "seed: a whole number from 0 up is needed (got -1)",
        "did you mean 'helpful'?",
        "stagess: no such key; did you mean 'stages'?",
        "stages[2].epochs (reward): Input should be a valid integer (got '2')",
        "stages[2].micro_tokens (reward): Input should be greater than or equal to 64 (got 0)",
        "stages[2].lora.rr (reward): no such key; did you mean 'r'?",
        "stages[3].bata (ppo): no such key",
        "stages[3].steps (ppo): Input should be a valid integer (got True)",
        "stages[3].lr (ppo): Input should be a finite number (got inf)",
        "stages[3].from.reward (ppo): no stage before this one has the id 'reword'; did you mean 'reward'?",
        "stages[3].from.rewards (ppo): ppo has no such input; did you mean 'reward'?",
        "stages[4].against (evaluate): no model 'pppo' here; did you mean 'ppo'?",
        "stages[4].labels_under (evaluate): no reward model 'rewar' here; did you mean 'reward'?",
        "override kl_coef=1: no such place; did you mean 'ppo.kl_coef'?",
        "override pp.steps=2: no such place; did you mean 'ppo.steps'?",
        "override ppo.steps: write it as id.knob=value",
    ):
        assert expected in text
    assert len(found) == 17


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "a recipe is a mapping"),
        ("[1, 2]", "a recipe is a mapping"),
        ("task: helpful", "stages: a list of stages is needed"),
        ("{stages: [prompts]}", "task: a task's name or file is needed: harmless, helpful, outline"),
        ("{task: helpful, stages: [promts]}", "stages[0]: no stage kind 'promts'; did you mean 'prompts'?"),
        ("{task: helpful, stages: [{prompts: 3}]}", "stages[0] (prompts): the knobs are a mapping"),
        ("{task: helpful, stages: [{prompts: {}, contrast: {}}]}", "stages[0]: a stage is one kind"),
        ("{task: helpful, stages: [prompts, prompts]}", "stages[1] (prompts): stages[0] has the id 'prompts' too"),
        ("{task: helpful, stages: [{prompts: {as: base}}]}", "means something else"),
        ("{task: helpful, stages: [{prompts: {as: 'a/b'}}]}", "an id is letters"),
        ("{task: helpful, stages: [contrast]}", "reads Prompts (prompts), and no stage before it gives one; put `- prompts` before it"),
        ("{task: helpful, stages: [prompts, {reward: {from: prompts}}]}", "'prompts' gives Prompts, but reward reads no such thing"),
        ("{task: helpful, stages: [prompts, contrast, {reward: {from: {pairs: prompts}}}]}", "'prompts' gives Prompts, but pairs is Pairs"),
        ("{task: helpful, stages: [prompts], base: tiny}", "base: a mapping such as {model: tiny} is needed (got 'tiny')"),
        ("{task: helpful, stages: [prompts], base: {model: ./nowhere/x}}", "neither `tiny`, nor a folder that exists"),
        ("{task: helpful, stages: [{ppo: {rollouts: 2, minibatch: 4}}]}", "minibatch (4) is larger than rollouts (2)"),
        ("a: 1\nb: 2\na: 3", "line 3, column 1: the key 'a' stands here a second time"),
        ("a: [1,\nb: {", "line 2"),
        ("a: &x [1]\nb: *x", "line 2, column 4: aliases"),
        ("a: !!python/object/apply:os.system [id]", "line 1"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("#" * 1_000_001, "larger than"),
        ("a: 2024-99-99", "cannot be read"),
    ],
)
def test_one_mistake_one_message(text, expected):
    assert expected in "\n".join(problems(text))


def test_a_missing_input_is_not_blamed_on_a_mistyped_kind():
    assert len(problems("{task: helpful, stages: [promts, contrast]}")) == 1


def test_checkpointing_is_on_off_or_auto(small_recipe):
    assert [recipe.loads(small_recipe, [f"ppo.checkpointing={v}"]).stages[3].spec.checkpointing for v in ("auto", "true", "false")] == [
        "auto",
        True,
        False,
    ]
    assert problems(small_recipe, "ppo.checkpointing=some") == [
        "stages[3].checkpointing (ppo): Input should be 'auto', True or False (got 'some')"
    ]


def test_a_learning_rate_without_a_dot_is_a_number():
    loaded = recipe.loads("{task: helpful, stages: [prompts, contrast, {reward: {lr: 1e-3}}]}")
    assert loaded.stages[2].spec.lr == 0.001


def test_built_in_recipes_are_found_by_name_and_by_their_usual_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = recipe.built_in()["tiny_rlcd_helpful"]
    assert recipe.find("tiny_rlcd_helpful") == path
    assert recipe.find("recipes/tiny_rlcd_helpful.yaml") == path
    with pytest.raises(RecipeError, match="did you mean 'tiny_rlcd_helpful'"):
        recipe.find("tiny_rlcd_helpfull.yaml")


@pytest.mark.parametrize("name", recipe.built_in())
def test_every_built_in_recipe_plans_and_says_what_it_does(name):
    path = recipe.built_in()[name]
    assert plan(recipe.load(path))
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert f"lite run recipes/{name}.yaml" in "\n".join(header)
    assert any("Card:" in line for line in header)
    assert any("Override:" in line for line in header)
    assert recipe.summary(path)


JUNK = st.sampled_from(
    [
        "~",
        "yes",
        "-1",
        "0",
        "1e400",
        "[]",
        "{}",
        "'x'",
        "[{a: {b: 1}}]",
        "2024-01-01",
        "!!binary aGk=",
        "*a",
        "&a",
        "}",
        "- ",
        "\t",
        ":",
        "\x00",
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_mutated_recipe_is_read_or_refused_but_never_a_traceback(data):
    lines = recipe.built_in()["tiny_rlcd_helpful"].read_text().splitlines()
    lines = [line for line in lines if not line.startswith("#")]
    for _ in range(data.draw(st.integers(1, 4))):
        i = data.draw(st.integers(0, len(lines) - 1))
        action = data.draw(st.sampled_from(["drop", "double", "value", "key", "cut", "junk", "indent"]))
        line = lines[i]
        if action == "drop" and len(lines) > 1:
            del lines[i]
        elif action == "double":
            lines.insert(i, line)
        elif action == "value" and ":" in line:
            lines[i] = line[: line.rfind(":") + 1] + " " + data.draw(JUNK)
        elif action == "key":
            lines[i] = line.replace("e", "", 1)
        elif action == "cut":
            lines[i] = line[: len(line) // 2]
        elif action == "junk":
            at = data.draw(st.integers(0, len(line)))
            lines[i] = line[:at] + data.draw(JUNK) + line[at:]
        else:
            lines[i] = "  " + line
    override = data.draw(
        st.sampled_from(["", "ppo.steps=3", "ppo.lora.r.x=3", "base.model=[1]", "a=b", "=", "seed={", "ppo.=1", "base..x=1"])
    )
    refused = None
    try:
        plan(recipe.loads("\n".join(lines), [override] if override else []))
    except LiteError as e:
        refused = e
    assert refused is None or (refused.exit_code == 2 and str(refused))


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ("[prompts, score]", "score): scores candidates, and reads none; put `- respond` before it"),
        ("[prompts, contrast, {score: {what: pairs}}]", "name the stage that gives them: `from: {pairs: contrast}`"),
        (
            "[prompts, {evaluate: {judges: [oracle, {kind: base, ordr: both}]}}]",
            "judges[1].ordr (evaluate): no such key; did you mean 'order'?",
        ),
        ("[prompts, {evaluate: {judges: [endpoint]}}]", "`kind: endpoint` and `endpoint: {base_url: ..., model: ...}` go together"),
        (
            "[prompts, {evaluate: {judges: [{kind: length, versus: [bas]}]}}]",
            "judges[0].versus (evaluate): no model 'bas' here; did you mean 'base'?",
        ),
    ],
)
def test_judges_and_scorers_are_checked_before_anything_runs(stages, said):
    with pytest.raises(RecipeError, match=re.escape(said)):
        recipe.loads(f"{{task: helpful, stages: {stages}}}")
