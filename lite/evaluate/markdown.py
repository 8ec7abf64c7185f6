"""report.md: what a person reads first. The answer, then the evidence, then examples."""

from collections.abc import Sequence
from typing import Any

from lite.evaluate import rounds
from lite.records import Reply
from lite.tasks import Task

TITLES = {"base": "base (untouched)", "p_plus": "base under p+ (prompted)"}


def render(report: dict[str, Any], *, task: Task, shown: Sequence[tuple[str, Sequence[Reply]]], pictures: Sequence[str] = ()) -> str:
    """The page. ``pictures``: paths from where it lies."""
    parts = [f"# {task.name}: {task.about}", _headline(report), _models(report)]
    parts += [_comparisons(report)] if report["comparisons"] else []
    parts += [_judged(report["judged"], report["judges_agree"])] if report["judged"] else []
    parts += [_reward(report["reward"])] if report["reward"] else []
    parts += [_rewards(report["rewards"])] if len(report["rewards"]) > 1 else []
    parts += [rounds.render(report["diagnostics"]["rounds"])] if "rounds" in report["diagnostics"] else []
    parts += [_pair_sets(report["diagnostics"]["pair_sets"])] if "pairs" in report["diagnostics"] else []
    parts += ["## Pictures", *(f"![{path.rpartition('/')[2].removesuffix('.png')}]({path})" for path in pictures)] if pictures else []
    parts += [_side_by_side(shown)] if shown else []
    return "\n\n".join(parts) + "\n"


def _headline(report: dict[str, Any]) -> str:
    models = report["models"]
    policies = [name for name in models if name not in TITLES]
    if not report["judge"]:
        return "No judge was at hand: the table shows lengths, stop rates and rewards, not quality."
    if not policies:
        return "Nothing was trained before this evaluation: the table shows the base alone."
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


