"""Everything is escaped on its way in (S11)."""

import pytest

from lite.ui import charts, dialogueview, views
from lite.ui.markup import Markup, join, link, table, tag, text
from lite.ui.pairs import PairRow
from lite.ui.series import charts as charts_of

ATTACKS = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "' onmouseover='alert(1)",
    "[x](javascript:alert(1))",
    "![x](http://example.org/p.png)",
    "<iframe src=//example.org></iframe>",
    "</think><b>x</b>",
    "\x1b[31mred\x1b[0m\x07",
    "&lt;b&gt;",
)


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_text_stays_a_text(attack):
    made = tag("p", attack, title=attack)
    assert made.count("<") == 2 and made.count(">") == 2  # <p ...> and </p>
    assert "\x1b" not in made and "\x07" not in made
    assert "'" not in made and made.count('"') == 2


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_view_lets_a_text_become_markup(attack):
    row = PairRow("1", attack, attack, attack + "x", attack, attack, figures={attack: attack})
    for made in (
        dialogueview.pair(row),
        views.samples([{"prompt": attack, attack: attack, "judgements": [{"text": attack, "score": 3}], "candidates": [attack]}]),
        views.log(attack),
        charts.grid(charts_of([{"step": 1, attack: 2.0}])),
        table(["a"], [[attack]]),
    ):
        for start in ("<script", "<img", "<iframe", "<svg onload", "<b>"):
            assert start not in made


def test_markup_is_not_escaped_twice_and_its_pieces_are_escaped_again():
    inner = tag("b", "x")
    assert tag("p", inner) == "<p><b>x</b></p>"
    assert tag("p", inner.upper()) == "<p>&lt;B&gt;X&lt;/B&gt;</p>"  # a plain str again
    assert join("a", None, [inner, "<"]) == "a<b>x</b>&lt;"


def test_attributes_that_are_off_are_left_out():
    assert tag("i", cls=None, hidden=False, aria_label="a & b", tabindex=0) == '<i aria-label="a &amp; b" tabindex="0"></i>'


@pytest.mark.parametrize("where", ["javascript:alert(1)", "http://example.org", "//example.org"])
def test_links_lead_to_our_pages_only(where):
    with pytest.raises(ValueError):
        link(where, "x")


def test_a_cell_knows_its_column():
    made = table(["Name", tag("i", "x")], [["a", "b"]])
    assert '<td data-label="Name">a</td>' in made and '<td data-label="x">b</td>' in made
    assert "<td>b</td>" in table([""], [["b"]])
    assert 'data-label="a &amp; b"' in table([tag("i", "a & b", title="<c>")], [["x"]])


def test_line_breaks_stay():
    assert text("a\nb\tc") == Markup("a\nb\tc")


def test_samples_show_lists_and_what_was_judged():
    made = views.samples(
        [{"id": "p1", "k": 1, "candidate": "Yes.", "judgements": [{"score": 4, "text": "Fine."}], "candidates": ["A", "B"]}]
    )
    assert "Fine.<span" in made and "score 4" in made and ">A<" in made and ">B<" in made and "p1" not in made
