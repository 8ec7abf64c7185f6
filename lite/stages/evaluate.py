"""Held-out replies of every model on the same prompts, judged, compared and laid side by side.

Decoding follows Yang et al. 2023, appendix: temperature 1, nucleus 0.9 (a recipe may change both), cut at the stop string, role
names stripped. Every model answers every test prompt ``draws`` times, each draw under the same seed for all models.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lite.artifacts import Evaluation, Pairs, Policy, Prompts, Reward, Round
from lite.errors import RecipeError
from lite.evaluate import diagnostics, oracle, pictures, preference, summary
from lite.evaluate.markdown import render
from lite.knobs.judging import EvaluateSpec
from lite.model.bank import AdapterBank
from lite.model.encoding import Row, encode, encode_row
from lite.model.forward import logprob_rows, reward_rows
from lite.model.generate import Decoding
from lite.records import Prompt, Reply, write_rows
from lite.runs.publish import write_json
from lite.stages.bench import Bench
from lite.stages.drawing import draw as draw_replies
from lite.stages.judging import Known, ask_judges
from lite.text.clean import decode_reply
from lite.text.contrast import contrast, draw_index
from lite.text.dialogue import STOP, closed
from lite.text.dialogue import prompt as plain_prompt

BASE, P_PLUS, REWARD, POLICY = "base", "p_plus", "reward", "policy"
MICRO_TOKENS = 4096
Rewards = Mapping[Reply, float]


def evaluate(
    spec: EvaluateSpec,
    *,
    prompts: Prompts,
    pairs: Mapping[str, Pairs],
    reward: Mapping[str, Reward],
    policies: Mapping[str, Policy],
    rounds: Mapping[str, Round],
    out: Path,
    bench: Bench,
) -> Evaluation:
    models = _models(spec, policies)
    rows = prompts.rows("test")[: spec.prompts]
    by_id = {row.id: row for row in rows}
    bank = bench.bank()
    judged_by_oracle = prompts.read_json("report.json").get("source") == "micro"
    replies, kl = _replies(spec, models, rows, policies, bank, bench)
    if judged_by_oracle:
        replies = oracle.judge(replies, by_id)
    plain = {row.id: plain_prompt(row.turns, lead=bench.task.lead) for row in rows}
    report, scored = _report(replies, kl, judged_by_oracle, pairs=pairs, reward=reward, bank=bank, plain=plain, bench=bench)
    known = Known({id: closed(text) for id, text in plain.items()}, scored if reward else None, judged_by_oracle)
    judged = ask_judges(spec.judges, summary.by_model(replies), known, out=out, bench=bench, bank=bank)
    report |= {"judged": judged.figures, "judges_agree": judged.agreement, "judges_used": judged.usage}
    if spec.labels_under:
        for id, found in _labels_under(bank, reward[spec.labels_under], pairs, bench).items():
            report["diagnostics"]["pair_sets"][id]["labels_under"] = {"reward": spec.labels_under, **found}
    if rounds:
        report["diagnostics"]["rounds"] = {id: found.report() for id, found in rounds.items()}
    write_rows(out / "replies.jsonl", replies)
    write_rows(out / "judgements.jsonl", judged.rows)
    write_json(out / "report.json", report)
    shown = [[r for r in replies if r.id == row.id and r.draw == 0] for row in rows[: spec.side_by_side]]
    for group in shown:
        bench.show(prompt=plain_prompt(by_id[group[0].id].turns), **{r.model: r.text.strip() for r in group})
    (out / "report.md").write_text(
        render(
            report, task=bench.task, shown=[(plain_prompt(by_id[g[0].id].turns), g) for g in shown], pictures=pictures.draw(report, out)
        ),
        encoding="utf-8",
    )
    return Evaluation(out)


def _replies(
    spec: EvaluateSpec, models: Sequence[str], rows: Sequence[Prompt], policies: Mapping[str, Policy], bank: AdapterBank, bench: Bench
) -> tuple[list[Reply], dict[str, float]]:
    """Every model's replies, and the KL of the policies to the base on their first draws."""
    replies: list[Reply] = []
    kl: dict[str, float] = {}
    with bench.progress(len(models) * spec.draws * len(rows), "replies", "evaluate: held-out prompts") as bar:
        for model in models:
            role = POLICY if model in policies else None  # a stage's id may hold a dot, an adapter's name may not
            if role:
                bank.load(role, policies[model].adapter)
            texts = [_prompt(row, model, bench) for row in rows]
            ids = [encode(bank.base.tokenizer, text) for text in texts]
            for draw in range(spec.draws):
                found = draw_replies(
                    bench,
                    f"{model}-{draw}",
                    bank,
                    role,
                    ids,
                    keys=[row.id for row in rows],
                    seeds=[bench.seed_for(row.id, draw) for row in rows],
                    decoding=Decoding(spec.max_new_tokens, spec.temperature, spec.top_p),
                    rows=spec.batch_rows,
                    bar=bar,
                )
                replies += [
                    Reply(row.id, model, draw, text, reply_text(g.text), g.stop, len(g.ids))
                    for row, text, g in zip(rows, texts, found, strict=True)
                ]
                if role and draw == 0:
                    kl[model] = _kl(bank, role, [Row(p, g.ids) for p, g in zip(ids, found, strict=True)], bench)
            if role:
                bank.drop(role)
    return replies, kl


