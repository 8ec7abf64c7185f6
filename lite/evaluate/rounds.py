"""The rounds of a self-rewarding run as one table per question: is the judge better, are the replies, what did each round yield."""

from collections.abc import Mapping
from typing import Any

COMPARABLE = "Published figures of other judges and bases cannot be compared with these: judge, base and prompts are this run's own."


def figures_of(reports: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The figures of every model that a round measured, oldest model first, as the first gate took them: beside the model before it."""
    found: dict[str, Mapping[str, Any]] = {}
    for report in reports.values():
        for name, figures in report["models"].items():
            found.setdefault(name, figures)
    order = sorted(found, key=lambda name: _first(name, reports))
    return {name: found[name] for name in order}


def _first(name: str, reports: Mapping[str, Mapping[str, Any]]) -> tuple[int, int]:
    """Where a model first stands as the measured one; those that only others are compared with come before it."""
    for i, report in enumerate(reports.values()):
        if report["model"] == name:
            return i, 1
        if name in report["models"]:
            return i, 0
    return len(reports), 0


def render(reports: Mapping[str, Mapping[str, Any]]) -> str:
    figures = figures_of(reports)
    parts = [
        "## Rounds",
        _judges(figures, reports),
        _policies(figures),
        _yields(reports),
        _head_to_head(reports),
        _gates(reports),
        COMPARABLE,
    ]
    return "\n\n".join(part for part in parts if part)


def _judges(figures: Mapping[str, Mapping[str, Any]], reports: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        "| as a judge | pairwise | 5-best | exact | Spearman | Kendall | ties | readable | one draw | greedy | scores 0-5 |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, model in figures.items():
        j = model["judge"]
        numbers = [j[key] for key in ("best_of_five", "exact", "spearman", "kendall", "ties", "readable")]
        cells = [_measured(j), *map(_number, numbers), _measured(j["single"]), _measured(j["greedy"])]
        rows.append(f"| {name} | {' | '.join(cells)} | {_bars(j['histogram'])} |")
    rule = next(iter(reports.values()))["tie_rule"]
    first = next(iter(figures.values()))["judge"]
    note = f"± one standard error over prompts. On {first['responses']} ranked responses to {first['prompts']} held-out questions. Tie rule: {rule}. "
    note += "*One draw* and *greedy* are pairwise accuracies too: what greedy decoding gains is sampling noise, the rest is what the judge knows."
    return "\n".join([*rows, "", note])


def _measured(judge: Mapping[str, Any]) -> str:
    return _number(judge["pairwise"]) + ("" if judge["pairwise_error"] is None else f" ± {judge['pairwise_error']:.3f}")


def _policies(figures: Mapping[str, Mapping[str, Any]]) -> str:
    rows = ["| on dev prompts | success | score | tokens | ended |", "|---|---|---|---|---|"]
    for name, m in figures.items():
        rows.append(f"| {name} | {_number(m.get('success'))} | {_number(m.get('score'))} | {m['tokens']:.1f} | {_number(m['stop_rate'])} |")
    return "\n".join(rows)


def _yields(reports: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        "| round | candidates judged | readable | judgements saved | prompts | pairs | tie rate | score gap | adapter moved |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for stage, report in reports.items():
        judging, pairs = report["judging"], report["pairs"]
        if judging and pairs:
            cells = [
                str(judging["candidates"]),
                _number(judging["readable"]),
                str(judging["saved"]),
                str(pairs["prompts"]),
                str(pairs["pairs"]),
            ]
            cells += [_number(pairs["tie_rate"]), _number(pairs["gap"]), _number(report["adapter_change"])]
            rows.append(f"| {stage} | {' | '.join(cells)} |")
    return "\n".join(rows) if len(rows) > 2 else ""


def _head_to_head(reports: Mapping[str, Mapping[str, Any]]) -> str:
    rows = ["| head to head | win | tie | loss | win rate (95%) |", "|---|---|---|---|---|"]
    for report in reports.values():
        for c in [*report["comparisons"], *report["both_orders"]]:
            if c:
                rate = f"{c['win_rate']:.3f} ({c['interval'][0]:.3f}-{c['interval'][1]:.3f})"
                who = f"{c['first']} v {c['second']}{', the base choosing in both orders' if 'judge' in c else ''}"
                rows.append(f"| {who} | {_number(c['win'])} | {_number(c['tie'])} | {_number(c['loss'])} | {rate} |")
    if len(rows) == 2:
        return ""
    judges = ", ".join(dict.fromkeys(report["compared_by"] for report in reports.values()))
    return "\n".join(
        [
            *rows,
            "",
            f"Same dev prompts, compared by: {judges}. Each reply is scored by itself, so no order can favour one{_choosing(reports)}.",
        ]
    )


def _choosing(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """What is to be said of choices between two replies, where there were any."""
    turned = [c["contradicts_itself"] for report in reports.values() for c in report["both_orders"] if c["contradicts_itself"] is not None]
    return f"; the base turned {max(turned):.0%} of its choices with the order at most, which are ties" if turned else ""


def _gates(reports: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [
        f"- {stage}, {gate['sign']}: {'open' if gate['open'] else '**shut**'} ({gate['says']})"
        for stage, report in reports.items()
        for gate in report["gates"]
    ]
    return "\n".join(["Gates:", "", *lines]) if lines else ""


def _bars(histogram: Mapping[Any, int]) -> str:
    """Six bars, one per score from 0 to 5, the highest one full."""
    counts = [histogram.get(str(score), histogram.get(score, 0)) for score in range(6)]
    top = max(counts) or 1
    return "".join("▁▂▃▄▅▆▇█"[min(7, 8 * count // (top + 1))] for count in counts) + f" ({'/'.join(map(str, counts))})"


def _number(x: float | None) -> str:
    return "-" if x is None else f"{x:.3f}"
