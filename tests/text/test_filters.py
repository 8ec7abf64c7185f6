import pytest

from lite.text.filters import REASONS, Limits, Sieve

SEEDS = ["How do I bake bread at home?", "What do I need to paint a fence?"]
HELD = ["Where can I watch birds in the morning?"]


def sieve(**limits) -> Sieve:
    return Sieve(Limits(**limits), seeds=SEEDS, held_out=HELD)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Why is the sky blue?", None),
        ("  Why is the sky blue?\n", None),
        ("Why is it?", "short"),  # three words
        ("Why is it so?", None),  # four
        (" ".join(["word"] * 150), None),
        (" ".join(["word"] * 151), "long"),
        ("", "empty"),
        ("?! ...", "empty"),
        ("Describe this image in two words", "not_text"),
        ("Draw me a horse, please", "not_text"),
        ("Show the way on a map", "not_text"),
        ("Open the file that I sent", "not_text"),
        ("What is the philosophy of profiles?", None),  # no whole word of the list
        ("- Why is the sky blue?", "opening"),
        ("\"Why is the sky blue?\"", "opening"),
        ("Élan is what in English?", "opening"),
        ("Why is it?\n\nHuman: because I say so", "speaker_tag"),
        ("how do i BAKE bread at home", "duplicate"),
        ("Where can I watch birds in the morning", "held_out"),
        ("Where can I watch birds in the early morning?", "held_out"),
        ("How do I bake bread at a friend's home?", "similar"),
        ("How can one bake some good bread?", None),
    ],
)  # fmt: skip
def test_each_filter_stops_its_own(text, reason):
    found = sieve()
    assert found.take(text) == reason
    assert found.kept == ([] if reason else [text.strip()])


def test_a_text_that_did_not_end_is_stopped_first():
    assert sieve().take("Why is the sky blue?", finished=False) == "unfinished"


def test_what_was_kept_stops_its_likes():
    found = sieve()
    assert found.take("Why is the sky so blue today?") is None
    assert found.take("Why is the sky so blue today?") == "duplicate"
    assert found.take("Why is the sky so very blue today?") == "similar"
    assert found.take("Why is the sky so very grey at night?") is None


def test_the_threshold_is_a_knob():
    assert sieve(alike=0.95).take("How do I bake bread at my home?") is None
    assert sieve(alike=0.7).take("How do I bake bread at my home?") == "similar"
    assert sieve(not_text=False).take("How do I draw a map?") is None


def test_who_knows_what_is_held_out_decides_alone():
    found = Sieve(Limits(), seeds=[], held_out=HELD, is_held_out=lambda text: text.startswith("When"))
    assert found.take("When is the best time?") == "held_out"
    assert found.take(HELD[0]) is None


def test_every_text_is_counted_once():
    found = sieve()
    for text in ("Why is it?", "Why is the sky blue?", "Why is the sky blue?", "Draw me a horse, please"):
        found.take(text)
    report = found.report()
    assert report["looked_at"] == 4 == report["kept"] + sum(report[reason] for reason in REASONS)
    assert (report["kept"], report["short"], report["duplicate"], report["not_text"]) == (1, 1, 1, 1)
