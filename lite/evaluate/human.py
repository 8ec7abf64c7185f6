"""Blind pairs for people: a sheet to fill in, the key to it, and what the ratings come to.

Follows Yang et al. 2023, section 4: 200 pairs, rated from 1 (A much better) to 8 (B much better), no tie. A rating r gives r to
B and 9 - r to A, so the two scores of a pair sum to 9 and 4.5 is even. The sheet names no model; which response is which lies in
the key, a file of its own that raters are not given.
"""

import csv
import hashlib
import io
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from lite.chance import random_for, seed_for
from lite.errors import ArtifactError, RecipeError
from lite.evaluate.intervals import Estimate, mean_interval
from lite.evaluate.pairwise import Comparison, Letter, Verdict
from lite.runs.journal import CONTROL
from lite.runs.publish import write_json, write_text
from lite.text.pairing import is_identical

LOWEST, HIGHEST = 1, 8
SUM = LOWEST + HIGHEST
SHEET, KEY = "human_sheet.csv", "human_sheet.key.json"
FORMULA = tuple("=+-@＝＋－＠")
SCALE = f"{LOWEST} = A much better ... {HIGHEST} = B much better, whole numbers, no tie"


@dataclass(frozen=True, slots=True)
class Rating:
    """``first`` is the score of the first response, from 1 to 8; the second has the rest to 9."""

    id: str
    prompt: str
    first: int

    @property
    def verdict(self) -> Verdict:
        return "first" if self.first > SUM / 2 else "second"


@dataclass(frozen=True, slots=True)
class Ratings:
    first: str
    second: str
    ratings: tuple[Rating, ...]
    unrated: int


@dataclass(frozen=True, slots=True)
class Scores:
    """Mean scores out of 9; ``first`` with its 95% interval over prompts, ``second`` is the rest."""

    first: Estimate
    preferred: float
    """share of pairs in which the first was preferred at all"""
    rated: int

    @property
    def second(self) -> float:
        return SUM - self.first.mean


def different(pairs: Sequence[Comparison]) -> list[Comparison]:
    return [pair for pair in pairs if not is_identical(pair.first, pair.second)]


def choose(pairs: Sequence[Comparison], n: int, *, seed: int) -> list[Comparison]:
    """``n`` comparisons in random order: different prompts as long as there are any, and no two equal texts, which nobody can
    rate without a tie."""
    shuffled = sorted(different(pairs), key=lambda p: seed_for(seed, "sheet", p.id))
    of_prompt = {p.prompt: p.id for p in reversed(shuffled)}
    new_first = sorted(shuffled, key=lambda p: of_prompt[p.prompt] != p.id)
    return sorted(new_first[:n], key=lambda p: seed_for(seed, "row", p.id))


def write_sheet(
    folder: Path, pairs: Sequence[Comparison], *, first: str, second: str, question: str, seed: int, rows: int = 200
) -> tuple[Path, Path]:
    """Write the sheet and its key into a folder and return their paths. A sheet that is there stays: it may hold ratings."""
    sheet, key = folder / SHEET, folder / KEY
    there = [f"{path.name} is already here, perhaps with ratings: move it away first" for path in (sheet, key) if path.exists()]
    if there:
        raise RecipeError(str(folder), there)
    chosen = choose(pairs, rows, seed=seed)
    if not chosen:
        raise RecipeError(str(folder), ["there is no pair of different replies to rate"])
    letters: list[Letter] = ["A" if random_for(seed, "side", p.id).random() < 0.5 else "B" for p in chosen]
    cells = [[guard(text) for text in _shown(p, letter)] for p, letter in zip(chosen, letters, strict=True)]
    folder.mkdir(parents=True, exist_ok=True)
    write_json(
        key,
        {
            "first": first,
            "second": second,
            "rows": [
                {"row": i, "id": p.id, "prompt": _digest(p.prompt), "first_as": letter, "texts": _digest(*texts)}
                for i, (p, letter, texts) in enumerate(zip(chosen, letters, cells, strict=True), 1)
            ],
        },
    )
    write_text(
        sheet, _csv([("row", "prompt", "A", "B", f"rating: {question} {SCALE}"), *((i, *texts, "") for i, texts in enumerate(cells, 1))])
    )
    return sheet, key


def guard(text: str) -> str:
    """The text as a cell that no spreadsheet takes for a formula: an apostrophe goes before what looks like one."""
    text = CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n")).strip()
    return f"'{text}" if text.startswith(FORMULA) else text


