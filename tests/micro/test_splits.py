"""What is held out: a key is a wording with its words (helpful, harmless) or a premise (outline). Validation and test
keys occur neither in the corpus of the base nor anywhere in a training dialogue."""

import random
import re

import pytest

from lite.micro.corpus import document
from lite.micro.grammar import FAMILIES, PREMISE, read_ask
from lite.micro.splits import SPLITS, draw_ask, draw_dialogue, split_of, split_of_key

DRAWS = 3000


def humans(family, split, seed=0, **options):
    rng = random.Random(f"{family}{split}{seed}")
    dialogues = [draw_dialogue(family, rng, split=split, **options) for _ in range(DRAWS)]
    return dialogues, {t.text for d in dialogues for t in d if t.role == "human"}


@pytest.mark.parametrize("family", FAMILIES)
def test_no_held_out_text_or_key_occurs_anywhere_in_training_dialogues(family):
    _, in_training = humans(family, "train")
    held_out = {split: {d[-1].text for d in humans(family, split)[0]} for split in ("validation", "test")}
    assert min(map(len, held_out.values())) > 50
    assert not in_training & held_out["validation"]
    assert not in_training & held_out["test"]
    assert not held_out["validation"] & held_out["test"]
    keys = {name: {read_ask(t).key for t in texts} for name, texts in {"train": in_training, **held_out}.items()}
    assert not keys["train"] & (keys["validation"] | keys["test"])
    assert not keys["validation"] & keys["test"]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_turn_is_of_the_split_and_earlier_turns_are_of_train(family, split):
    dialogues, _ = humans(family, split, seed=1, multi_turn=0.5)
    assert {split_of(d[-1].text) for d in dialogues} == {split}
    assert {split_of(d[0].text) for d in dialogues if len(d) > 1} == {"train"}
    assert {tuple(t.role for t in d) for d in dialogues} == {("human",), ("human", "assistant", "human")}


def test_the_corpus_never_shows_a_held_out_ask():
    """Every human turn, question and premise in any kind of document is of the train split."""
    seen = dict.fromkeys(SPLITS, 0)
    for n in range(4000):
        text = document(17, n).text
        said = re.findall(r"(?:Human|Question): (.+)", text)
        for ask in said:
            seen[split_of(ask)] += 1
        for found in PREMISE.regex.finditer(text):
            seen[split_of_key("outline", tuple(found.groupdict().values()))] += 1
    assert seen["train"] > 4000
    assert seen["validation"] == seen["test"] == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_three_fifths_of_the_keys_are_for_training(family):
    keys = {split: {draw_ask(family, random.Random(i), split=split).key for i in range(6000)} for split in SPLITS}
    everything = sum(map(len, keys.values()))
    assert 0.5 < len(keys["train"]) / everything < 0.7
    assert all(0.12 < len(keys[s]) / everything < 0.30 for s in ("validation", "test"))


def test_openings_and_wordings_do_not_move_a_key():
    assert read_ask("How do I bake bread?").key == read_ask("Please help me. How do I bake bread? I need it today.").key
    premise = "A fox wants to find a crown in the cave."
    assert read_ask("I need an outline for a story. " + premise).key == read_ask("Please write an outline for a story. " + premise).key


def test_a_dialogue_depends_on_its_generator_alone():
    assert draw_dialogue("helpful", random.Random(3), split="test") == draw_dialogue("helpful", random.Random(3), split="test")


def test_an_unknown_family_is_named():
    with pytest.raises(ValueError, match="helpful, harmless, outline, not 'poetry'"):
        draw_dialogue("poetry", random.Random(0), split="train")
