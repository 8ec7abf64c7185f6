"""Dialogues and pairs as markup: turns under their speakers, two replies side by side with what differs marked."""

from collections.abc import Sequence

from lite.text.dialogue import parse
from lite.ui.markup import Child, Markup, div, join, span, tag
from lite.ui.pairs import FLAGS, PairRow, differences


def dialogue(text: str) -> Markup:
    """A prompt as turns; as it stands where it is not a dialogue of ours."""
    closed = text.strip().removesuffix("Assistant:").rstrip()
    try:
        turns = parse(closed)
    except ValueError:
        return div("pre", text.strip())
    return join(*(div("turn", tag("b", turn.role.capitalize()), span("pre", turn.text.strip())) for turn in turns))


def marked(pieces: Sequence[tuple[str, bool]]) -> Markup:
    return join(*(tag("mark", text) if differs else text for text, differs in pieces))


def pair(row: PairRow) -> Markup:
    first, second = row.chosen.strip(), row.rejected.strip()
    chosen, rejected = differences(first, second)
    out = " out" if row.review == "exclude" else ""
    swapped = row.review == "flip"
    sides = [
        side(
            "Rejected after your flip" if swapped else "Preferred",
            marked(chosen),
            f"{'rejected' if swapped else 'chosen'}{out}",
            _words(first),
        ),
        side(
            "Preferred after your flip" if swapped else "Rejected",
            marked(rejected),
            f"{'chosen' if swapped else 'rejected'}{out}",
            _words(second),
        ),
    ]
    chips = [span("chip warn", flag, title=FLAGS[flag]) for flag in row.flags]
    if row.review != "keep":
        chips.insert(0, span("chip bad", {"exclude": "excluded by you", "flip": "flipped by you"}[row.review]))
    figures = [
        span("chip", f"{key.replace('_', ' ')} {value:.3g}" if isinstance(value, float) else f"{key.replace('_', ' ')} {value}")
        for key, value in row.figures.items()
    ]
    parts: list[Child] = [
        div("prompt-box", span("label", "Prompt"), dialogue(row.prompt)),
        div("chips", *chips, *figures),
        div("pair", *sides),
    ]
    if row.p_plus or row.p_minus:
        plus, minus = differences(row.p_plus.strip(), row.p_minus.strip())
        parts.append(tag("h3", "How the two were asked for"))
        parts.append(
            div(
                "pair",
                side("p+ (encouraging)", marked(plus), "neutral chosen"),
                side("p− (discouraging)", marked(minus), "neutral rejected"),
            )
        )
    return div("pair-view", *parts)


def side(label: str, content: Child, kind: str, below: str = "") -> Markup:
    return div(f"side {kind}", span("label", label), div("pre", content), div("dim", below) if below else None)


def _words(text: str) -> str:
    return f"{len(text.split())} words"
