"""What a model answers to held-out prompts, what a judge says of it, and two models head to head: for the gate, and for checkpoints."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lite.artifacts import Policy
from lite.evaluate import summary
from lite.knobs.rounds import AnsweringSpec
from lite.model.bank import AdapterBank
from lite.model.encoding import encode
from lite.model.generate import Decoding
from lite.records import Prompt, Reply
from lite.stages.bench import Bench, Progress
from lite.stages.drawing import draw
from lite.stages.evaluate import reply_text
from lite.stages.reviews import Court, Question, scores_of
from lite.text.dialogue import prompt as plain_prompt
from lite.text.judging import mean_score


def answers(
    spec: AnsweringSpec, model: str, role: str, rows: Sequence[Prompt], bank: AdapterBank, bench: Bench, bar: Progress | None = None
) -> list[Reply]:
    """One reply of a role per prompt; the seed of a prompt's draw is the same for all models. ``model``: their name for it."""
    texts = [plain_prompt(row.turns, lead=bench.task.lead) for row in rows]
    written = draw(
        bench,
        f"replies-{model}",
        bank,
        role,
        [encode(bank.base.tokenizer, text) for text in texts],
        keys=[row.id for row in rows],
        seeds=[bench.seed_for(row.id) for row in rows],
        decoding=Decoding(spec.max_new_tokens, spec.temperature, spec.top_p),
        rows=spec.batch_rows,
        bar=bar,
    )
    return [
        Reply(row.id, model, 0, text, reply_text(g.text), g.stop, len(g.ids)) for row, text, g in zip(rows, texts, written, strict=True)
    ]


def scored(
    spec: AnsweringSpec, judge: Policy | None, replies: Sequence[Reply], bank: AdapterBank, bench: Bench, bar: Progress | None = None
) -> list[Reply]:
    """The replies with the mean score of one judge for all, the base without one; those that it could not be read on have none."""
    court = Court(spec.judging, bench, bank, judge, name="replies")
    questions = [Question(f"{r.model}/{r.id}", r.draw, r.prompt, r.text) for r in replies]
    said = scores_of(court.judge(questions, range(spec.judging.draws), bar))
    court.close()
    means = {place: mean_score(scores) for place, scores in said.items()}
    return [replace(r, score=means[f"{r.model}/{r.id}", r.draw]) for r in replies]


def head_to_head(ours: Sequence[Reply], others: Sequence[Reply]) -> dict[str, Any] | None:
    """Where both have a score; None where nothing can be compared."""
    there = _places(ours) & _places(others)
    met = [[r for r in group if (r.id, r.draw) in there] for group in (ours, others)]
    return summary.compare(*met) if there else None


def _places(replies: Sequence[Reply]) -> set[tuple[str, int]]:
    return {(r.id, r.draw) for r in replies if r.score is not None}
