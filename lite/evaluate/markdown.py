"""report.md: what a person reads first. The answer, then the evidence, then examples."""

from collections.abc import Sequence
from typing import Any

from lite.evaluate import rounds
from lite.records import Reply
from lite.tasks import Task

TITLES = {"base": "base (untouched)", "p_plus": "base under p+ (prompted)"}


def render(report: dict[str, Any], *, task: Task, shown: Sequence[tuple[str, Sequence[Reply]]]) -> str:
    parts = [f"# {task.name}: {task.about}", _headline(report), _models(report)]
    parts += [_comparisons(report)] if report["comparisons"] else []
    parts += [_reward(report["reward"])] if report["reward"] else []
    parts += [rounds.render(report["diagnostics"]["rounds"])] if "rounds" in report["diagnostics"] else []
    parts += [_pairs(report["diagnostics"]["pairs"])] if "pairs" in report["diagnostics"] else []
    parts += [_side_by_side(shown)] if shown else []
    return "\n\n".join(parts) + "\n"


def _headline(report: dict[str, Any]) -> str:
    models = report["models"]
    policies = [name for name in models if name not in TITLES]
    if not report["judge"] or not policies:
        return "No judge was at hand: the table shows lengths, stop rates and rewards, not quality."
    lines = []
    for name in policies:
        ours, base = models[name], models["base"]
        verdict = f"**{name}** succeeds on **{_percent(ours['success'])}** of the held-out prompts, the base on {_percent(base['success'])}"
        if "p_plus" in models:
            verdict += f", the base under the positive prompt on {_percent(models['p_plus']['success'])}"
        lines.append(verdict + f"; it stands {ours['kl_to_base']:.1f} nats per reply from the base.")
    return "\n".join(lines)


def _models(report: dict[str, Any]) -> str:
    rows = ["| model | success (95%) | score 0-5 | reward | KL to base | tokens | ended |", "|---|---|---|---|---|---|---|"]
    for name, m in report["models"].items():
        success = f"{m['success']:.3f} ({m['success_interval'][0]:.3f}-{m['success_interval'][1]:.3f})" if "success" in m else "-"
        rows.append(
            f"| {TITLES.get(name, name)} | {success} | {_number(m.get('score'))} | {_number(m.get('reward'))} "
            f"| {_number(m.get('kl_to_base'))} | {m['tokens']:.1f} | {_percent(m['stop_rate'])} |"
        )
    first = next(iter(report["models"].values()))
    note = f"Means of {first['draws']} draws on {first['prompts']} held-out prompts; intervals over prompts. "
    note += "Tokens include the end of the reply; *ended* is the share that stopped by itself with the next turn."
    return "\n".join([*rows, "", note])


def _comparisons(report: dict[str, Any]) -> str:
    rows = [
        f"## Head to head (judge: {report['judge']})",
        "",
        "| first | second | win | tie | loss | win rate (95%) |",
        "|---|---|---|---|---|---|",
    ]
    for c in report["comparisons"]:
        rows.append(
            f"| {c['first']} | {c['second']} | {_percent(c['win'])} | {_percent(c['tie'])} | {_percent(c['loss'])} "
            f"| {c['win_rate']:.3f} ({c['interval'][0]:.3f}-{c['interval'][1]:.3f}) |"
        )
    return "\n".join([*rows, "", "Same prompt, same draw; a tie counts one half in the win rate."])


def _reward(found: dict[str, Any]) -> str:
    lines = ["## Reward model", ""]
    if found.get("oracle_accuracy") is not None:
        low, high = found["oracle_interval"]
        lines.append(
            f"- orders two replies of the base as the oracle does: **{_percent(found['oracle_accuracy'])}** "
            f"({_percent(low)}-{_percent(high)}; {found['oracle_decided']} pairs that the oracle does not tie)"
        )
    lines += [
        f"- agrees with the label of a held-out pair: {_percent(found['accuracy'])} of {found['held_out']}",
        f"- calibration error {_number(found['calibration_error'])}, Brier {_number(found['brier'])} (0.25 is a coin)",
        f"- correlation of reward and length {_number(found['length_correlation'])}; "
        f"choosing the longer reply would agree with {_percent(found['longer_accuracy'])} of the labels",
    ]
    return "\n".join(lines)


def _pairs(found: dict[str, Any]) -> str:
    dropped = ", ".join(f"{n} {reason.replace('_', ' ')}" for reason, n in found["dropped"].items() if n) or "none"
    lines = ["## Preference pairs", "", f"- {found['pairs']} pairs; dropped: {dropped}"]
    if found.get("labels", {}).get("accuracy") is not None:
        labels = found["labels"]
        lines.append(
            f"- the label is the oracle's in **{_percent(labels['accuracy'])}** of {labels['decided']} pairs; it ties {labels['tied']}"
        )
    if found["words"]:
        words = found["words"]
        lines.append(
            f"- chosen {words['chosen']:.1f} words, rejected {words['rejected']:.1f}; the chosen one is longer in {_percent(words['chosen_longer'])}"
        )
    return "\n".join(lines)


def _side_by_side(shown: Sequence[tuple[str, Sequence[Reply]]]) -> str:
    parts = ["## Side by side"]
    for prompt, replies in shown:
        parts.append("```text\n" + prompt.strip() + "\n```")
        parts.append("\n".join(f"- **{r.model}**{_mark(r)}: {_inline(r.text)}" for r in replies))
    return "\n\n".join(parts)


def _mark(reply: Reply) -> str:
    return "" if reply.score is None else f" ({'good' if reply.success else 'not good'}, {reply.score:.0f}/5)"


def _inline(text: str) -> str:
    """Model text on one line, as text: nothing in it may act as markup."""
    return "`" + " / ".join(text.strip().replace("`", "'").split("\n")) + "`" if text.strip() else "(empty)"


def _percent(x: float | None) -> str:
    return "-" if x is None else f"{100 * x:.0f}%"


def _number(x: float | None) -> str:
    return "-" if x is None else f"{x:.2f}"
