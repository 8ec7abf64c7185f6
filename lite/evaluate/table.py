"""One table of several runs of one recipe: every task with its models, pairs and reward models, summarised over seeds.

With one seed an interval is over prompts, as the run's own report has it; with more it is over seeds (Student's t), each of which
drew its own prompts, pairs and trainings; runs that differ in other knobs are never averaged (``sections``). Beside the figures stand the paper's findings, and whether these runs agree with them.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from lite.evaluate.intervals import seed_interval
from lite.evaluate.sections import Section

Report = Mapping[str, Any]
Cell = tuple[float, float, float]
"""Mean, low and high."""
SHARE = (0.0, 1.0)


class Finding(NamedTuple):
    """What the paper found at its smaller scale (Yang et al. 2023, tables 2, 3 and 4 with LLaMA-7B): ``better`` beats ``worse``."""

    what: str
    better: str
    worse: str
    tasks: tuple[str, ...] = ("harmless", "helpful", "outline")


FINDINGS = (
    Finding("replies", "rlcd.ppo", "base"),
    Finding("replies", "rlcd.ppo", "context_dist"),
    Finding("replies", "rlcd.ppo", "rlaif.ppo"),
    Finding("replies", "rlcd.ppo", "rescore.ppo"),
    Finding("labels", "rlcd.contrast", "rlaif.score", ("harmless", "helpful")),
)


def of_sections(found: Mapping[str, Section]) -> dict[str, Any]:
    """The summary of every section, with its task, the knobs that tell it from others, its runs and how many were passed over."""
    summary = summarise({title: section.reports for title, section in found.items()})
    return {title: section.to_json() | summary[title] for title, section in found.items()}


def summarise(reports: Mapping[str, Mapping[int, Report]]) -> dict[str, Any]:
    """Section by section, of reports by seed: {seeds, models, pairs, rewards, findings}, each figure as {mean, low, high} or None."""
    return {title: _section(list(of_seed.values()), sorted(of_seed)) for title, of_seed in reports.items()}


def _section(reports: Sequence[Report], seeds: list[int]) -> dict[str, Any]:
    task = str(reports[0]["run"]["task"])
    sets = [r["diagnostics"].get("pair_sets", {}) for r in reports]
    rewards = [r.get("rewards", {}) for r in reports]
    return {
        "seeds": seeds,
        "models": {
            name: _model([r["models"].get(name) for r in reports], [_against_base(r, name) for r in reports])
            for name in _names(r["models"] for r in reports)
        },
        "pairs": {name: _pairs([s.get(name) for s in sets]) for name in _names(sets)},
        "rewards": {name: _reward([r.get(name) for r in rewards]) for name in _names(rewards)},
        "findings": [c for finding in FINDINGS if task in finding.tasks and (c := _checked(finding, reports))],
    }


def _names(mappings: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for mapping in mappings for name in mapping))


def _model(found: Sequence[Report | None], against: Sequence[Report]) -> dict[str, Any]:
    return {
        "success": _figure(found, lambda m: m.get("success"), lambda m: m.get("success_interval"), within=SHARE),
        "score": _figure(found, lambda m: m.get("score"), lambda m: m.get("score_interval")),
        "kl_to_base": _figure(found, lambda m: m.get("kl_to_base")),
        "words": _figure(found, lambda m: m.get("words")),
        "stop_rate": _figure(found, lambda m: m.get("stop_rate"), within=SHARE),
        "distinct_2": _figure(found, lambda m: (m.get("distinct") or {}).get("2")),
        "win_rate": _figure(against, lambda c: c.get("win_rate"), lambda c: c.get("interval"), within=SHARE),
        "length_controlled": _figure(against, lambda c: _rate(c).get("mean"), lambda c: [_rate(c)["low"], _rate(c)["high"]], within=SHARE),
    }


def _rate(comparison: Report) -> dict[str, float]:
    """The length-controlled win rate of a comparison; empty where there is none."""
    return (comparison.get("length_controlled") or {}).get("rate") or {}


def _against_base(report: Report, model: str) -> Report:
    """The head to head with the base by the best judge there is: the oracle, or the first of the recipe."""
    met = [c for c in report.get("judged", ()) if (c["first"], c["second"]) == (model, "base")]
    return next((c for c in met if c["judge"] == "oracle"), met[0] if met else _head_to_head(report, model, "base"))


def _head_to_head(report: Report, first: str, second: str) -> Report:
    """The oracle's comparison of two models with ``first`` as the first, turned round if need be; empty where there is none."""
    for c in report.get("comparisons", ()):
        if (c["first"], c["second"]) == (first, second):
            return c
        if (c["first"], c["second"]) == (second, first):
            return {"win_rate": 1 - c["win_rate"], "interval": [1 - c["interval"][1], 1 - c["interval"][0]]}
    return {}


