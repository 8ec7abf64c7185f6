"""The estimate of a plan as text and as JSON."""

from collections.abc import Sequence
from typing import Any

from lite import tables
from lite.fit import bases, cards, sizes, turn
from lite.fit.demand import MEAN_RESPONSE, Moment
from lite.fit.estimate import StageFit
from lite.fit.words import COLUMNS, columns, gib, gib_number, said_once, span, stands_in, whose
from lite.recipe import Recipe

CLEARLY = 0.8
"""Share of a run's longest time, under which it is clearly shorter."""
LONG = 900
"""Seconds from which on a run is worth shortening."""


def text(recipe: Recipe, fits: Sequence[StageFit], card_gib: float) -> str:
    """Two tables, GiB moment by moment and what follows from it, and what the figures rest on."""
    card = cards.class_of(card_gib)
    fetched, copied = bases.download(recipe), bases.copies(recipe)
    what = "the base" if len(bases.bases(recipe)) == 1 else "the bases"
    known = [fit for fit in fits if not fit.unknown]
    reasons = dict.fromkeys(fit.unknown for fit in fits if fit.unknown)
    parts = [
        _moments(known) if any(fit.moments for fit in known) else "",
        _stages(fits, card_gib),
        "\n".join(f"no estimate: {reason}" for reason in reasons),
        _bases(recipe),
        f"disk: {_disk(fits)} for the run"
        + (f", {gib(fetched)} GiB to fetch {what}" if fetched else "")
        + (f", {gib(copied)} GiB for the 4-bit copy" if copied else ""),
        _faster(recipe, fits),
        _basis(card_gib, card),
    ]
    return "\n\n".join(part for part in parts if part)


def _bases(recipe: Recipe) -> str:
    """Which stage runs on which base, where there are several: they lie on the card one after the other."""
    found = bases.bases(recipe)
    lines = [f"{base.model} ({base.quantize}): {', '.join(ids)}" for base, ids in found.items()]
    return "bases, one on the card at a time:\n" + "\n".join(f"  {line}" for line in lines) if len(found) > 1 else ""


def _moments(fits: Sequence[StageFit]) -> str:
    rows = []
    for fit in fits:
        for moment in fit.moments:
            rows.append((fit.id, moment.name, *_row(moment), "<- peak" if moment is fit.height else ""))
        if fit.otherwise:
            rows.append((fit.id, fit.otherwise.name, *_row(fit.otherwise), ""))
    return tables.text(("stage", "moment (GiB)", *COLUMNS, "sum", ""), rows)


def _row(moment: Moment) -> list[str]:
    return [*map(gib, columns(moment).values()), gib(moment.bytes)]


def _stages(fits: Sequence[StageFit], card_gib: float) -> str:
    rows = []
    for fit in fits:
        verdict = "not known" if fit.unknown else "-" if not fit.moments else "yes" if fit.fits else "NO"
        largest = " ".join(_largest(fit, knob) for knob in fit.largest)
        disk = "-" if fit.unknown else gib(fit.disk)
        rows.append((fit.id, gib(fit.peak) if fit.moments else "-", verdict, largest or "-", span(fit.seconds), disk))
    known = not any(fit.unknown for fit in fits)
    peak, disk = max((fit.peak for fit in fits), default=0), sum(fit.disk for fit in fits)
    rows.append(
        ("all", gib(peak), "", "", span(turn.total(fit.seconds for fit in fits)), gib(disk))
        if known
        else ("all", "-", "not known", "", "-", "-")
    )
    return tables.text(("stage", "peak GiB", "fits", "largest that fit", f"time on one {whose(card_gib)}", "disk GiB"), rows)


def _largest(fit: StageFit, knob: str) -> str:
    value = fit.largest[knob]
    words = f"{knob}={value}" if value else f"{knob}: none"
    return f"{words} ({fit.checkpointed} with checkpointing, slower)" if knob == "micro_tokens" and fit.checkpointed else words


def _faster(recipe: Recipe, fits: Sequence[StageFit]) -> str:
    """What makes a run that fits clearly shorter, to be copied."""
    turned = [f"{fit.id}.{knob}={value}" for fit in fits if fit.faster for knob, value in fit.faster.rows.items()]
    now, then = turn.total(fit.seconds for fit in fits), turn.total(fit.faster.seconds if fit.faster else fit.seconds for fit in fits)
    worth = bool(turned) and now[1] >= LONG and then[1] <= CLEARLY * now[1]
    if not worth or not all(fit.fits and not fit.unknown for fit in fits):
        return ""
    return f"on this card these make it {span(then)} instead of {span(now)}; the results stay the same:\n  {said_once(recipe, turned)}"


def _disk(fits: Sequence[StageFit]) -> str:
    known = [fit.disk for fit in fits if not fit.unknown]
    if len(known) == len(fits):
        return f"{gib(sum(known))} GiB"
    return f"at least {gib(sum(known))} GiB" if sum(known) else "not known"


def _basis(card_gib: float, card: cards.Card) -> str:
    of = f"it stands in for {card_gib:g} GiB, " if stands_in(card_gib) else ""
    return (
        f"Estimated, not measured: {card_gib:g} GiB card, {cards.USABLE:.0%} of it usable, {turn.SLACK:.0%} slack on what comes and goes, "
        f"{gib(sizes.CONTEXT)} GiB for the CUDA context.\n"
        f"Time: from the maker's figures for the {card.name} ({of}{card.bandwidth / 1e9:.0f} GB/s, {card.flops / 1e12:.0f} TFLOP/s) at their limit, to "
        f"{cards.EFFICIENCY:.0%} of them with launch-bound decoding; responses of {MEAN_RESPONSE:.0%} of max_new_tokens on average."
    )


def to_json(recipe: Recipe, fits: Sequence[StageFit], card_gib: float) -> dict[str, Any]:
    card = cards.class_of(card_gib)
    return {
        "card_gib": card_gib,
        "usable_gib": gib_number(cards.usable(card_gib)),
        "time_on": card.name,
        "fits": None if any(fit.unknown for fit in fits) else all(fit.fits for fit in fits),
        "download_gib": gib_number(bases.download(recipe)),
        "copies_gib": gib_number(bases.copies(recipe)),
        "stages": [fit.to_json() for fit in fits],
    }
