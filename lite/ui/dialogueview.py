"""Dialogues and pairs as markup: turns under their speakers, two replies side by side with what differs marked."""

from collections.abc import Sequence

from lite.text.dialogue import parse
from lite.ui.lineage import Candidate, Lineage
from lite.ui.markup import Child, Markup, div, join, span, tag, term
from lite.ui.pairs import FLAGS, PairRow, differences
from lite.ui.words import plural


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


def pair(row: PairRow, origin: Lineage | None = None) -> Markup:
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
    parts: list[Child] = [
        div("prompt-box", span("label", "Prompt"), dialogue(row.prompt)),
        div("chips", *chips, *_figures(row)),
        div("pair", *sides),
    ]
    if origin and origin.candidates:
        parts += [tag("h3", "Where this pair comes from"), _origin(origin, row)]
    if row.p_plus != row.p_minus:
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


def _figures(row: PairRow) -> list[Markup]:
    """The other columns as chips: in plain words those that say something, left out those that are as in every pair."""
    known = dict(row.figures)
    chips: list[Markup] = []
    label = known.pop("label", None)
    if isinstance(label, int | float) and label != 1:
        chips.append(span("chip", term(f"label {label:.2f}", "The probability that the preferred reply is the better one.")))
    attempts, index, turned = known.pop("attempts", 0), known.pop("index", 0), known.pop("turned", False)
    if isinstance(attempts, int) and attempts > 1:
        chips.append(span("chip", term(f"drawn {attempts} times", "Replies that were cut off or empty were drawn anew.")))
    if row.p_plus != row.p_minus:
        chips.append(span("chip", term(f"phrases {index}", "Which pair of the task's encouraging and discouraging phrases was drawn.")))
    if turned:
        chips.append(span("chip", term("turned round", "A scorer preferred the reply that was asked for with the discouraging phrase.")))
    for side in ("chosen", "rejected"):
        if known.pop(f"stop_{side}", "") == "length":
            chips.append(span("chip", f"{'preferred' if side == 'chosen' else side} reply cut at the longest length"))
    rest = ((key.replace("_", " "), f"{value:.3g}" if isinstance(value, float) else value) for key, value in known.items())
    return [*chips, *(span("chip", f"{key} {value}") for key, value in rest)]


def _origin(origin: Lineage, row: PairRow) -> Markup:
    """The way from the prompt to the pair, then every candidate with its marks."""
    steps = [span("step", tag("b", stage), span("dim", f" by {model}") if model else None) for stage, model in origin.steps]
    ways = [div("way", *[part for step in steps for part in (span("dim", "→"), step)][1:])]
    if origin.losers:
        ways.append(div("dim", "The rejected reply is an earlier model's, from the second group."))
    groups = [origin.candidates, *([origin.losers] if origin.losers else [])]
    return join(*ways, *(div("candidates", [_candidate(c, row) for c in group]) for group in groups))


def _candidate(candidate: Candidate, row: PairRow) -> Markup:
    role = "chosen" if candidate.text == row.chosen else "rejected" if candidate.text == row.rejected else "neutral"
    names = {"chosen": "preferred", "rejected": "rejected", "neutral": ""}
    read = [o for o in candidate.opinions if o.score is not None]
    score = candidate.score
    mark = "not judged" if not candidate.opinions else "not readable" if score is None else f"{score:.2g} of 5"
    head = div("candidate-head", span("label", f"Candidate {candidate.k}"), span("dim", names[role]), tag("b", mark))
    said = [div("opinion", tag("b", "?" if o.score is None else o.score), span("pre", o.text.strip())) for o in candidate.opinions]
    told = f"{plural(len(said), 'judgement')}{'' if len(read) == len(said) else f', {len(said) - len(read)} not readable'}"
    return div(f"side {role}", head, div("pre", candidate.text.strip()), tag("details", tag("summary", told), *said) if said else None)


def side(label: str, content: Child, kind: str, below: str = "") -> Markup:
    return div(f"side {kind}", span("label", label), div("pre", content), div("dim", below) if below else None)


def _words(text: str) -> str:
    return f"{len(text.split())} words"