def _shown(pair: Comparison, first_as: Letter) -> tuple[str, str, str]:
    return (pair.prompt, pair.first, pair.second) if first_as == "A" else (pair.prompt, pair.second, pair.first)


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    """With a byte-order mark, without which spreadsheets take UTF-8 for something else."""
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    return "\ufeff" + text.getvalue()


def _digest(*texts: str) -> str:
    """Of the words alone: spreadsheets write line breaks and spaces in their own way, and some take the apostrophe off again."""
    return hashlib.sha256("\0".join(" ".join(text.split()).lstrip("'") for text in texts).encode()).hexdigest()[:16]


def read_sheet(sheet: Path, key: Path) -> Ratings:
    """The ratings of a filled-in sheet; a RecipeError names every row that is wrong. Rows without a rating are counted."""
    known, rows = _key(key), _rows(sheet)
    problems: list[str] = []
    ratings: dict[int, Rating] = {}
    unrated: set[int] = set()
    for line, row in rows:
        number = int(row["row"]) if row["row"].strip().isdecimal() else None
        if number is None or number not in known["rows"]:
            problems.append(f"line {line}: there is no row {row['row']!r} in {key.name}")
        elif number in ratings or number in unrated:
            problems.append(f"row {number}: stands in the sheet twice")
        elif _digest(row["prompt"], row["A"], row["B"]) != known["rows"][number]["texts"]:
            problems.append(f"row {number}: the texts are not those that were written; was a column sorted by itself?")
        elif not row["rating"].strip():
            unrated.add(number)
        elif (rating := _whole(row["rating"])) is None:
            problems.append(f"row {number}: {row['rating']!r} is no whole number from {LOWEST} to {HIGHEST}")
        else:
            entry = known["rows"][number]
            ratings[number] = Rating(entry["id"], entry["prompt"], SUM - rating if entry["first_as"] == "A" else rating)
    if not ratings and not problems:
        problems.append("no row has a rating yet")
    if problems:
        raise RecipeError(str(sheet), problems)
    return Ratings(known["first"], known["second"], tuple(ratings[i] for i in sorted(ratings)), len(known["rows"]) - len(ratings))


def _key(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {**found, "rows": {row["row"]: row for row in found["rows"]}}
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise ArtifactError(f"{path}: not the key of a sheet ({e}); it is written beside the sheet and belongs to it") from e


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """The rows with their line numbers, whichever of comma, semicolon and tab the spreadsheet put between the cells."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as e:
        raise RecipeError(str(path), [f"cannot be read ({e.strerror}); name the sheet that was filled in"]) from e
    except UnicodeDecodeError as e:
        raise RecipeError(str(path), ["not UTF-8: save it as 'CSV UTF-8'"]) from e
    header = text.partition("\n")[0].replace('"', "")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=next((c for c in ",;\t" if header.startswith(f"row{c}")), ","))
    try:
        names = ["rating" if name.startswith("rating") else name.strip() for name in next(reader, [])]
        missing = [name for name in ("row", "prompt", "A", "B", "rating") if name not in names]
        if missing:
            raise RecipeError(str(path), [f"the column {name!r} is missing" for name in missing])
        return [(reader.line_num, dict(zip(names, (*cells, *[""] * len(names)), strict=False))) for cells in reader if any(cells)]
    except csv.Error as e:
        raise RecipeError(str(path), [f"line {reader.line_num}: {e}"]) from e


def rows(sheet: Path) -> list[dict[str, str]]:
    """The cells of every row of a sheet, whatever state its ratings are in."""
    return [row for _, row in _rows(sheet)]


def set_rating(sheet: Path, row: str, rating: str) -> None:
    """Write one rating into a sheet, or take it out with ``""``; the header stays as it is."""
    found = rows(sheet)
    header = next(csv.reader(io.StringIO(sheet.read_bytes().decode("utf-8-sig"), newline="")))
    cells = [[r["row"], r["prompt"], r["A"], r["B"], rating if r["row"] == row else r["rating"]] for r in found]
    write_text(sheet, _csv([header, *cells]))


def _whole(text: str) -> int | None:
    number = int(text) if text.strip().isdecimal() else 0
    return number if LOWEST <= number <= HIGHEST else None


def scores(found: Ratings) -> Scores:
    by_prompt: dict[str, list[int]] = defaultdict(list)
    for rating in found.ratings:
        by_prompt[rating.prompt].append(rating.first)
    first = mean_interval([fmean(values) for values in by_prompt.values()])
    return Scores(first, fmean(rating.verdict == "first" for rating in found.ratings), len(found.ratings))


def verdicts(found: Ratings) -> Mapping[str, Verdict]:
    """What people preferred by comparison id, to be held against a judge (``winrate.agreement``)."""
    return {rating.id: rating.verdict for rating in found.ratings}
