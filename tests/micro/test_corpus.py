import math
import random
import re
from collections import Counter, defaultdict

import pytest

from lite import tasks, templates
from lite.micro import corpus
from lite.micro.corpus import CHOICE_SLOPE, SHARES, document, verdict
from lite.micro.grammar import FAMILIES, read_ask
from lite.micro.oracle import grade_ask
from lite.text.dialogue import STOP

DRAWS = 6000


@pytest.fixture(scope="module")
def docs():
    found = defaultdict(list)
    for n in range(DRAWS):
        doc = document(1, n)
        found[doc.kind].append(doc)
    return found


def test_every_kind_has_its_share(docs):
    assert sum(SHARES.values()) == pytest.approx(1)
    assert {kind: pytest.approx(len(d) / DRAWS, abs=0.03) for kind, d in docs.items()} == SHARES


def test_a_document_is_addressed_by_its_number():
    assert document(1, 7) == document(1, 7)
    assert document(1, 7) != document(2, 7)


@pytest.mark.parametrize("family", FAMILIES)
def test_nine_of_ten_dialogues_go_on_with_the_next_human_turn(docs, family):
    open_ = [d for d in docs[family] if not d.closed]
    assert len(open_) / len(docs[family]) == pytest.approx(0.9, abs=0.04)
    assert all(STOP in d.text[10:] for d in open_)
    assert 0.4 < sum(d.text.endswith(STOP) for d in open_) / len(open_) < 0.9


@pytest.mark.parametrize("family", FAMILIES)
def test_every_direction_of_the_task_occurs_and_both_orders_of_opposites(family):
    rng, seen, orders = random.Random(0), set(), set()
    sides = {getattr(p, side): side for p in tasks.load(family).phrases for side in ("positive", "negative")}
    for _ in range(4000):
        found = re.findall(r"Assistant \(([^)]*)\):", corpus._dialogue(family, rng).text)
        seen |= set(found)
        orders.add(tuple(sides[f] for f in found))
    assert seen == set(sides)
    assert orders >= {("positive", "negative"), ("negative", "positive"), ("positive",), ("negative",), ()}


def test_every_response_of_the_outline_family_begins_with_the_lead(docs):
    lead = tasks.load("outline").lead
    for doc in docs["outline"]:
        assert len(re.findall(r"Assistant[^:]*:", doc.text)) == len(re.findall(rf"Assistant[^:]*: {lead}\n", doc.text))


CHOICE = re.compile(r"turn\.(.*)\n\n([^\n]*)\n\n\(A\) (.*)\n\n\(B\) (.*)\n\nThe better response is \(([AB])$", re.S)


@pytest.fixture(scope="module")
def choices():
    rng, rows = random.Random(2), []
    for _ in range(4000):
        dialogue, principle, a, b, label = CHOICE.search(corpus._choice(rng).text).groups()
        ask = read_ask(dialogue.rsplit("Human: ", 1)[1])
        rows.append((ask.family, principle, grade_ask(ask, a).score - grade_ask(ask, b).score, label))
    return rows


@pytest.mark.parametrize("family", FAMILIES)
def test_the_choice_format_favours_no_place(choices, family):
    labels = Counter(label for f, _, _, label in choices if f == family)
    ties = Counter(label for f, _, gap, label in choices if f == family and gap == 0)
    firsts = Counter(gap > 0 for f, _, gap, _ in choices if f == family and gap)
    for counts, one in ((labels, "A"), (ties, "A"), (firsts, True)):
        total = sum(counts.values())
        assert total > 100
        assert abs(counts[one] / total - 0.5) < 2.5 * 0.5 / total**0.5


@pytest.mark.parametrize("family", FAMILIES)
def test_choice_labels_are_right_about_seven_times_in_ten(choices, family):
    right = [(gap > 0) == (label == "A") for f, _, gap, label in choices if f == family and gap]
    assert sum(right) / len(right) == pytest.approx(0.72, abs=0.06)