def _judged(found: Sequence[dict[str, Any]], agreement: Sequence[dict[str, Any]]) -> str:
    rows = [
        "## Head to head by other judges",
        "",
        "| judge | question | first | second | win | tie | loss | unread | win rate (95%) | length-controlled (95%) |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for j in found:
        controlled = j["length_controlled"]
        rows.append(
            f"| {j['judge']} | {(j['form'] or '-').replace('_', ' ')} | {j['first']} | {j['second']} | {_percent(j['win'])} | {_percent(j['tie'])} "
            f"| {_percent(j['loss'])} | {_percent(j['unreadable'])} | {j['win_rate']:.3f} ({j['interval'][0]:.3f}-{j['interval'][1]:.3f}) "
            f"| {_estimate(controlled['rate']) + (' *' if controlled['ridge'] or controlled['extrapolated'] else '') if controlled else '-'} |"
        )
    rows += [
        "",
        "First draws. A tie and a verdict that could not be read count one half. *Length-controlled*: what would be left if both replies "
        "were equally long; with *, length alone separates wins from losses or one model was always longer, so that it is a guess. The judge "
        "*length* prefers more words and reads nothing: a win that it gives too may be a win of length.",
    ]
    heads = [
        f"- {a['one']} and {a['other']} agree on {_percent((a['accuracy'] or {}).get('mean'))} of {a['compared']} comparisons "
        f"(kappa {_number(a['kappa'])}), on {_percent((a['decided_accuracy'] or {}).get('mean'))} of the {a['decided']} on which neither says tie"
        for a in agreement
    ]
    return "\n".join([*rows, *(["", *heads] if heads else [])])


def _reward(found: dict[str, Any]) -> str:
    lines = ["## Reward model", ""]
    if found.get("oracle_accuracy") is not None:
        low, high = found["oracle_interval"]
        lines.append(
            f"- orders two replies of the base as the oracle does: **{_percent(found['oracle_accuracy'])}** "
            f"({_percent(low)}-{_percent(high)}; {found['oracle_decided']} pairs that the oracle does not tie); mean probability of the better "
            f"one {_number(found['oracle_probability'])}, calibration error {_number(found['oracle_calibration_error'])}"
        )
    lines += [
        f"- agrees with the label of a held-out pair: {_percent(found['accuracy'])} of {found['held_out']}",
        f"- calibration error {_number(found['calibration_error'])}, Brier {_number(found['brier'])} (0.25 is a coin)",
        f"- correlation of reward and length {_number(found['length_correlation'])}; "
        f"choosing the longer reply would agree with {_percent(found['longer_accuracy'])} of the labels",
    ]
    return "\n".join(lines)


def _rewards(found: dict[str, dict[str, Any]]) -> str:
    rows = [
        "## Reward models side by side",
        "",
        "| reward model | agrees with the oracle (95%) | probability | held-out labels | longer reply |",
    ]
    rows.append("|---|---|---|---|---|")
    for id, r in found.items():
        low, high = r.get("oracle_interval") or (None, None)
        span = f" ({_percent(low)}-{_percent(high)})" if low is not None else ""
        rows.append(
            f"| {id} | {_percent(r.get('oracle_accuracy'))}{span} | {_number(r.get('oracle_probability'))} | {_percent(r['accuracy'])} "
            f"| {_percent(r['longer_accuracy'])} |"
        )
    return "\n".join(rows)


def _pair_sets(found: dict[str, dict[str, Any]]) -> str:
    """Every set of pairs in a row of its own; what each says in words follows."""
    rows = [
        "## Preference pairs",
        "",
        "| pairs | kept | dropped | label right (95%) | label of the better | certainty | on ties | words + | words - | longer + | distinct 1/2/3 |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for id, p in found.items():
        right, words, sure = p.get("labels") or {}, p.get("words") or {}, p.get("polarity") or {}
        low, high = right.get("interval") or (None, None)
        span = f" ({_percent(low)}-{_percent(high)})" if low is not None else ""
        variety = " / ".join(_number(x) for x in (p.get("distinct") or {}).values())
        rows.append(
            f"| {id} | {p['pairs']} | {_percent(p.get('dropped_share'))} | {_percent(right.get('accuracy'))}{span} | {_number(right.get('probability'))} "
            f"| {_number(sure.get('mean'))} | {_number(right.get('tied_polarity'))} | {_number(words.get('chosen'))} | {_number(words.get('rejected'))} "
            f"| {_percent(words.get('chosen_longer'))} | {variety} |"
        )
    rows += [
        "",
        "*Certainty*: mean distance of the labels from one half, at most 0.5; *on ties*: the same where the oracle sees no difference.",
        *(line for id, p in found.items() for line in _told(id, p)),
    ]
    return "\n".join(rows)


def _told(id: str, p: dict[str, Any]) -> list[str]:
    """Why pairs of one set were dropped, how its scorer chose, and what is alarming."""
    lines = []
    if dropped := ", ".join(f"{n} {reason.replace('_', ' ')}" for reason, n in (p.get("dropped") or {}).items() if n):
        lines.append(f"- {id}: dropped {dropped}")
    if (right := p.get("labels")) and right["decided"]:
        lines.append(f"- {id}: the oracle prefers one of the two in {right['decided']} pairs and ties {right['tied']}")
    if under := p.get("labels_under"):
        lines.append(
            f"- {id}: the labels agree with the reward model {under['reward']} in {_percent(under['accuracy'])} of {under['decided']} pairs"
        )
    if choice := p.get("choice"):
        lines.append(
            f"- {id}: the scorer says A in {_percent(choice['says_a'])} of its choices, keeps to the same letter in {_percent(choice['same_position'])} "
            f"when the order is swapped, and gives {_percent(choice['outside'])} of its probability to neither letter"
        )
    if right and right["alarm"]:
        lines.append(f"- {id}: **ALARM: the labels are {right['alarm']}: they teach the opposite**")
    return lines


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


def _estimate(x: dict[str, float]) -> str:
    return f"{x['mean']:.3f} ({x['low']:.3f}-{x['high']:.3f})"


def _percent(x: float | None) -> str:
    return "-" if x is None else f"{100 * x:.0f}%"


def _number(x: float | None) -> str:
    return "-" if x is None else f"{x:.2f}"
