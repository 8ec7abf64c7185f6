"""A run's report.json as pictures and tables: who succeeds how often, who wins against whom, what the diagnostics say."""

from collections.abc import Mapping, Sequence
from typing import Any

from lite.ui.markup import Child, Markup, div, empty, join, note, span, table, tag, term
from lite.ui.words import share

MEANINGS = {
    "success": "Share of held-out prompts that the reply answers well (95% interval)",
    "score": "Mean mark of the replies, 0 to 5",
    "reward": "What the reward model gives the replies, on average",
    "kl_to_base": "How far the replies are from the base's, in nats per reply",
    "tokens": "Mean length of a reply",
    "stop_rate": "Share of replies that end by themselves",
}
SHARES = {
    "win": "Share of prompts in which the model's reply is the better one",
    "tie": "Share of prompts in which neither reply is better",
    "loss": "Share of prompts in which the other model's reply is the better one",
    "win_rate": "Wins and half of the ties (95% interval)",
}
HEADS = {
    "first": "Model",
    "second": "against",
    "win": "wins",
    "tie": "ties",
    "loss": "losses",
    "win_rate": "win rate",
    "compared": "replies",
}
FEW = 3
NAMES = {"base": "base, untouched", "p_plus": "base, prompted (p+)"}


def report(found: Mapping[str, Any]) -> Markup:
    models = found.get("models") or {}
    if not models:
        return empty("No report yet", "The evaluate stage writes it at the end of the run.")
    parts: list[Child] = [_bars(models), _models(models)]
    if comparisons := [c for c in found.get("comparisons") or [] if isinstance(c, Mapping)]:
        parts += _comparisons(comparisons)
    for key, title in (("reward", "Reward model"), ("diagnostics", "Diagnostics")):
        if isinstance(found.get(key), Mapping) and found[key]:
            parts += [tag("details", tag("summary", title), _facts(found[key]))]
    return div("report", *parts)


def _bars(models: Mapping[str, Any]) -> Markup | None:
    """A bar per model with its interval."""
    rows = [(name, m.get("success"), m.get("success_interval")) for name, m in models.items() if isinstance(m.get("success"), int | float)]
    if not rows:
        return None
    return div("bars", [_bar(name, value, interval) for name, value, interval in rows])


def _bar(name: str, value: float, interval: Any) -> Markup:
    whisker = None
    if isinstance(interval, list) and len(interval) == 2:
        low, high = (100 * min(1.0, max(0.0, float(x))) for x in interval)
        whisker = span("whisker", style=f"left:{low:.1f}%;width:{high - low:.1f}%", title=f"95% interval: {low:.0f}% to {high:.0f}%")
    kind = name if name in NAMES else "trained"
    return div(
        "bar-row",
        span("bar-name", NAMES.get(name, name)),
        div("bar-track", tag("i", cls=kind, style=f"width:{100 * value:.1f}%"), whisker),
        tag("b", share(value)),
    )


def _models(models: Mapping[str, Any]) -> Markup:
    keys = [key for key in MEANINGS if any(isinstance(m.get(key), int | float) for m in models.values())]
    head: list[Child] = ["Model", *(term(key.replace("_", " "), MEANINGS[key]) for key in keys)]
    return table(head, [[tag("b", NAMES.get(name, name)), *(_cell(key, m) for key in keys)] for name, m in models.items()])


def _cell(key: str, model: Mapping[str, Any]) -> Child:
    value = model.get(key)
    if not isinstance(value, int | float):
        return span("dim", "–")
    written = share(value) if key in ("success", "stop_rate") else f"{value:.2f}" if key != "tokens" else f"{value:.1f}"
    interval = model.get(f"{key}_interval")
    if isinstance(interval, list) and len(interval) == 2:
        low, high = (share(x) if key == "success" else f"{x:.2f}" for x in interval)
        return join(written, span("dim", f" {low} to {high}"))
    return written


def _comparisons(rows: Sequence[Mapping[str, Any]]) -> list[Child]:
    """Who wins against whom: what was held against the base first, the rest folded away where there is much of it."""
    against_base = [row for row in rows if row.get("second") == "base"]
    others = [row for row in rows if row.get("second") != "base"]
    if not against_base or len(others) <= FEW:
        return [tag("h3", "Against each other"), _wins(rows)]
    more = tag("details", tag("summary", f"Against each other ({len(others)} comparisons)"), _wins(others))
    return [tag("h3", "Against the base"), _wins(against_base), more]


def _wins(rows: Sequence[Mapping[str, Any]]) -> Markup:
    """Whatever a comparison says of its two models; shares of won prompts as such."""
    keys = list(dict.fromkeys(key for row in rows for key, value in row.items() if isinstance(value, int | float | str)))[:8]
    head: list[Child] = [term(HEADS[key], SHARES[key]) if key in SHARES else HEADS.get(key, key.replace("_", " ")) for key in keys]
    return table(head, [[_won(key, row) for key in keys] for row in rows])


def _won(key: str, row: Mapping[str, Any]) -> Child:
    value = row.get(key)
    if key not in SHARES or not isinstance(value, int | float):
        return tag("b", NAMES.get(str(value), str(value))) if key == "first" else _plain(value)
    interval = row.get("interval")
    told = (
        f" {share(interval[0])} to {share(interval[1])}" if key == "win_rate" and isinstance(interval, list) and len(interval) == 2 else ""
    )
    return join(share(value), span("dim", told) if told else None)


def _facts(found: Mapping[str, Any]) -> Markup:
    rows: list[list[Child]] = []
    for key, value in found.items():
        if isinstance(value, Mapping):
            inner = ", ".join(f"{k} {_plain(v)}" for k, v in value.items() if not isinstance(v, Mapping | list))
            rows.append([key.replace("_", " "), inner or span("dim", "–")])
        elif not isinstance(value, list):
            rows.append([key.replace("_", " "), _plain(value)])
    return table(["", ""], rows) if rows else note("info", "Nothing was measured here.")


def _plain(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else "–" if value is None else str(value)
