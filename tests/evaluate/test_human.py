import csv
import io
import json
import math
import random
from statistics import fmean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lite.errors import ArtifactError, RecipeError
from lite.evaluate import human
from lite.evaluate.human import Rating, Ratings, choose, guard, read_sheet, scores, verdicts, write_sheet
from lite.evaluate.pairwise import Comparison
from lite.evaluate.winrate import agreement

QUESTION = "Which response helps the human more?"
PAIRS = [
    Comparison(f"p{i}/{d}", f"\n\nHuman: number {i}, please", f'good "{i}.{d}", first\n- and more', f"bad {i}.{d}; second") for i in range(300) for d in (0, 1)
]  # fmt: skip


def write(folder, pairs=PAIRS, **knobs):
    return write_sheet(folder, pairs, **({"first": "ppo-secret", "second": "base-secret", "question": QUESTION, "seed": 7} | knobs))


def cells(sheet):
    return list(csv.reader(io.StringIO(sheet.read_text("utf-8-sig"), newline="")))


def save(sheet, rows, *, delimiter=",", encoding="utf-8-sig", end="\r\n"):
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator=end).writerows(rows)
    sheet.write_bytes(text.getvalue().encode(encoding))


def fill(sheet, rate, **how):
    """Rate every row as a person does, who sees prompt, A and B only."""
    header, *rows = cells(sheet)
    save(sheet, [header, *([*row[:4], str(rate(*row[1:4]))] for row in rows)], **how)


def likes_good(prompt, a, b):
    return 2 if "good" in a else 7


def test_the_round_trip(tmp_path):
    sheet, key = write(tmp_path)
    fill(sheet, likes_good)
    found = read_sheet(sheet, key)
    assert (found.first, found.second, len(found.ratings), found.unrated) == ("ppo-secret", "base-secret", 200, 0)
    assert {r.first for r in found.ratings} == {7}
    assert {r.id for r in found.ratings} <= {p.id for p in PAIRS}
    result = scores(found)
    assert (result.first.mean, result.second, result.preferred, result.rated) == (7, 2, 1, 200)
    assert set(verdicts(found).values()) == {"first"}


def test_the_two_scores_of_every_rating_sum_to_nine_and_sides_do_not_matter(tmp_path):
    """A rating says how good B is, 9 less it how good A is; who A is, the key knows."""
    sheet, key = write(tmp_path, rows=40)
    given = {}

    def rate(prompt, a, b):
        r = random.Random(prompt).randint(1, 8)
        given[prompt] = (r, "good" in b)
        return r

    fill(sheet, rate)
    prompts = {p.id: guard(p.prompt) for p in PAIRS}
    for rating in read_sheet(sheet, key).ratings:
        r, first_is_b = given[prompts[rating.id]]
        assert rating.first == (r if first_is_b else 9 - r)
        assert rating.verdict == ("first" if rating.first >= 5 else "second")


def test_a_rater_who_cannot_tell_gives_both_the_same(tmp_path):
    """Always 1, A much better: by the drawn sides each model is A about half of the time."""
    sheet, key = write(tmp_path)
    fill(sheet, lambda *_: 1)
    result = scores(read_sheet(sheet, key))
    assert result.first.low < 4.5 < result.first.high
    assert 0.35 < result.preferred < 0.65


def test_the_sheet_is_blind(tmp_path):
    sheet, key = write(tmp_path)
    text = sheet.read_text("utf-8")
    assert text[0] == "\ufeff"  # spreadsheets take UTF-8 without it for something else
    assert "secret" not in text
    assert not [p for p in PAIRS if p.id in text]
    header, *rows = cells(sheet)
    assert header[:4] == ["row", "prompt", "A", "B"]
    assert header[4].startswith("rating") and QUESTION in header[4] and "1 = A much better" in header[4] and "no tie" in header[4]
    assert [row[0] for row in rows] == [str(i) for i in range(1, 201)]
    assert {row[4] for row in rows} == {""}
    assert 70 < sum("good" in row[2] for row in rows) < 130


def test_rows_are_chosen_by_seed_alone_and_prompts_differ_while_they_last():
    chosen = choose(PAIRS, 200, seed=7)
    assert len({p.prompt for p in chosen}) == 200
    assert choose(PAIRS[::-1], 200, seed=7) == chosen
    assert choose(PAIRS, 200, seed=8) != chosen
    assert [p.id for p in chosen] != sorted(p.id for p in chosen)
    every = choose(PAIRS, 450, seed=7)
    assert len({p.prompt for p in every}) == 300
    assert len({p.id for p in every}) == 450


