import random
from collections import Counter

import pytest

from lite.micro.grammar import ACTIVITIES, FAMILIES, HARMS, PREMISE, Pattern, read_ask, read_point, read_sentence, sentences
from lite.micro.oracle import CRITERIA, grade_ask
from lite.micro.replies import MIXTURE, QUALITIES, reply
from lite.micro.splits import SPLITS, draw_ask

DRAWS = 500


def graded(family, good, *, draws=DRAWS):
    rng = random.Random(f"{family}{good}")
    asks = [draw_ask(family, rng, split=rng.choice(SPLITS)) for _ in range(draws)]
    return [grade_ask(a, reply(a, rng, good, axis=rng.choice((None, 0, 1, 2)) if family == "outline" else None)) for a in asks]


def test_a_pattern_reads_back_what_it_wrote():
    pattern = Pattern("rant", "I hate my {p}. My {p} is {f}.", p=("boss", "coach"), f=("mean", "loud"))
    assert pattern.match(pattern.fill(p="coach", f="mean")) == {"p": "coach", "f": "mean"}
    assert pattern.match("I hate my boss. My coach is mean.") is None
    assert pattern.match("I hate my aunt. My aunt is mean.") is None


@pytest.mark.parametrize("family", FAMILIES)
def test_every_ask_is_read_back_whole(family):
    rng = random.Random(1)
    for _ in range(DRAWS):
        ask = draw_ask(family, rng, split="train")
        assert read_ask(ask.text) == ask


@pytest.mark.parametrize("family", FAMILIES)
def test_every_good_reply_succeeds(family):
    grades = graded(family, "good")
    assert all(g.success for g in grades)
    assert min(g.score for g in grades) >= 4


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("good", ["medium", "bad"])
def test_no_other_reply_succeeds(family, good):
    assert not any(g.success for g in graded(family, good))


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_order_the_qualities_and_reach_both_ends(family):
    means = [sum(g.score for g in graded(family, good)) / DRAWS for good in QUALITIES]
    assert means[0] > means[1] + 1 > means[2]
    assert max(g.score for g in graded(family, "good")) == 5


@pytest.mark.parametrize("family", FAMILIES)
def test_every_criterion_can_be_met_and_missed(family):
    seen = Counter((name, met) for good in QUALITIES for g in graded(family, good) for name, met in g.criteria.items())
    assert set(seen) == {(name, met) for name in CRITERIA[family] for met in (True, False)}


def test_much_of_what_is_bad_in_outlines_is_unfaithful():
    """Contrast can teach faithfulness only if the negative side lacks it."""
    rng = random.Random(5)
    asks = [draw_ask("outline", rng, split="train") for _ in range(1000)]
    goods = rng.choices(QUALITIES, MIXTURE["negative"], k=1000)
    unfaithful = [
        not grade_ask(a, reply(a, rng, good, axis=rng.randrange(3))).criteria["faithful"] for a, good in zip(asks, goods, strict=True)
    ]
    assert 0.40 < sum(unfaithful) / 1000 < 0.75


def test_the_mixtures_are_distributions_and_shifted():
    assert all(abs(sum(p) - 1) < 1e-9 for p in MIXTURE.values())
    assert MIXTURE["negative"][0] < MIXTURE["plain"][0] < MIXTURE["positive"][0] < 1


def test_things_of_an_activity_are_two_and_no_two_requests_share_a_way_out():
    assert all(len(a.things) == 2 for a in ACTIVITIES.values())
    assert len({h.instead for h in HARMS.values()}) == len(HARMS) == len({h.victim for h in HARMS.values()})


def test_no_word_of_a_premise_belongs_to_two_slots():
    words = [w for choices in PREMISE.slots.values() for w in choices]
    assert len(words) == len(set(words))


def test_what_the_grammar_never_says_is_not_read():
    assert read_ask("How do I bake trouble?") is None
    assert read_sentence("Use the dragon for it.") is None
    assert read_point("The fox eats the crown.") is None


def test_an_unfinished_sentence_is_a_sentence_of_its_own():
    assert sentences("Sure! Use the oven for it. The right") == ["Sure!", "Use the oven for it.", "The right"]
    assert sentences("  ") == []
