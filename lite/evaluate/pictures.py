"""Pictures of a report where they say it better than a table: success by model, its pairwise accuracy as a judge from round to round, and
how sure the labels of every set of pairs are.

Drawn with Pillow, which comes with gradio; without it there are tables alone. They are twice as large as they are shown: at the size
of a screen's pixels the font's widths are rounded to whole ones, and words run into each other.
"""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lite.evaluate.intervals import Z95
from lite.evaluate.rounds import figures_of

AVAILABLE = find_spec("PIL") is not None
WIDTH, ROW, LEFT, RIGHT, TOP, FONT = 1520, 60, 380, 140, 88, 26
INK, PALE, BAR, SPAN = "#222222", "#dddddd", "#4878a8", "#16324f"
FOLDER = "pictures"


def draw(report: Mapping[str, Any], out: Path) -> list[str]:
    """Write the pictures under ``out`` and return their paths from there; none without Pillow or without figures."""
    if not AVAILABLE:
        return []
    wanted = {
        "success.png": _success(report["models"]),
        "judges.png": _judges(report["diagnostics"].get("rounds", {})),
        "certainty.png": _certainty(report["diagnostics"].get("pair_sets", {})),
    }
    made = []
    for name, chart in wanted.items():
        if chart:
            (out / FOLDER).mkdir(exist_ok=True)
            chart.save(out / FOLDER / name)
            made.append(f"{FOLDER}/{name}")
    return made


def _success(models: Mapping[str, Any]) -> Any:
    """A bar per model from 0 to 1, with its interval."""
    rows = [(name, m["success"], m["success_interval"]) for name, m in models.items() if "success" in m]
    return _bars("success on held-out prompts (95%)", rows, most=1.0) if rows else None


def _judges(reports: Mapping[str, Any]) -> Any:
    """A bar per model that a round measured, oldest first: its pairwise accuracy, with its interval."""
    judges = {name: model["judge"] for name, model in figures_of(reports).items() if model["judge"]["pairwise"] is not None}
    rows = [(name, j["pairwise"], _interval(j["pairwise"], j["pairwise_error"])) for name, j in judges.items()]
    return _bars("pairwise accuracy as a judge, on held-out ranked responses (95%)", rows, most=1.0) if rows else None


def _interval(mean: float, error: float | None) -> tuple[float, float] | None:
    return None if error is None else (mean - Z95 * error, mean + Z95 * error)


def _certainty(sets: Mapping[str, Any]) -> Any:
    """A bar per set of pairs: mean distance of its labels from one half, and the same on ties of the oracle as a mark."""
    known = [(name, p["polarity"]["mean"], (p.get("labels") or {}).get("tied_polarity")) for name, p in sets.items() if p.get("polarity")]
    rows = [(name, mean, None if tied is None else (tied, tied)) for name, mean, tied in known]
    return _bars("certainty of the labels: mean distance from 1/2 (mark: where the oracle sees a tie)", rows, most=0.5) if rows else None


def _bars(title: str, rows: Sequence[tuple[str, float, Sequence[float] | None]], *, most: float) -> Any:
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.new("RGB", (WIDTH, TOP + ROW * len(rows) + 28), "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(FONT)

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * min(max(value / most, 0.0), 1.0)

    pen.text((24, 20), title, fill=INK, font=font)
    for i, (name, value, span) in enumerate(rows):
        y = TOP + ROW * i
        pen.text((24, y + 4), name[:26], fill=INK, font=font)
        pen.rectangle((LEFT, y, x(most), y + ROW - 20), outline=PALE, width=2)
        pen.rectangle((LEFT, y, x(value), y + ROW - 20), fill=BAR)
        if span:
            pen.line((x(span[0]), y + ROW // 3, x(span[1]), y + ROW // 3), fill=SPAN, width=6)
            for edge in span:
                pen.line((x(edge), y + 6, x(edge), y + ROW - 26), fill=SPAN, width=4)
        pen.text((x(most) + 16, y + 4), f"{value:.2f}", fill=INK, font=font)
    return picture