def test_a_pair_without_a_difference_is_not_shown(tmp_path):
    same = [Comparison(f"s{i}", f"{i}", "equal", " equal\n") for i in range(50)]
    assert {p.id[0] for p in choose([*same, *PAIRS[:20]], 60, seed=1)} == {"p"}
    with pytest.raises(RecipeError, match="no pair"):
        write(tmp_path, same)
    assert list(tmp_path.iterdir()) == []


def test_a_sheet_that_is_there_is_never_written_over(tmp_path):
    sheet, key = write(tmp_path)
    fill(sheet, likes_good)
    rated = sheet.read_bytes()
    with pytest.raises(RecipeError, match=r"2 problem.*perhaps with ratings|perhaps with ratings"):
        write(tmp_path, seed=9)
    assert sheet.read_bytes() == rated


@pytest.mark.parametrize(
    "how",
    [
        {"delimiter": ";"}, {"delimiter": "\t"}, {"encoding": "utf-8"}, {"end": "\n"}, {"delimiter": ";", "end": "\n", "encoding": "utf-8"},
    ],
)  # fmt: skip
def test_however_a_spreadsheet_saves_it(tmp_path, how):
    sheet, key = write(tmp_path, rows=20)
    fill(sheet, likes_good, **how)
    assert {r.first for r in read_sheet(sheet, key).ratings} == {7}


def test_rows_may_be_sorted_and_columns_moved_or_added(tmp_path):
    sheet, key = write(tmp_path, rows=20)
    fill(sheet, likes_good)
    header, *rows = cells(sheet)
    moved = [[r[4], "my notes", r[3], r[0], r[1], r[2]] for r in [header, *rows[::-1]]]
    save(sheet, moved)
    assert {r.first for r in read_sheet(sheet, key).ratings} == {7}


def test_line_breaks_and_spaces_are_the_spreadsheets_own(tmp_path):
    sheet, key = write(tmp_path, rows=20)
    fill(sheet, likes_good)
    save(sheet, [[cell.replace("\n", "\r\n ") + " " for cell in row] for row in cells(sheet)])
    assert len(read_sheet(sheet, key).ratings) == 20


def test_all_that_is_wrong_is_said_at_once(tmp_path):
    sheet, key = write(tmp_path, rows=12)
    fill(sheet, lambda *_: 3)
    header, *rows = cells(sheet)
    for row, value in zip(rows, ["0", "9", "4.5", "-1", "five", "3 ", " ", "٣", "1e0"], strict=False):
        row[4] = value
    rows[9][0] = "77"
    rows[10][0] = "12"
    rows[11][2] = "another text"
    save(sheet, [header, *rows])
    with pytest.raises(RecipeError) as e:
        read_sheet(sheet, key)
    said = str(e.value)
    for i, value in enumerate(["0", "9", "4.5", "-1", "five"], 1):
        assert f"row {i}: '{value}' is no whole number from 1 to 8" in said
    assert "row 6" not in said and "row 7" not in said and "row 8" not in said  # 3 with a space, not rated, and an Arabic 3
    assert "row 9: '1e0'" in said
    assert "there is no row '77'" in said
    assert said.count("row 12: the texts are not those that were written") == 2
    assert len(e.value.problems) == 9
    assert e.value.exit_code == 2


def test_a_row_that_stands_twice(tmp_path):
    sheet, key = write(tmp_path, rows=3)
    fill(sheet, likes_good)
    save(sheet, [*cells(sheet), cells(sheet)[1]])
    with pytest.raises(RecipeError, match="row 1: stands in the sheet twice"):
        read_sheet(sheet, key)


def test_a_column_that_was_sorted_by_itself_is_noticed(tmp_path):
    """Else ratings would go to the wrong texts and nobody would know."""
    sheet, key = write(tmp_path, rows=20)
    fill(sheet, likes_good)
    header, *rows = cells(sheet)
    order = sorted(row[3] for row in rows)
    save(sheet, [header, *([*row[:3], b, row[4]] for row, b in zip(rows, order, strict=True))])
    with pytest.raises(RecipeError, match="sorted by itself"):
        read_sheet(sheet, key)


def test_rows_that_are_not_rated_are_counted_whether_empty_or_gone(tmp_path):
    sheet, key = write(tmp_path, rows=10)
    fill(sheet, likes_good)
    header, *rows = cells(sheet)
    rows[0][4] = rows[1][4] = ""
    save(sheet, [header, *rows[:8]])
    found = read_sheet(sheet, key)
    assert (len(found.ratings), found.unrated) == (6, 4)


