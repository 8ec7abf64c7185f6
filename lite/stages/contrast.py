"""RLCD pairs: the base answers every prompt once under p+ and once under p-, and the answer under p+ is labelled preferred.

Yang et al. 2023, section 3: no judge scores the two; the contrast of the prompts is the label. A side whose continuation is
rejected is drawn again, up to ``attempts`` times; then the whole pair is dropped and counted by reason.
"""

from collections import Counter
from pathlib import Path
from typing import Any

from lite.artifacts import Pairs, Prompts
from lite.evaluate import diagnostics
from lite.knobs.writing import ContrastSpec
from lite.model.generate import Decoding
from lite.records import Pair, Prompt, write_rows
from lite.runs.publish import write_json
from lite.stages.bench import Bench
from lite.stages.retries import Drawn, Writing, draw_accepted
from lite.stages.writers import Here, Server
from lite.text import pairing
from lite.text.contrast import Contrast, draw_index
from lite.text.contrast import contrast as both_prompts
from lite.text.dialogue import prompt as plain_prompt

SIDES = ("plus", "minus")
SHOWN = 20


def contrast(spec: ContrastSpec, *, prompts: Prompts, out: Path, bench: Bench) -> Pairs:
    rows = prompts.rows("train")
    sides = [both_prompts(row.turns, bench.task, draw_index(bench.task, bench.seed, bench.stage, row.id)) for row in rows]
    drawn = _draw(spec, rows, sides, bench)
    made = [pairing.pair(drawn[i, 0].outcome, drawn[i, 1].outcome) for i in range(len(rows))]
    pairs = [
        Pair(
            id=row.id,
            prompt=plain_prompt(row.turns, lead=bench.task.lead),
            chosen=found.chosen,
            rejected=found.rejected,
            label=1.0,
            p_plus=side.p_plus,
            p_minus=side.p_minus,
            index=side.index,
            attempts=max(drawn[i, 0].attempts, drawn[i, 1].attempts),
            stop_chosen=drawn[i, 0].written.stop,
            stop_rejected=drawn[i, 1].written.stop,
        )
        for i, (row, side, found) in enumerate(zip(rows, sides, made, strict=True))
        if isinstance(found, pairing.Pair)
    ]
    for pair in pairs[:SHOWN]:
        bench.show(id=pair.id, prompt=pair.prompt, chosen=pair.chosen, rejected=pair.rejected, p_plus=pair.p_plus, p_minus=pair.p_minus)
    write_rows(out / "pairs.jsonl", pairs)
    report = _report(pairs, pairing.drops(made), bench.task.name)
    write_json(out / "report.json", report)
    bench.log(f"{len(pairs)} pairs of {len(rows)} prompts; dropped: {report['dropped']}")
    return Pairs(out)


def _draw(spec: ContrastSpec, rows: list[Prompt], sides: list[Contrast], bench: Bench) -> dict[tuple[int, int], Drawn]:
    """The last draw of every (prompt, side)."""
    writer = Server(spec.server) if spec.server else Here(bench.bank())
    texts = {(i, k): text for i, side in enumerate(sides) for k, text in enumerate((side.p_plus, side.p_minus))}
    how: Writing[tuple[int, int]] = Writing(
        decoding=Decoding(spec.max_new_tokens, spec.temperature, spec.top_p),
        attempts=spec.attempts,
        rows=spec.batch_rows,
        key_of=lambda place: f"{rows[place[0]].id}.{SIDES[place[1]]}",
        seed_of=lambda place, attempt: bench.seed_for(rows[place[0]].id, SIDES[place[1]], attempt),
        group_of=(lambda place: place[0]) if spec.shared_prefix else None,
        what="contrast: two answers to each prompt",
    )
    return draw_accepted(writer, texts, how, bench)


def _report(pairs: list[Pair], drops: pairing.Drops, task: str) -> dict[str, Any]:
    return {
        "pairs": drops.kept,
        "dropped": drops.reasons,
        "dropped_share": drops.share,
        "attempts": dict(sorted(Counter(p.attempts for p in pairs).items())),
        "index": dict(sorted(Counter(p.index for p in pairs).items())),
        **diagnostics.describe(pairs, task),
    }