def _pairs(found: Sequence[Report | None]) -> dict[str, Any]:
    return {
        "accuracy": _figure(found, lambda p: (p.get("labels") or {}).get("accuracy"), lambda p: p["labels"]["interval"], within=SHARE),
        "probability": _figure(found, lambda p: (p.get("labels") or {}).get("probability")),
        "certainty": _figure(found, lambda p: (p.get("polarity") or {}).get("mean")),
        "dropped": _figure(found, lambda p: p.get("dropped_share")),
        "longer": _figure(found, lambda p: (p.get("words") or {}).get("chosen_longer")),
        "same_position": _figure(found, lambda p: (p.get("choice") or {}).get("same_position")),
        "pairs": _figure(found, lambda p: p.get("pairs")),
    }


def _reward(found: Sequence[Report | None]) -> dict[str, Any]:
    return {
        "accuracy": _figure(found, lambda r: r.get("oracle_accuracy"), lambda r: r.get("oracle_interval"), within=SHARE),
        "probability": _figure(found, lambda r: r.get("oracle_probability")),
        "calibration_error": _figure(found, lambda r: r.get("oracle_calibration_error")),
    }


def _figure(
    found: Sequence[Report | None],
    value: Callable[[Report], float | None],
    interval: Callable[[Report], Sequence[float] | None] = lambda r: None,
    *,
    within: tuple[float, float] = (-math.inf, math.inf),
) -> dict[str, float | None] | None:
    """A figure over seeds, whose interval is cut to what the figure can be; or of a single seed with its own interval; None where no run has it."""
    having = [r for r in found if r and value(r) is not None]
    if not having:
        return None
    values = [float(value(r) or 0) for r in having]
    if len(values) > 1:
        x = seed_interval(values)
        return {"mean": x.mean, "low": max(x.low, within[0]), "high": min(x.high, within[1])}
    low, high = interval(having[0]) or (None, None)
    return {"mean": values[0], "low": low, "high": high}


def _checked(finding: Finding, reports: Sequence[Report]) -> dict[str, Any] | None:
    """Whether the runs agree with a finding: with a whole interval, or not so that one could tell. None where they did not try it."""
    chance = 0.5 if finding.what == "replies" else 0.0
    found = _win_rate(finding, reports) if finding.what == "replies" else _label_gap(finding, reports)
    if not found:
        return None
    low, high = found["low"], found["high"]
    verdict = "agrees" if low is not None and low > chance else "disagrees" if high is not None and high < chance else "undecided"
    return {"what": finding.what, "better": finding.better, "worse": finding.worse, "found": found, "verdict": verdict}


def _win_rate(finding: Finding, reports: Sequence[Report]) -> dict[str, float | None] | None:
    met = [_head_to_head(r, finding.better, finding.worse) for r in reports]
    return _figure([c or None for c in met], lambda c: c.get("win_rate"), lambda c: c.get("interval"), within=SHARE)


def _label_gap(finding: Finding, reports: Sequence[Report]) -> dict[str, float | None] | None:
    """The difference of two label accuracies; of a single seed its interval is that of two independent shares."""
    gaps: list[dict[str, float | None]] = []
    for report in reports:
        sets = report["diagnostics"].get("pair_sets", {})
        one, other = (_label_accuracy(sets, name) for name in (finding.better, finding.worse))
        if one and other:
            half = ((one[2] - one[1]) ** 2 + (other[2] - other[1]) ** 2) ** 0.5 / 2
            gaps.append({"mean": (gap := one[0] - other[0]), "low": gap - half, "high": gap + half})
    return _figure(gaps, lambda g: g["mean"], lambda g: [g["low"], g["high"]])


