"""Labelled pairs as a stage: the oracle's in the embedded world, people's from files, and a share of them among others."""

import json

import pytest

from lite import recipe
from lite.artifacts import Pairs
from lite.errors import ArtifactError, RecipeError
from lite.knobs.writing import MixSpec, PreferencesSpec, PromptsSpec
from lite.micro.world import grade
from lite.records import Pair, write_rows
from lite.stages.mix import mix
from lite.stages.preferences import preferences
from lite.stages.prompts import prompts
from lite.tasks import load as task


def written(path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def asked(make_bench, folder, name: str = "helpful", source: str = "micro"):
    return prompts(PromptsSpec(source=source, train=60, dev=5, test=10), out=folder("asked"), bench=make_bench("prompts", task=name))


@pytest.mark.parametrize("name", ["helpful", "harmless", "outline"])
def test_the_oracles_label_is_its_grade_and_ties_are_dropped(make_bench, folder, name):
    given = asked(make_bench, folder, name)
    found = preferences(PreferencesSpec(pairs=60), prompts=given, out=folder("out"), bench=make_bench("preferences", task=name))
    by_id = {row.id: row for row in given.rows("train")}
    lead = task(name).lead
    for pair in found.rows():
        assert pair.prompt.endswith(f"\n\nAssistant: {lead}" if lead else "\n\nAssistant:")
        better, worse = (grade(by_id[pair.id].turns, text.strip()).score for text in (pair.chosen, pair.rejected))
        assert better > worse
        assert lead == "" or lead not in pair.chosen
        assert pair.chosen.startswith(" " if not lead else "\n")
    report = found.report()
    assert report["pairs"] + report["dropped"]["tie"] == 60
    assert report["pairs"] >= 20


def test_more_pairs_leave_the_first_ones_as_they_were(make_bench, folder):
    given = asked(make_bench, folder)
    few, many = (
        preferences(PreferencesSpec(pairs=n), prompts=given, out=folder("out"), bench=make_bench("preferences")).rows() for n in (20, 60)
    )
    assert many[: len(few)] == few


def people(n: int) -> list[dict]:
    return [{"prompt": f"What is {i}?", "chosen": f"It is {i}.", "rejected": "Go away."} for i in range(n)]


def test_pairs_of_a_file_without_held_out_dialogues_doubles_and_ties(make_bench, folder, tmp_path):
    source = written(tmp_path / "asked.jsonl", [{"prompt": f"What is {i}?"} for i in range(75)])
    given = asked(make_bench, folder, source=source)
    rows = [*people(75), people(75)[0], {"prompt": "Why?", "chosen": "So.", "rejected": "So."}]
    spec = PreferencesSpec(source=written(tmp_path / "pairs.jsonl", rows), pairs=60)
    found = preferences(spec, prompts=given, out=folder("out"), bench=make_bench("preferences"))
    held_out = {row.turns[-1].text for split in ("dev", "test") for row in given.rows(split)}
    said = {pair.prompt.split("Human: ")[1].split("\n")[0] for pair in found.rows()}
    assert len(found.rows()) == len(said) == 60
    assert not said & held_out
    dropped = found.report()["dropped"]
    assert dropped["identical"] == 1
    assert dropped["in_held_out"] + dropped.get("duplicate", 0) == 16  # the double is of a held-out dialogue or of another


def test_mistakes_in_a_file_are_told_with_their_rows(make_bench, folder, tmp_path):
    given = asked(make_bench, folder)
    source = written(tmp_path / "pairs.jsonl", [*people(3), {"prompt": "Why?", "chosen": "So."}, {"chosen": 1, "rejected": "x"}])
    with pytest.raises(RecipeError, match=r"(?s)2 problem.*line 4: the columns.*line 5: chosen: a text is needed"):
        preferences(PreferencesSpec(source=source, pairs=2), prompts=given, out=folder("out"), bench=make_bench("preferences"))
    few = written(tmp_path / "few.jsonl", people(3))
    with pytest.raises(RecipeError, match=r"3 usable pairs, but preferences.pairs asks for 9"):
        preferences(PreferencesSpec(source=few, pairs=9), prompts=given, out=folder("out"), bench=make_bench("preferences"))
    with pytest.raises(RecipeError, match=r"nowhere.jsonl: write `micro`"):
        preferences(PreferencesSpec(source="nowhere.jsonl"), prompts=given, out=folder("out"), bench=make_bench("preferences"))


def rows_of(folder, name: str, n: int) -> Pairs:
    out = folder(name)
    rows = [Pair(f"{name}{i}", f"p{i}", f" {name}", " x", 1.0, "", "", 0, 1, "turn", "turn") for i in range(n)]
    write_rows(out / "pairs.jsonl", rows)
    return Pairs(out)


def test_a_mix_has_its_share_its_size_and_no_dialogue_twice(make_bench, folder):
    made, human = rows_of(folder, "made", 50), rows_of(folder, "human", 20)
    found = mix(MixSpec(share=0.2), pairs=made, human=human, out=folder("out"), bench=make_bench("mix"))
    rows = found.rows()
    assert (len(rows), sum(row.id.startswith("human") for row in rows)) == (50, 10)
    assert len({row.prompt for row in rows}) == 50
    with pytest.raises(ArtifactError, match=r"20 pairs, but a share of 0.6 of 50 needs 30"):
        mix(MixSpec(share=0.6), pairs=made, human=human, out=folder("out"), bench=make_bench("mix"))


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ("[prompts, preferences, contrast, mix]", "name the stage whose pairs are mixed in"),
        ("[prompts, preferences, {mix: {from: {human: preferences}}}]", "would be mixed with itself"),
        ("[prompts, {preferences: {max_words: 9}}]", "max_words does not act"),
        ("[prompts, {preferences: {subset: helpful-base}}]", "belong to the source hh-rlhf"),
    ],
)
def test_a_recipe_that_cannot_work_is_refused_before_it_runs(stages, message):
    with pytest.raises(RecipeError, match=message):
        recipe.loads(f"base: {{model: tiny}}\ntask: helpful\nstages: {stages}\n", (), name="r")


def test_a_mix_feeds_what_follows():
    text = "base: {model: tiny}\ntask: helpful\nstages: [prompts, preferences, contrast, {mix: {from: {human: preferences}}}, reward]\n"
    stages = {stage.id: stage for stage in recipe.loads(text, (), name="r").stages}
    assert stages["mix"].inputs == {"pairs": "contrast", "human": "preferences"}
    assert stages["reward"].inputs == {"pairs": "mix"}
