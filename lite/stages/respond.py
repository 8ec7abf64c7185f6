"""Candidates: a model answers every plain prompt several times.

RLAIF compares two of them (Yang et al. 2023: the same accept, cut and reject rules as for RLCD's pairs), self-rewarding judges four
(Yuan et al. 2024). A candidate whose continuation is rejected is drawn again, up to ``attempts`` times; then it is left out and
counted by reason, and its prompt has one candidate less.
"""

from collections import Counter
from pathlib import Path
from typing import Any

from lite.artifacts import Candidates, Policy, Prompts
from lite.errors import RecipeError
from lite.knobs.writing import RespondSpec
from lite.model.generate import Decoding
from lite.records import Candidate, Prompt, write_rows
from lite.runs.publish import write_json
from lite.stages.bench import Bench
from lite.stages.retries import Drawn, Writing, draw_accepted
from lite.stages.writers import Here, Server, Writer
from lite.text.clean import REJECT_REASONS, Accepted, Rejected
from lite.text.dialogue import prompt as plain_prompt
from lite.text.statistics import distinct, words

POLICY = "policy"
SHOWN = 20


def respond(spec: RespondSpec, *, prompts: Prompts, policy: Policy | None, out: Path, bench: Bench) -> Candidates:
    rows = prompts.rows(spec.split)
    texts = [plain_prompt(row.turns, lead=bench.task.lead) for row in rows]
    drawn = _draw(spec, rows, texts, policy, bench)
    found = [
        Candidate(row.id, k, text, outcome.response, outcome.stop, drawn[i, k].written.tokens)
        for i, (row, text) in enumerate(zip(rows, texts, strict=True))
        for k in range(spec.n)
        if isinstance(outcome := drawn[i, k].outcome, Accepted)
    ]
    for row in rows[:SHOWN]:
        bench.show(id=row.id, prompt=plain_prompt(row.turns), candidates=[c.text.strip() for c in found if c.id == row.id])
    write_rows(out / "candidates.jsonl", found)
    report = _report(spec, rows, found, drawn)
    write_json(out / "report.json", report)
    bench.log(f"{len(found)} candidates of {len(rows)} prompts; dropped: {report['dropped']}")
    return Candidates(out)


def _draw(spec: RespondSpec, rows: list[Prompt], texts: list[str], policy: Policy | None, bench: Bench) -> dict[tuple[int, int], Drawn]:
    """The last draw of every (prompt, candidate)."""
    how: Writing[tuple[int, int]] = Writing(
        decoding=Decoding(spec.max_new_tokens, spec.temperature, spec.top_p),
        attempts=spec.attempts,
        rows=spec.batch_rows,
        key_of=lambda place: f"{rows[place[0]].id}.{place[1]}",
        seed_of=lambda place, attempt: bench.seed_for(rows[place[0]].id, place[1], attempt),
        group_of=(lambda place: place[0]) if spec.shared_prefix else None,
        what=f"respond: {spec.n} answers to each prompt",
    )
    return draw_accepted(_writer(spec, policy, bench), {(i, k): texts[i] for i in range(len(rows)) for k in range(spec.n)}, how, bench)


def _writer(spec: RespondSpec, policy: Policy | None, bench: Bench) -> Writer:
    if spec.server:
        if policy:
            raise RecipeError(
                bench.stage, ["server: whether it writes with the policy that is named cannot be seen from here; leave one out"]
            )
        return Server(spec.server)
    bank = bench.bank()
    if policy:
        bank.load(POLICY, policy.adapter)
    return Here(bank, POLICY if policy else None)


def _report(spec: RespondSpec, rows: list[Prompt], found: list[Candidate], drawn: dict[tuple[int, int], Drawn]) -> dict[str, Any]:
    reasons = Counter(d.outcome.reason for d in drawn.values() if isinstance(d.outcome, Rejected))
    of_prompt = Counter(c.id for c in found)
    return {
        "prompts": len(rows),
        "candidates": len(found),
        "dropped": {reason: reasons[reason] for reason in REJECT_REASONS},
        "dropped_share": 1 - len(found) / len(drawn) if drawn else None,
        "complete": sum(n == spec.n for n in of_prompt.values()),
        "attempts": dict(sorted(Counter(d.attempts for d in drawn.values()).items())),
        "words": sum(len(words(c.text)) for c in found) / len(found) if found else None,
        "distinct": {n: distinct([c.text for c in found], n) for n in (1, 2, 3)},
    }
