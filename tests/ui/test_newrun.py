"""What the New run page tells before anything is started."""

import shlex
from pathlib import Path

import pytest

from lite import recipe
from lite.ui import fitview, newrun
from lite.ui.newrun import Choice, Preview


def look(fakes, text: str, **given) -> Preview:
    choice = Choice(text, "small", given.pop("base", "tiny"), given.pop("values", {}), **given)
    return newrun.preview(choice, runs=fakes.folder, roots=[Path.cwd(), fakes.folder], card_gib=None)


def test_every_built_in_recipe_has_a_card():
    cards = newrun.recipe_cards()
    assert {card.name for card in cards} == set(recipe.built_in())
    assert all(card.title and card.about and card.needs for card in cards)
    assert cards[0].name == "tiny_rlcd_helpful"
    assert all(len(card.title) <= newrun.LONGEST_TITLE for card in cards)


def test_only_what_differs_becomes_an_override(fakes, small_recipe):
    values = {"ppo.steps": 2, "ppo.kl_coef": 0.05, "prompts.train": 9, "dpo.beta": 0.1}
    found = look(fakes, small_recipe, values=values, seed=18, base="Qwen/Qwen2.5-0.5B")
    assert found.overrides == ("base.model=Qwen/Qwen2.5-0.5B", "prompts.train=9", "ppo.kl_coef=0.05", "seed=18")
    assert found.recipe and found.recipe.stages[3].spec.model_dump()["kl_coef"] == 0.05


def test_overrides_address_a_stage_by_its_id(fakes, small_recipe):
    found = look(fakes, small_recipe.replace("ppo: {", "ppo: {as: long, "), values={"ppo.steps": 7})
    assert found.overrides == ("long.steps=7",)


def test_the_command_line_gives_the_same_recipe():
    name = "tiny_rlcd_helpful"
    text = recipe.built_in()[name].read_text(encoding="utf-8")
    words = shlex.split(newrun.command(Choice(text, name, "tiny", {}, label="a b"), ["seed=3"], None))
    assert words == ["lite", "run", f"recipes/{name}.yaml", "seed=3", "--name", "a b"]
    assert "recipes/" not in newrun.command(Choice(text + "#", name, "tiny", {}), [], None)


def test_mistakes_are_told_with_their_place_and_nothing_can_start(fakes, small_recipe):
    found = look(fakes, small_recipe.replace("steps: 2", "stepps: 2, kl_coef: -1"))
    assert len(found.problems) == 2 and "did you mean 'steps'" in found.problems[1] and not found.command
    shown = fitview.preflight(found)
    assert "stepps (ppo)" in shown and "Ready" not in shown


def test_stages_that_are_done_are_told(fakes, small_recipe):
    old = fakes.go().run
    found = look(fakes, small_recipe, values={"ppo.steps": 3})
    assert found.cached == ["prompts", "contrast", "reward"]
    assert f"--from-run {old.name}" in found.command
    assert look(fakes, small_recipe, take_over=False).cached == []


def test_a_base_that_is_too_large_is_refused_with_ways_out(fakes):
    text = recipe.built_in()["rlcd_helpful"].read_text(encoding="utf-8")
    choice = Choice(text, "rlcd_helpful", "Qwen/Qwen2.5-72B", {})
    found = newrun.preview(choice, runs=fakes.folder, roots=[Path.cwd(), fakes.folder], card_gib=8)
    assert any("turn one of these" in refusal for refusal in found.refusals)
    assert "too much" in fitview.preflight(found)


def test_a_gated_base_is_told_of(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecret")
    told = newrun.gate("meta-llama/Llama-3.1-8B")
    assert told and "accept its licence" in told and "secret" not in told
    assert newrun.gate("Qwen/Qwen2.5-7B") is None


def test_a_large_base_is_refused_where_there_is_no_card(fakes, small_recipe, monkeypatch):
    """What the command line would refuse, told before Start."""
    monkeypatch.setattr(newrun.gpus, "any_gpu", lambda: False)
    assert any("no GPU here" in refusal for refusal in look(fakes, small_recipe, base="huggyllama/llama-7b").refusals)
    assert look(fakes, small_recipe).refusals == ()
    monkeypatch.setattr(newrun.gpus, "any_gpu", lambda: True)
    assert look(fakes, small_recipe, base="huggyllama/llama-7b").refusals == ()


def test_a_sweep_is_told_and_a_place_that_is_given_is_not_swept(fakes, small_recipe):
    text = small_recipe + "sweep: {task: [helpful, harmless], seed: [17, 18]}\n"
    found = look(fakes, text)
    assert [one[:2] for one in found.wanted] == [(f'task="{t}"', f"seed={s}") for t in ("helpful", "harmless") for s in (17, 18)]
    assert "4, side by side" in fitview.preflight(found) and "task=harmless seed=18" in fitview.preflight(found)
    one_seed = look(fakes, text, seed=19)
    assert one_seed.wanted == (('task="helpful"', "seed=19"), ('task="harmless"', "seed=19"))
    assert look(fakes, small_recipe).wanted == ((),) and "side by side" not in fitview.preflight(look(fakes, small_recipe))


def test_a_sweep_is_judged_by_all_its_runs(fakes):
    """The last one does not fit; the times and the files of both are added up."""
    text = recipe.built_in()["rlcd_helpful"].read_text(encoding="utf-8")
    models = ("meta-llama/Llama-3.2-1B", "Qwen/Qwen2.5-72B")

    def seen(text: str, card: float, base: str = "") -> Preview:
        return newrun.preview(Choice(text, "mine", base, {}), runs=fakes.folder, roots=[Path.cwd(), fakes.folder], card_gib=card)

    swept, (small, large) = text + f"sweep: {{base.model: [{', '.join(models)}]}}\n", [seen(text, 24, base=model) for model in models]
    found, page = seen(swept, 24), fitview.preflight(seen(swept, 24))
    assert found.refusals[0].startswith("base.model=Qwen/Qwen2.5-72B: mine does not fit")
    assert found.fits == large.fits and "of base.model=Qwen/Qwen2.5-72B, which needs most" in page
    assert found.seconds == pytest.approx([a + b for a, b in zip(small.seconds, large.seconds, strict=True)])
    assert found.disk == pytest.approx(small.disk + large.disk, abs=2) and found.fetched == small.fetched + large.fetched > 0
    assert "all runs together" in page and "for the bases" in page and "Llama-3.2-1B is gated" in page
    assert not any("does not fit" in refusal for refusal in seen(swept, 141).refusals)


def test_a_sweep_that_has_a_mistake_in_one_of_its_runs_cannot_start(fakes, small_recipe):
    found = look(fakes, small_recipe + "sweep: {task: [helpful, hepful]}\n")
    assert found.problems and "hepful" in found.problems[0]


@pytest.mark.parametrize("value", ["/etc", "~/x", "../x"])
def test_a_base_outside_is_refused(fakes, small_recipe, value):
    assert "outside the folders" in look(fakes, small_recipe, base=value).problems[0]