def test_a_wider_gap_makes_the_right_label_likelier(choices):
    share = {}
    for width in (1, 3):
        right = [(gap > 0) == (label == "A") for _, _, gap, label in choices if abs(gap) == width]
        assert sum(right) / len(right) == pytest.approx(1 / (1 + math.exp(-CHOICE_SLOPE * width)), abs=0.05)
        share[width] = sum(right) / len(right)
    assert share[1] < share[3]


def test_notes_are_honest_and_in_no_form_of_the_pipeline(docs):
    one, two = 0, 0
    for doc in docs["notes"]:
        assert "better response is" not in doc.text
        if found := re.search(r"\n\n\(A\) has (\d) points\. \(B\) has (\d) points\.", doc.text):
            said, a, b = re.search(r"Human: ([^\n]*)\n\n\(A\) (.*)\n\n\(B\) (.*)\n\n\(A\) has", doc.text, re.S).groups()
            assert [grade_ask(read_ask(said), text).score for text in (a, b)] == [int(points) for points in found.groups()]
            two += 1
        else:
            said, reply, marks = re.search(r"Human: ([^\n]*)\n\nAssistant:([^:]*(?::[^:]*)?)\n\nIt is: (.*)\.$", doc.text, re.S).groups()
            criteria = grade_ask(read_ask(said), reply.strip()).criteria
            assert marks == ", ".join(f"{name} {'yes' if met else 'no'}" for name, met in criteria.items())
            one += 1
    assert one / (one + two) == pytest.approx(0.5, abs=0.1)


def test_echoes_say_every_word_again(docs):
    lists = [found for d in docs["echo"] if (found := re.fullmatch(r"The words are: (.*)\. Again: (.*)\.", d.text))]
    assert len(lists) / len(docs["echo"]) == pytest.approx(0.5, abs=0.1)
    assert all(first == again for first, again in (found.groups() for found in lists))
    assert {len(found[1].split(", ")) for found in lists} == set(range(3, 11))


@pytest.mark.parametrize("family", FAMILIES)
def test_all_principles_of_the_family_are_asked(choices, family):
    assert {p for f, p, _, _ in choices if f == family} == {p.principle for p in tasks.load(family).phrases}


def test_reviews_follow_the_template_and_add_up(docs):
    form = templates.load("judge_micro")
    right = 0
    for doc in docs["review"]:
        question, response, review = re.search(r"Question: (.*)\n\nResponse: (.*)\n\nReview:(.*)", doc.text, re.S).groups()
        assert doc.text == form.render(question=question, response=response) + review
        score = int(re.search(r"\nScore: (\d)$", review)[1])
        assert score == review.count(" yes")
        right += review == verdict(grade_ask(read_ask(question), response).criteria)
    assert 0.35 < right / len(docs["review"]) < 0.70  # a poor judge: the careful third, and the others' lucky hits


def test_a_verdict_gives_the_reason_first_and_the_score_on_the_last_line():
    assert verdict({"relevant": True, "clear": False}) == " relevant yes, clear no.\nScore: 1"


def test_plain_text_tells_no_wrong_fact_and_no_unfaithful_story(docs):
    for doc in docs["facts"]:
        for activity, facts in re.findall(r"^How to ([^:]*): (.*)$", doc.text, re.M):
            ask = read_ask(f"How do I {activity}?")
            assert grade_ask(ask, facts).criteria["detailed"]
            assert grade_ask(ask, f"{facts} {_all_asked(activity)}").criteria["correct"]
    for doc in docs["story"]:
        premise, *tellings = doc.text.split("\n")
        ask = read_ask("I need an outline for a story. " + premise)
        for telling in tellings:
            points = re.findall(r"[^.]+\.", telling)
            assert grade_ask(ask, "".join(f"\n{n}. {p.strip()}" for n, p in enumerate(points, 1))).success


def _all_asked(activity):
    from lite.micro.grammar import ACTIVITIES

    truth = ACTIVITIES[activity]
    a, b = sorted(truth.things)
    return f"You need {a} and {b}. Use the {truth.tool} for it."