def test_an_empty_sheet_is_no_result(tmp_path):
    sheet, key = write(tmp_path, rows=10)
    with pytest.raises(RecipeError, match="no row has a rating yet"):
        read_sheet(sheet, key)


def test_files_that_are_no_sheet_and_no_key(tmp_path):
    sheet, key = write(tmp_path, rows=5)
    fill(sheet, likes_good)
    other = tmp_path / "other"
    with pytest.raises(RecipeError, match="cannot be read"):
        read_sheet(other, key)
    for content in (None, "", "[]", "{}", '{"rows": [1]}', "no json"):
        if content is not None:
            other.write_text(content)
        with pytest.raises(ArtifactError, match="not the key"):
            read_sheet(sheet, other)
    save(sheet, cells(sheet), encoding="utf-16")
    with pytest.raises(RecipeError, match="CSV UTF-8"):
        read_sheet(sheet, key)
    sheet.write_text("row,prompt,A\n1,2,3\n")
    with pytest.raises(RecipeError, match=r"(?s)column 'B' is missing.*column 'rating' is missing"):
        read_sheet(sheet, key)
    sheet.write_text("")
    with pytest.raises(RecipeError, match="column 'row' is missing"):
        read_sheet(sheet, key)


def test_the_key_of_another_sheet_fits_no_row(tmp_path):
    sheet, _ = write(tmp_path / "a", rows=10)
    fill(sheet, likes_good)
    _, key = write(tmp_path / "b", rows=10, seed=8)
    with pytest.raises(RecipeError, match="10 problem"):
        read_sheet(sheet, key)


FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "  =1", "\t=1", "\r=1", "\n=cmd|' /C calc'!A0", "＝1", "\x00=1", "\x1b[0m=1", "=\n1"]


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_is_a_formula(text, tmp_path):
    assert guard(text).startswith("'")
    sheet, key = write(tmp_path, [Comparison("1", text, f"{text} one", f"{text} two")])
    for cell in cells(sheet)[1][1:4]:
        assert cell[0] == "'" and cell.strip() == cell
    fill(sheet, lambda p, a, b: 8 if "one" in b else 1)
    assert read_sheet(sheet, key).ratings[0].first == 8


def test_a_spreadsheet_may_take_the_apostrophe_off_again(tmp_path):
    sheet, key = write(tmp_path, [Comparison("1", "p", "- one", "- two")])
    fill(sheet, likes_good)
    save(sheet, [[cell.removeprefix("'") for cell in row] for row in cells(sheet)])
    assert len(read_sheet(sheet, key).ratings) == 1


@given(st.text())
def test_a_guarded_text_is_never_a_formula_and_otherwise_as_it_was(text):
    found = guard(text)
    assert found[:1] not in set("=+-@＝＋－＠\t\r\n")
    assert "\x00" not in found and "\x1b" not in found and "\r" not in found
    assert guard(found) == found


def test_ordinary_text_is_left_alone():
    assert guard(" a = b - c\n\n* x ") == "a = b - c\n\n* x"


def test_means_and_interval_by_hand():
    found = Ratings("a", "b", tuple(Rating(str(i), f"p{i}", s) for i, s in enumerate((8, 6, 5, 1))), 0)
    result = scores(found)
    assert result.first.mean == 5
    assert result.second == 4
    assert result.preferred == 0.75
    assert result.first.high - 5 == pytest.approx(1.96 * stdev((8, 6, 5, 1)) / math.sqrt(4), rel=1e-3)


def test_ratings_of_one_prompt_are_averaged_first():
    found = Ratings("a", "b", (Rating("1", "p", 8), Rating("2", "p", 6), Rating("3", "q", 1)), 0)
    assert scores(found).first.mean == fmean((7, 1))


def test_agreement_with_a_judge(tmp_path):
    sheet, key = write(tmp_path, rows=50)
    fill(sheet, likes_good)
    people = verdicts(read_sheet(sheet, key))
    judge = {p.id: "first" if i % 4 else "second" for i, p in enumerate(PAIRS)}
    found = agreement(people, judge)
    assert found.compared == 50
    assert found.accuracy.mean == fmean(judge[id] == "first" for id in people)


def test_a_key_says_what_the_sheet_does_not(tmp_path):
    _, key = write(tmp_path, rows=5)
    found = json.loads(key.read_text())
    assert (found["first"], found["second"]) == ("ppo-secret", "base-secret")
    assert {row["first_as"] for row in found["rows"]} <= {"A", "B"}
    assert (human.LOWEST, human.HIGHEST, human.SUM) == (1, 8, 9)
