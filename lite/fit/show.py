"""The estimate of a plan as text and as JSON."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from lite import tables
from lite.fit import bases, cards, sizes, turn
from lite.fit.demand import MEAN_RESPONSE, Moment
from lite.fit.estimate import StageFit
from lite.fit.words import COLUMNS, ROUND, columns, gib, gib_number, said_once, span, stands_in, whose
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
    rows = once(fits)
    known = [row for row in rows if not row.fit.unknown]
    reasons = dict.fromkeys(fit.unknown for fit in fits if fit.unknown)
    parts = [
        _moments(known) if any(row.fit.moments for row in known) else "",
        _stages(rows, fits, card_gib),
        "\n".join(f"no estimate: {reason}" for reason in reasons),
        _bases(recipe),
        f"disk: {_disk(fits)} for the run"
        + (f", {gib(fetched)} GiB to fetch {what}" if fetched else "")
        + (f", {gib(copied)} GiB for the 4-bit copy" if copied else ""),
        _faster(recipe, fits),
        _basis(card_gib, card),
    ]
    return "\n\n".join(part for part in parts if part)


class Row(NamedTuple):
    """A stage, or one that is the same in every round: ``r1-r3.dpo``."""

    id: str
    fit: StageFit
    rounds: int = 1

    def each(self, figure: str) -> str:
        """A figure of one round, said to be one."""
        return f"{figure} a round" if self.rounds > 1 and figure != "-" else figure


def once(fits: Sequence[StageFit]) -> list[Row]:
    """The stages with those once whose figures are the same in all rounds, where their first one stands."""
    by_tail: dict[str, list[StageFit]] = {}
    for fit in fits:
        if ROUND.match(fit.id):
            by_tail.setdefault(ROUND.sub("", fit.id), []).append(fit)
    rounds = {_round(fit) for alike in by_tail.values() for fit in alike}
    rows: list[Row] = []
    for fit in fits:
        tail = ROUND.sub("", fit.id)
        alike = by_tail.get(tail, []) if ROUND.match(fit.id) else []
        if len(rounds) < 2 or len(alike) != len(rounds) or any(replace(other, id=fit.id) != fit for other in alike):
            rows.append(Row(fit.id, fit))
        elif fit is alike[0]:
            rows.append(Row(f"{_round(fit)}-{_round(alike[-1])}.{tail}", fit, len(alike)))
    return rows


def _round(fit: StageFit) -> str:
    return fit.id.partition(".")[0]


def _bases(recipe: Recipe) -> str:
    """Which stage runs on which base, where there are several: they lie on the card one after the other."""
    found = bases.bases(recipe)
    lines = [f"{base.model} ({base.quantize}): {', '.join(ids)}" for base, ids in found.items()]
    return "bases, one on the card at a time:\n" + "\n".join(f"  {line}" for line in lines) if len(found) > 1 else ""


def _moments(found: Sequence[Row]) -> str:
    rows = []
    for id, fit, _ in found:
        for moment in fit.moments:
            rows.append((id, moment.name, *_figures(moment), "<- peak" if moment is fit.height else ""))
        if fit.otherwise:
            rows.append((id, fit.otherwise.name, *_figures(fit.otherwise), ""))
    return tables.text(("stage", "moment (GiB)", *COLUMNS, "sum", ""), rows)


def _figures(moment: Moment) -> list[str]:
    return [*map(gib, columns(moment).values()), gib(moment.bytes)]


def _stages(found: Sequence[Row], fits: Sequence[StageFit], card_gib: float) -> str:
    rows = []
    for row in found:
        fit = row.fit
        verdict = "not known" if fit.unknown else "-" if not fit.moments else "yes" if fit.fits else "NO"
        largest = " ".join(_largest(fit, knob) for knob in fit.largest)
        disk = "-" if fit.unknown else gib(fit.disk)
        rows.append((row.id, gib(fit.peak) if fit.moments else "-", verdict, largest or "-", row.each(span(fit.seconds)), row.each(disk)))
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
