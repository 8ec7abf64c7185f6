"""RLCD pairs: the base answers every prompt once under p+ and once under p-, and the answer under p+ is labelled preferred.

Yang et al. 2023, section 3: no judge scores the two; the contrast of the prompts is the label. A side whose continuation is
rejected is drawn again, up to ``attempts`` times; then the whole pair is dropped and counted by reason.
"""

from collections import Counter
from dataclasses import asdict
from pathlib import Path

from lite.artifacts import Pairs, Prompts
from lite.contracts import ContrastSpec
from lite.model.encoding import encode
from lite.model.generate import Decoding
from lite.records import Pair, Prompt, write_rows
from lite.runs.publish import write_json
from lite.stages.bench import Bench
from lite.stages.drawing import draw
from lite.text import pairing, statistics
from lite.text.clean import Accepted, Rejected, accept
from lite.text.contrast import Contrast, draw_index
from lite.text.contrast import contrast as both_prompts
from lite.text.dialogue import prompt as plain_prompt

SIDES = ("plus", "minus")
SHOWN = 20


def contrast(spec: ContrastSpec, *, prompts: Prompts, out: Path, bench: Bench) -> Pairs:
    rows = prompts.rows("train")
    sides = [both_prompts(row.turns, bench.task, draw_index(bench.task, bench.seed, bench.stage, row.id)) for row in rows]
    outcomes, attempts = _draw(spec, rows, sides, bench)
    made = [pairing.pair(outcomes[i, 0], outcomes[i, 1]) for i in range(len(rows))]
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
            attempts=max(attempts[i, 0], attempts[i, 1]),
            stop_chosen=_stop(outcomes[i, 0]),
            stop_rejected=_stop(outcomes[i, 1]),
        )
        for i, (row, side, found) in enumerate(zip(rows, sides, made, strict=True))
        if isinstance(found, pairing.Pair)
    ]
    for pair in pairs[:SHOWN]:
        bench.show(id=pair.id, prompt=pair.prompt, chosen=pair.chosen, rejected=pair.rejected, p_plus=pair.p_plus, p_minus=pair.p_minus)
    write_rows(out / "pairs.jsonl", pairs)
    report = _report(pairs, pairing.drops(made))
    write_json(out / "report.json", report)
    bench.log(f"{len(pairs)} pairs of {len(rows)} prompts; dropped: {report['dropped']}")
    return Pairs(out)


def _draw(
    spec: ContrastSpec, rows: list[Prompt], sides: list[Contrast], bench: Bench
) -> tuple[dict[tuple[int, int], Accepted | Rejected], dict[tuple[int, int], int]]:
    """The last outcome of every (prompt, side), and how many draws it took."""
    bank = bench.bank()
    ids = {(i, k): encode(bank.base.tokenizer, text) for i, side in enumerate(sides) for k, text in enumerate((side.p_plus, side.p_minus))}
    decoding = Decoding(spec.max_new_tokens, spec.temperature, spec.top_p)
    outcomes: dict[tuple[int, int], Accepted | Rejected] = {}
    attempts: dict[tuple[int, int], int] = {}
    with bench.progress(len(ids), "responses", "contrast: two answers to each prompt") as bar:
        for attempt in range(spec.attempts):
            todo = [place for place in ids if not isinstance(outcomes.get(place), Accepted)]
            if not todo:
                break
            found = draw(
                bench,
                f"attempt-{attempt + 1}",
                bank,
                None,
                [ids[place] for place in todo],
                keys=[f"{rows[i].id}.{SIDES[k]}" for i, k in todo],
                seeds=[bench.seed_for(rows[i].id, SIDES[k], attempt) for i, k in todo],
                decoding=decoding,
                rows=spec.batch_rows,
                groups=[i for i, _ in todo] if spec.shared_prefix else None,
                bar=bar if attempt == 0 else None,
            )
            for place, generated in zip(todo, found, strict=True):
                outcomes[place], attempts[place] = accept(generated.text, generated.stop), attempt + 1
            bench.metric(attempt=attempt + 1, drawn=len(todo), accepted=sum(isinstance(outcomes[p], Accepted) for p in todo))
    return outcomes, attempts


def _stop(outcome: Accepted | Rejected):
    assert isinstance(outcome, Accepted), "a pair is made of accepted responses"
    return outcome.stop


def _report(pairs: list[Pair], drops: pairing.Drops) -> dict:
    texts = statistics.report([(p.chosen, p.rejected) for p in pairs])
    return {
        "pairs": drops.kept,
        "dropped": drops.reasons,
        "dropped_share": drops.share,
        "attempts": dict(sorted(Counter(p.attempts for p in pairs).items())),
        "index": dict(sorted(Counter(p.index for p in pairs).items())),
        "words": asdict(texts.length) if texts.length else None,
        "distinct": texts.distinct,
    }
