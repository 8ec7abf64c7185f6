"""The preflight card: whether a choice fits, what it needs, and what would run."""

from lite.fit import cards, sizes
from lite.fit.show import Row, once
from lite.fit.words import span as hours
from lite.fit.words import whose
from lite.ui import newrun
from lite.ui.markup import Child, Markup, div, join, note, problems, span, tag, term
from lite.ui.newrun import Preview, gate
from lite.ui.words import gib, plural


def preflight(found: Preview) -> Markup:
    if found.problems:
        return problems(list(found.problems))
    assert found.recipe
    parts: list[Child] = []
    for refusal in found.refusals:
        parts.append(note("bad", tag("strong", "This machine would refuse it. "), tag("div", refusal, cls="pre")))
    if not found.refusals:
        parts.append(note("good", tag("strong", "Ready to start.")))
    parts += [note("warn", gated) for gated in map(gate, found.models) if gated]
    unknown = list(dict.fromkeys(fit.unknown for fits in found.each for fit in fits if fit.unknown))
    parts += [note("info", f"No estimate: {reason}") for reason in unknown]
    bars = [_bar(row, found.card) for row in once(found.fits) if row.fit.moments]
    if bars:
        whose = f"on {found.card:g} GiB" if found.card else "no graphics card here: in main memory"
        of = f", of {found.names[found.neediest]}, which needs most" if len(found.wanted) > 1 else ""
        parts += [
            tag(
                "h3",
                term("Memory", "The highest need of each stage, estimated from the base's shape; nothing was loaded."),
                span("dim", f" {whose}{of}"),
            ),
            div("fit", bars),
        ]
    parts.append(_facts(found))
    return div("card", *parts)


def _bar(row: Row, card: float | None) -> Markup:
    fit = row.fit
    usable = cards.usable(card) if card else max(fit.peak, 4 * sizes.GIB)
    over = bool(card) and fit.peak > usable
    height = fit.height.name if fit.height else ""
    width = min(100.0, 100 * fit.peak / usable)
    return div(
        "fit-row over" if over else "fit-row",
        span("strong", row.id),
        div("bar-track", tag("i", style=f"width:{max(width, 1.5):.1f}%"), title=f"highest while: {height}"),
        span("dim", f"{gib(fit.peak)}{' – too much' if over else ''}"),
    )


def _facts(found: Preview) -> Markup:
    cached = found.cached
    rows: list[tuple[Child, Child]] = []
    if len(found.wanted) > 1:
        rows.append(
            (
                term(
                    "Runs",
                    "The recipe is a sweep: one run for every combination of its values. `lite table` puts their results side by side.",
                ),
                _sweep(found),
            )
        )
    if found.card and found.seconds[1]:
        rows.append(
            (
                term("Time", "From the card's published figures at their limit, to a third of them."),
                f"{hours(found.seconds)} on one {whose(found.card)}{', all runs together' if len(found.wanted) > 1 else ''}",
            )
        )
    rows.append(("Disk", f"{gib(found.disk)} needed, {gib(found.disk_free)} free"))
    if found.fetched:
        rows.append(("Download", f"{gib(found.fetched)} for {'the base' if len(found.models) == 1 else 'the bases'}, once"))
    rows.append(("Will run", ", ".join(s.node.id for s in found.statuses if s.state == "run") or "nothing: all stages are done already"))
    if cached and found.old:
        rows.append(
            (
                term("Taken over", "Stages whose result would be the same are not run again."),
                f"{', '.join(cached)} ({plural(len(cached), 'stage')} of run {found.old.name[-6:]})",
            )
        )
    return tag("dl", [join(tag("dt", key), tag("dd", value)) for key, value in rows], cls="kv")


def _sweep(found: Preview) -> str:
    how = "one after the other" if newrun.this_card() else "side by side, each with its share of the cores"
    return f"{len(found.names)}, {how}: {', '.join(found.names)}"