def _models(spec: EvaluateSpec, policies: Mapping[str, Policy]) -> list[str]:
    """What is compared: the references that the recipe names, then every policy made so far."""
    unknown = [name for name in spec.against if name not in (BASE, P_PLUS, *policies)]
    if unknown:
        there = ", ".join((BASE, P_PLUS, *policies))
        raise RecipeError("evaluate.against", [f"{name!r} is no model of this run (there are: {there})" for name in unknown])
    return list(dict.fromkeys([BASE, *spec.against, *policies]))


def _prompt(row: Prompt, model: str, bench: Bench) -> str:
    if model == P_PLUS:
        return contrast(row.turns, bench.task, draw_index(bench.task, bench.seed, bench.stage, row.id)).p_plus
    return plain_prompt(row.turns, lead=bench.task.lead)


def _kl(bank: AdapterBank, role: str, rows: Sequence[Row], bench: Bench) -> float:
    """Mean over replies of log p_policy - log p_base, in nats: the KL to the base where replies are drawn from the whole distribution."""
    ours, base = (
        logprob_rows(bank, rows, role=r, temperature=1.0, micro_tokens=MICRO_TOKENS, pause=bench.pause_inside).sum(1) for r in (role, None)
    )
    return float((ours - base).mean())


def _report(
    replies: list[Reply],
    kl: dict[str, float],
    judged: bool,
    *,
    pairs: Mapping[str, Pairs],
    reward: Mapping[str, Reward],
    bank: AdapterBank,
    plain: Mapping[str, str],
    bench: Bench,
) -> tuple[dict[str, Any], Rewards]:
    """The report, and the last reward model's reward of every reply."""
    groups = summary.by_model(replies)
    models = {model: summary.describe(rows) | ({"kl_to_base": kl[model]} if model in kl else {}) for model, rows in groups.items()}
    found: dict[str, dict[str, Any]] = {}
    scored: Rewards = {}
    for id, artifact in reward.items():
        last = id == list(reward)[-1]
        scored = _rewards(bank, artifact, replies if last else groups[BASE], plain, bench)
        found[id] = artifact.report() | (_against_oracle(groups[BASE], scored) if judged else {})
    if scored:
        for model, rows in groups.items():
            values = [scored[r] for r in rows if r in scored]
            models[model]["reward"] = sum(values) / len(values) if values else None
    names = list(groups)
    told = {id: artifact.report() for id, artifact in pairs.items()}
    return {
        "judge": "oracle" if judged else None,
        "models": models,
        "comparisons": [summary.compare(groups[a], groups[b]) for i, b in enumerate(names) for a in names[i + 1 :]] if judged else [],
        "reward": list(found.values())[-1] if found else {},
        "rewards": found,
        "diagnostics": {"pairs": list(told.values())[-1], "pair_sets": told} if told else {},
    }, scored


def _rewards(bank: AdapterBank, reward: Reward, replies: list[Reply], plain: Mapping[str, str], bench: Bench) -> Rewards:
    """The reward of every reply to its PLAIN prompt, whatever prompt it was written under; empty replies have none."""
    kept = [r for r in replies if r.text.strip()]
    return dict(zip(kept, _rewards_of(bank, reward, [(plain[r.id], r.text + STOP) for r in kept], bench), strict=True))


def _rewards_of(bank: AdapterBank, reward: Reward, texts: Sequence[tuple[str, str]], bench: Bench) -> list[float]:
    """The reward of each prompt with its response, the stop string included."""
    bank.load(REWARD, reward.adapter)
    bank.head(REWARD).load(reward.head)
    rows = [encode_row(bank.base.tokenizer, *both) for both in texts]
    rewards = reward_rows(bank, rows, role=REWARD, micro_tokens=MICRO_TOKENS, pause=bench.pause_inside).tolist()
    bank.drop(REWARD)
    return rewards


def _labels_under(bank: AdapterBank, reward: Reward, pairs: Mapping[str, Pairs], bench: Bench) -> dict[str, dict[str, Any]]:
    """How often the labels of each set of pairs prefer what a reward model prefers (Yang et al. 2023 ask one of human preferences)."""
    found = {}
    for id, artifact in pairs.items():
        rows = artifact.rows()
        rewards = _rewards_of(bank, reward, [(p.prompt, text + STOP) for p in rows for text in (p.chosen, p.rejected)], bench)
        found[id] = diagnostics.label_accuracy([p.label for p in rows], list(zip(rewards[::2], rewards[1::2], strict=True)))
    return found


def reply_text(raw: str) -> str:
    """The decoded reply with the white space that stood between prompt and reply, so that prompt + text is what was written."""
    return raw[: len(raw) - len(raw.lstrip())] + decode_reply(raw)


def _against_oracle(base: list[Reply], scored: Rewards) -> dict[str, Any]:
    """The reward model on pairs that it never saw: the base's first two draws on every test prompt."""
    draws: dict[str, dict[int, Reply]] = {}
    for reply in base:
        draws.setdefault(reply.id, {})[reply.draw] = reply
    met = [(d[0], d[1]) for d in draws.values() if 1 in d and d[0] in scored and d[1] in scored]
    return preference.agreement([(scored[a], scored[b]) for a, b in met], [(float(a.score or 0), float(b.score or 0)) for a, b in met])