def _label_accuracy(sets: Mapping[str, Any], name: str) -> Cell | None:
    labels = (sets.get(name) or {}).get("labels") or {}
    return (labels["accuracy"], *labels["interval"]) if labels.get("interval") else None


def markdown(summary: Mapping[str, Any], title: str) -> str:
    """The table as a page."""
    parts = [f"# {title}"]
    for task, found in summary.items():
        seeds = ", ".join(map(str, found["seeds"]))
        over = "over seeds (Student's t)" if len(found["seeds"]) > 1 else "over prompts"
        parts += [f"## {task}", f"Seeds {seeds}; intervals of 95% {over}.", _models(found["models"])]
        parts += [_pair_table(found["pairs"], found["rewards"])] if found["pairs"] else []
        parts += [_findings(found["findings"])] if found["findings"] else []
    parts += [_used(list(summary.values()))] if any(found.get("runs") for found in summary.values()) else []
    return "\n\n".join(parts) + "\n"


def _used(summaries: Sequence[Mapping[str, Any]]) -> str:
    """The runs that the page is over, with what each was told beside its recipe, and how many were not taken."""
    rows = ["## Runs", "", "| run | task | seed | overrides |", "|" + "---|" * 4]
    for run in (run for found in summaries for run in found["runs"]):
        told = " ".join(run["overrides"]).replace("|", r"\|") or "-"
        rows.append(f"| {run['run']} | {run['task']} | {run['seed']} | {told} |")
    older = sum(found["passed_over"] for found in summaries)
    taken = "The newest finished run of each task, seed and set of knobs"
    return "\n".join([*rows, "", f"{taken}; {older or 'no'} older {'run was' if older == 1 else 'runs were'} passed over."])


def _models(models: Mapping[str, Any]) -> str:
    rows = [
        "| model | success | score 0-5 | win rate v base | length-controlled | KL to base | words | ended | distinct-2 |",
        "|" + "---|" * 9,
    ]
    for name, m in models.items():
        cells = (
            _wide(m["success"]),
            _short(m["score"]),
            _wide(m["win_rate"]),
            _short(m["length_controlled"]),
            *map(_short, (m["kl_to_base"], m["words"], m["stop_rate"], m["distinct_2"])),
        )
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _pair_table(pairs: Mapping[str, Any], rewards: Mapping[str, Any]) -> str:
    rows = [
        "| pairs | label right | label of the better | certainty | dropped | chosen longer | same letter when swapped |",
        "|" + "---|" * 7,
    ]
    for name, p in pairs.items():
        cells = (_wide(p["accuracy"]), *map(_short, (p["probability"], p["certainty"], p["dropped"], p["longer"], p["same_position"])))
        rows.append(f"| {name} | {' | '.join(cells)} |")
    rows += ["", "| reward model | right about two replies of the base | probability of the better | calibration error |", "|" + "---|" * 4]
    rows += [
        f"| {name} | {_wide(r['accuracy'])} | {_short(r['probability'])} | {_short(r['calibration_error'])} |"
        for name, r in rewards.items()
    ]
    return "\n".join(rows)


def _findings(found: Sequence[Mapping[str, Any]]) -> str:
    rows = ["The paper's findings with its 7B simulator, and these runs:", "", "| the paper | here | |", "|---|---|---|"]
    for f in found:
        what = "win rate" if f["what"] == "replies" else "labels right: difference"
        rows.append(f"| {f['better']} beats {f['worse']} ({f['what']}) | {what} {_wide(f['found'])} | **{f['verdict']}** |")
    return "\n".join(rows)


def _wide(x: Mapping[str, float | None] | None) -> str:
    if x is None:
        return "-"
    low, high = x["low"], x["high"]
    return f"{x['mean']:.3f}" + (f" ({low:.3f} to {high:.3f})" if low is not None and high is not None else "")


def _short(x: Mapping[str, float | None] | None) -> str:
    return "-" if x is None else f"{x['mean']:.2f}"
