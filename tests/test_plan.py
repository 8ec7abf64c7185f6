"""Fingerprints: exactly what can change a result changes them, and the plan says what it was."""

import json
from pathlib import Path

import pytest

from lite import plan as planning
from lite import recipe, tasks
from lite.errors import RecipeError
from lite.knobs import BaseSpec
from lite.plan import compare, plan
from lite.runs.layout import StageFolder
from lite.runs.read import StageRecord


@pytest.fixture
def nodes(small_recipe):
    return lambda *overrides: plan(recipe.loads(small_recipe, overrides))


def changed(before, after) -> list[str]:
    return [a.id for b, a in zip(before, after, strict=True) if a.fingerprint != b.fingerprint]


def record(node, folder: Path, *, done: bool = True) -> StageRecord:
    if done:
        (folder / node.id / "out").mkdir(parents=True)
    facts = json.loads(json.dumps({"id": node.id, "fingerprint": node.fingerprint, "identity": dict(node.identity)}))
    return StageRecord(StageFolder(folder / node.id), facts)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed=18", ["prompts", "contrast", "reward", "ppo", "evaluate"]),
        ("task=harmless", ["prompts", "contrast", "reward", "ppo", "evaluate"]),
        ("base.quantize=none", ["contrast", "reward", "ppo", "evaluate"]),
        ("base.dtype=float32", ["contrast", "reward", "ppo", "evaluate"]),
        ("contrast.attempts=1", ["contrast", "reward", "ppo", "evaluate"]),
        ("reward.lora.r=4", ["reward", "ppo", "evaluate"]),
        ("ppo.kl_coef=0.5", ["ppo", "evaluate"]),
        ("evaluate.draws=1", ["evaluate"]),
        ("ppo.kl_coef=0.004", []),
        ("ppo.micro_tokens=128", []),
        ("ppo.checkpointing=true", []),
        ("contrast.shared_prefix=false", []),
        ("contrast.base.quantize=none", ["contrast", "reward", "ppo", "evaluate"]),
        ("contrast.base.model=tiny", []),
    ],
)
def test_a_change_reaches_exactly_what_hangs_on_it(nodes, override, expected):
    assert changed(nodes(), nodes(override)) == expected


def test_a_base_counts_once_whoever_names_it(nodes):
    """The stage that has its own base hangs on that one alone, and on it as if the recipe had named it."""
    own = nodes("contrast.base.model=Qwen/Qwen2.5-7B")
    assert changed(own, nodes("contrast.base.model=Qwen/Qwen2.5-7B", "base.revision=v2", "base.model=Qwen/Qwen2.5-3B")) == [
        "reward",
        "ppo",
        "evaluate",
    ]
    assert own[1].fingerprint == nodes("base.model=Qwen/Qwen2.5-7B")[1].fingerprint
    assert "base" not in own[1].identity["spec"]


def test_the_id_belongs_to_the_identity_because_seeds_are_drawn_under_it(small_recipe):
    renamed = plan(recipe.loads(small_recipe.replace("  - reward\n", "  - reward: {as: judge_model}\n")))
    assert [b.id for a, b in zip(plan(recipe.loads(small_recipe)), renamed, strict=True) if a.fingerprint != b.fingerprint] == [
        "judge_model",
        "ppo",
        "evaluate",
    ]


def test_a_new_version_of_a_stage_counts(nodes, monkeypatch):
    before = nodes()
    from dataclasses import replace

    contracts = dict(planning.CONTRACTS)
    contracts["reward"] = replace(contracts["reward"], version=contracts["reward"].version + 1)
    monkeypatch.setattr("lite.recipe.CONTRACTS", contracts)
    assert changed(before, nodes()) == ["reward", "ppo", "evaluate"]


def test_a_folder_as_base_is_known_by_its_files_not_by_its_place(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}" if name != "c" else '{"hidden_size": 2}')
        (tmp_path / name / "model.safetensors").write_bytes(b"1234")
    a, b, c = (planning.base_identity(BaseSpec.model_validate({"model": str(tmp_path / name)})) for name in "abc")
    assert a == b
    assert a != c
    (tmp_path / "a" / "model.safetensors").touch()
    assert planning.base_identity(BaseSpec.model_validate({"model": str(tmp_path / "a")})) == b


def test_a_hub_id_is_known_by_its_revision():
    one, two = (planning.base_identity(BaseSpec.model_validate({"model": "Qwen/Qwen2.5-7B", "revision": r})) for r in (None, "abc"))
    assert one["weights"] == "Qwen/Qwen2.5-7B@main"
    assert two["weights"] == "Qwen/Qwen2.5-7B@abc"


