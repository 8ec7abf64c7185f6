"""Line charts as SVG: numbers in, markup out. Colours and type come from the page's stylesheet, so both themes fit."""

import math
from collections.abc import Sequence

from lite.ui.markup import Markup, div, join, span, tag, term
from lite.ui.series import Chart, Line

WIDTH, HEIGHT = 320, 150
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 8, 20
MOST_DOTS = 60


def grid(charts: Sequence[Chart]) -> Markup:
    return div("charts", [card(chart) for chart in charts])


def card(chart: Chart) -> Markup:
    last = [span(f"last c{i}", number(line.y[-1])) for i, line in enumerate(chart.lines)]
    keys = [span(f"key c{i}", line.name) for i, line in enumerate(chart.lines)] if len(chart.lines) > 1 else []
    head = div("chart-head", span("chart-title", term(chart.title, chart.about)), span("chart-last", last))
    return tag("figure", head, picture(chart), div("chart-keys", keys) if keys else None, cls="chart")


def picture(chart: Chart) -> Markup:
    xs = [x for line in chart.lines for x in line.x]
    ys = [y for line in chart.lines for y in line.y]
    first = chart.lines[0]
    if chart.band:
        ys += [y + s * chart.band[x] for x, y in zip(first.x, first.y, strict=True) if x in chart.band for s in (-1, 1)]
    low, high, ticks = scale(min(ys), max(ys))
    left, right = min(xs), max(xs)

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - left) / (right - left) if right > left else 0.5
        return LEFT + across * (WIDTH - LEFT - RIGHT), TOP + (high - y) / (high - low) * (HEIGHT - TOP - BOTTOM)

    rules: list[Markup] = []
    for tick in ticks:
        _, y = at(left, tick)
        rules.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=f"{y:.1f}", y2=f"{y:.1f}", cls="rule"))
        rules.append(tag("text", number(tick), x=LEFT - 5, y=f"{y + 3:.1f}", cls="tick end"))
    ends = [tag("text", number(left), x=LEFT, y=HEIGHT - 5, cls="tick")]
    if right > left:
        ends.append(tag("text", number(right), x=WIDTH - RIGHT, y=HEIGHT - 5, cls="tick end"))
    ends.append(tag("text", chart.axis, x=(LEFT + WIDTH - RIGHT) // 2, y=HEIGHT - 5, cls="tick mid"))
    band = _band(first, chart, at) if chart.band else None
    drawn = [_drawn(i, line, at, chart.axis) for i, line in enumerate(chart.lines)]
    label = f"{chart.title}: {', '.join(f'{line.name} {number(line.y[-1])}' for line in chart.lines)} at {chart.axis} {number(right)}"
    return tag("svg", join(*rules), join(*ends), band, join(*drawn), viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=label)


def _drawn(i: int, line: Line, at, axis: str) -> Markup:
    places = [at(x, y) for x, y in zip(line.x, line.y, strict=True)]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    stroke = tag("path", d=path, cls=f"stroke c{i}")
    if len(places) > MOST_DOTS:
        return stroke
    dots = [
        tag("circle", tag("title", f"{line.name} {number(y)} at {axis} {number(x)}"), cx=f"{px:.1f}", cy=f"{py:.1f}", r=3, cls=f"dot c{i}")
        for (px, py), x, y in zip(places, line.x, line.y, strict=True)
    ]
    return join(stroke, *dots)


def _band(line: Line, chart: Chart, at) -> Markup | None:
    assert chart.band
    inside = [(x, y, chart.band[x]) for x, y in zip(line.x, line.y, strict=True) if x in chart.band]
    if len(inside) < 2:
        return None
    edge = [at(x, y + s) for x, y, s in inside] + [at(x, y - s) for x, y, s in reversed(inside)]
    return tag("path", d="M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in edge) + "Z", cls="band")


def scale(low: float, high: float, wanted: int = 3) -> tuple[float, float, list[float]]:
    """Round bounds around the values, and the round numbers between them."""
    if high - low < 1e-12 * max(1.0, abs(high)):
        low, high = (0.0, 2 * high or 1.0) if low >= 0 else (2 * low, 0.0)
    step = 10 ** math.floor(math.log10((high - low) / wanted))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (m * step) <= wanted + 0.5)
    bottom, top = math.floor(low / step + 1e-3), math.ceil(high / step - 1e-3)
    return bottom * step, top * step, [i * step for i in range(bottom, top + 1)]


def number(value: float) -> str:
    """Short enough for an axis: 0.00031 -> 3.1e-4, 12345 -> 12.3k."""
    size = abs(value)
    if size < 1e-12:
        return "0"
    if size < 1e-3:
        mantissa, _, exponent = f"{value:.1e}".partition("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    if size >= 1e6:
        return f"{value / 1e6:.3g}M"
    if size >= 1e4:
        return f"{value / 1e3:.3g}k"
    return f"{value:.4g}" if size >= 1000 else f"{value:.3g}"
