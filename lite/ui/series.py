"""metrics.jsonl as lines to draw: which figures there are, what they are called and mean, at most so many points of each."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MOST_POINTS = 1000
AXES = ("step", "attempt", "epoch")
"""The first of these that a stage writes counts its lines."""


@dataclass(frozen=True)
class Line:
    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class Chart:
    """One picture. ``band``: half the height of a band around the first line, by x."""

    title: str
    about: str
    lines: tuple[Line, ...]
    axis: str = "step"
    band: Mapping[float, float] | None = None


@dataclass(frozen=True)
class Figure:
    """What belongs into one chart. ``keys``: the figures, in the order of their colours."""

    title: str
    about: str
    keys: tuple[str, ...]
    band: str | None = None


FIGURES = (
    Figure("Reward", "What the reward model gives the replies, on average; the band is one standard deviation.", ("reward",), "reward_std"),
    Figure("Distance from the base (KL)", "How far the policy's replies have moved from the base, in nats per reply. "
           "A fast rise with a reward that no person would give is reward hacking.", ("kl",)),
    Figure("Entropy", "How undecided the policy is about the next token, in nats. Near 0 it always says the same.", ("entropy",)),
    Figure("Clipped updates", "Share of tokens whose change was cut off because it was too large. Above 0.3 the learning rate is high.",
           ("clip_fraction", "value_clip_fraction")),
    Figure("Reward on dev prompts", "The reward on prompts that are never trained on.", ("dev_reward",)),
    Figure("Loss", "What the optimiser makes small.", ("loss",)),
    Figure("Accuracy", "Share of pairs in which the preferred reply has the higher reward.", ("accuracy", "reward_accuracy")),
    Figure("Preference margin", "How much more the preferred reply is liked than the rejected one.", ("margin", "margins")),
    Figure("Implicit rewards", "What the trained policy thinks of the preferred and of the rejected reply.",
           ("chosen_reward", "rejected_reward", "chosen_rewards", "rejected_rewards")),
    Figure("Value loss", "How far the value head's forecast of the reward is off.", ("value_loss",)),
    Figure("Policy loss", "The clipped policy-gradient loss.", ("policy_loss",)),
    Figure("Explained variance", "How much of the rewards the value head foresees: 1 is all, 0 nothing.", ("explained_variance",)),
    Figure("Reply length", "Tokens per reply. A rise without better replies is a sign of reward hacking.", ("response_tokens",)),
    Figure("Replies that end", "Share of replies that end by themselves instead of being cut.", ("stop_rate", "dev_stop_rate")),
    Figure("Draws", "Replies drawn, and those that were usable, by attempt.", ("drawn", "accepted")),
    Figure("Weight of the KL", "How strongly the policy is held near the base; it moves only where the recipe lets it adapt.", ("kl_coef",)),
    Figure("Change in one step (KL)", "How far one step's updates move the policy, in nats per token. A jump means steps that are too large.",
           ("approx_kl",)),
    Figure("Largest ratio", "How much likelier than before a step's updates make a token, at most. Far above 2 the learning rate is high.",
           ("ratio_max",)),
    Figure("Ratio before the first update", "New over old probability when nothing has been updated: 1, or training and writing disagree.",
           ("ratio_first",)),
    Figure("Change of the adapter", "How far its weights have moved, as a share of their size at the start: 0 is where it started.", ("adapter_change",)),
    Figure("Gradient norm", "Size of the update before it is clipped.", ("grad_norm", "value_grad_norm")),
    Figure("Learning rate", "Step size of the optimiser.", ("lr", "value_lr")),
    Figure("Tokens a second", "Reply tokens per second of a whole step.", ("tokens_per_s",)),
    Figure("Memory (GiB)", "The highest memory use so far.", ("memory_gib",)),
    Figure("Seconds a step", "Where the time of a step goes.", ("seconds_rollout", "seconds_score", "seconds_update")),
)  # fmt: skip
KNOWN = {key for figure in FIGURES for key in (*figure.keys, figure.band)}


def charts(rows: Sequence[Mapping[str, Any]], most: int = MOST_POINTS) -> list[Chart]:
    """The charts of one stage: known figures in a fixed order, then every other number that it writes."""
    axis = next((name for name in AXES if any(name in row for row in rows)), "line")
    found = [chart for figure in FIGURES if (chart := _chart(figure, rows, axis, most))]
    others = dict.fromkeys(key for row in rows for key, value in row.items() if _number(value) and key not in KNOWN and key != axis)
    plain = [Figure(_words(key), "A figure that the stage writes.", (key,)) for key in others]
    return found + [chart for figure in plain if (chart := _chart(figure, rows, axis, most))]


def beside(one: Sequence[Chart], other: Sequence[Chart], names: tuple[str, str]) -> list[Chart]:
    """The charts that both have, with the first line of each of the two in it."""
    others = {chart.title: chart for chart in other}
    pairs = [(chart, others[chart.title]) for chart in one if chart.title in others]
    return [
        Chart(a.title, a.about, (Line(names[0], a.lines[0].x, a.lines[0].y), Line(names[1], b.lines[0].x, b.lines[0].y)), a.axis)
        for a, b in pairs
    ]


def _chart(figure: Figure, rows: Sequence[Mapping[str, Any]], axis: str, most: int) -> Chart | None:
    lines = [line for key in figure.keys if (line := _line(key, rows, axis, most)).x]
    band = {p[0]: p[1] for p in _points(figure.band, rows, axis)} if figure.band else None
    return Chart(figure.title, figure.about, tuple(lines), axis, band or None) if lines else None


def _line(key: str, rows: Sequence[Mapping[str, Any]], axis: str, most: int) -> Line:
    points = thin(list(_points(key, rows, axis)), most)
    return Line(_words(key), tuple(x for x, _ in points), tuple(y for _, y in points))


def _points(key: str, rows: Sequence[Mapping[str, Any]], axis: str) -> Iterable[tuple[float, float]]:
    for i, row in enumerate(rows, 1):
        x, y = row.get(axis, i), row.get(key)
        if _number(x) and _number(y):
            yield float(x), float(y)  # type: ignore[arg-type]


def thin(points: list[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """At most ``most`` points: of every bucket the lowest and the highest, so that no spike is lost; first and last stay."""
    if len(points) <= most:
        return points
    buckets = max(1, (most - 2) // 2)
    inner = points[1:-1]
    kept = [points[0]]
    for b in range(buckets):
        bucket = inner[b * len(inner) // buckets : (b + 1) * len(inner) // buckets]
        if bucket:
            extremes = {min(bucket, key=lambda p: p[1]), max(bucket, key=lambda p: p[1])}
            kept += sorted(extremes)
    return [*kept, points[-1]]


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _words(key: str) -> str:
    return key.replace("_", " ")