def test_a_row_file_counts_by_its_content(tmp_path, nodes):
    file = tmp_path / "rows.jsonl"
    file.write_text("{}\n")
    before = nodes(f"prompts.source={file}")
    file.write_text("{}\n{}\n")
    assert changed(before, nodes(f"prompts.source={file}"))[0] == "prompts"


def test_a_task_file_counts_by_what_it_says_to_the_model(tmp_path):
    text = (Path(tasks.__file__).parent / "helpful.yaml").read_text()
    (tmp_path / "a.yaml").write_text("# a comment\n" + text)
    (tmp_path / "b.yaml").write_text(text.replace("making no effort to help", "making little effort to help"))
    assert planning.task_identity(str(tmp_path / "a.yaml")) == planning.task_identity("helpful")
    assert planning.task_identity(str(tmp_path / "b.yaml")) != planning.task_identity("helpful")


def test_a_task_of_ones_own_is_not_asked_of_the_embedded_world(tmp_path, small_recipe):
    file = tmp_path / "polite.yaml"
    phrase = "{positive: a polite reply, negative: a rude reply, principle: 'Which is more polite?'}"
    file.write_text(f"{{name: polite, about: manners, phrases: [{phrase}], question: 'Which is more polite?'}}", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"prompts.source=FILE"):
        plan(recipe.loads(small_recipe, [f"task={file}"]))
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "How do I bake bread?"}\n', encoding="utf-8")
    assert plan(recipe.loads(small_recipe, [f"task={file}", f"prompts.source={rows}"]))


def test_what_is_done_is_cached_and_the_rest_says_why(nodes, tmp_path):
    records = [record(node, tmp_path) for node in nodes()[:4]]
    statuses = {s.node.id: s for s in compare(nodes("ppo.kl_coef=0.002", "ppo.lora.r=4"), records)}
    assert [s.state for s in statuses.values()] == ["cached", "cached", "cached", "run", "run"]
    assert statuses["contrast"].record is records[1]
    assert statuses["ppo"].why == "ppo.lora.r changed 16 -> 4; ppo.kl_coef changed 0.004 -> 0.002"
    assert statuses["evaluate"].why == "never run"


@pytest.mark.parametrize(
    ("override", "stage", "why"),
    [
        ("seed=18", "prompts", "seed changed 17 -> 18"),
        ("task=harmless", "prompts", "the task changed"),
        ("base.quantize=none", "contrast", "base.quantize changed nf4 -> none"),
        ("base.model=Qwen/Qwen2.5-7B", "contrast", "-> Qwen/Qwen2.5-7B@main"),
        ("contrast.attempts=1", "reward", "input contrast changed"),
        ("contrast.base.model=Qwen/Qwen2.5-7B", "contrast", "contrast.base.weights changed"),
    ],
)
def test_the_reason_names_what_changed(nodes, tmp_path, override, stage, why):
    records = [record(node, tmp_path) for node in nodes()]
    assert why in {s.node.id: s.why for s in compare(nodes(override), records)}[stage]


def test_an_unfinished_stage_is_not_cached(nodes, tmp_path):
    status = compare(nodes()[:1], [record(nodes()[0], tmp_path, done=False)])[0]
    assert (status.state, status.why) == ("run", "was not finished; begins anew")


def test_the_run_named_first_is_preferred(nodes, tmp_path):
    first, second = record(nodes()[0], tmp_path / "a"), record(nodes()[0], tmp_path / "b")
    assert compare(nodes()[:1], [first, second])[0].record is first


def test_templates_are_part_of_a_stages_identity_and_what_a_judge_costs_is_not(monkeypatch):
    from lite.templates import Template

    text = "{task: helpful, stages: [prompts, respond, score, {evaluate: {judges: [{kind: endpoint, endpoint: {base_url: http://a/v1, model: m}}]}}]}"
    before = plan(recipe.loads(text))
    assert changed(before, plan(recipe.loads(text.replace("model: m", "model: m, timeout: 3.0, price_prompt: 2.0")))) == []
    assert changed(before, plan(recipe.loads(text.replace("model: m", "model: other")))) == ["evaluate"]
    load = planning.templates.load
    monkeypatch.setattr(planning.templates, "load", lambda name: Template(name, "new") if name == "choice" else load(name))
    after = plan(recipe.loads(text))
    assert changed(before, after) == ["score", "evaluate"]
