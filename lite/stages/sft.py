"""Supervised training of an adapter, on TRL's trainer: the loss is on the response and its stop string, never on the prompt.

Two uses. Context distillation (Yang et al. 2023): the responses that were written under the encouraging phrase are learnt after the
PLAIN prompt. And the first models of a self-rewarding run (Yuan et al. 2024): answers and judgements, as examples.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from lite.artifacts import Examples, Pairs, Policy
from lite.errors import ArtifactError
from lite.knobs.training import SftSpec
from lite.model.bank import AdapterBank
from lite.model.encoding import Row, encode_targets
from lite.model.trainers import sft_trainer
from lite.records import Example
from lite.runs.publish import write_json
from lite.stages.bench import Bench
from lite.stages.course import course
from lite.stages.tuning import ROLE, begin, held_out_ids, tune
from lite.text.dialogue import STOP


def sft(spec: SftSpec, *, pairs: Pairs | None, examples: Mapping[str, Examples], policy: Policy | None, out: Path, bench: Bench) -> Policy:
    targets = _targets(spec, pairs, examples)
    bank = bench.bank()
    rows = _encoded(targets, spec.max_tokens, bank)
    held_out = held_out_ids((target.id for target, _ in rows), spec.held_out, bench.seed)
    learnt = [row for target, row in rows if target.id not in held_out]
    measured = [row for target, row in rows if target.id in held_out]
    if not learnt:
        raise ArtifactError(
            f"{bench.stage}: nothing to learn: {len(targets)} {spec.targets}, {len(targets) - len(rows)} of them longer than max_tokens = {spec.max_tokens}"
        )
    begin(bank, policy, spec.lora, bench)
    bank.checkpointing(spec.checkpointing is True)
    plan = course(spec, learnt, spec.batch_examples, epochs=spec.epochs, lr=spec.lr, bench=bench)
    with sft_trainer(bank, ROLE, plan) as trainer:
        training = tune(trainer, spec, len(plan.batches), measured, bank, bench, "sft: training on responses")
    bank.checkpointing(False)
    bank.save(ROLE, out / "adapter")
    report = {
        "examples": len(learnt),
        "kinds": dict(Counter(target.kind for target, _ in rows if target.id not in held_out)),
        "held_out_examples": len(measured),
        "too_long": len(targets) - len(rows),
        "tokens": sum(len(row.response) for row in learnt),
        "steps": len(plan.batches),
        "adapter_change": bank.change(ROLE),
        **training.report(),
    }
    write_json(out / "report.json", report)
    bench.log(f"{len(learnt)} examples: loss {training.first['loss']:.3f} at the first step, {training.last['loss']:.3f} at the last")
    return Policy(out)


def _targets(spec: SftSpec, pairs: Pairs | None, examples: Mapping[str, Examples]) -> list[Example]:
    if spec.targets == "examples":
        return [row for part in examples.values() for row in part.rows()]
    if pairs is None:
        raise ArtifactError("sft.targets: chosen responses are asked for, and there are no pairs")
    return [Example(row.id, row.prompt, row.chosen + STOP, "chosen") for row in pairs.rows()]


def _encoded(targets: list[Example], max_tokens: int, bank: AdapterBank) -> list[tuple[Example, Row]]:
    """The targets that fit, as token ids."""
    found = [(target, encode_targets(bank.base.tokenizer, target.prompt, [target.response], max_tokens=max_tokens)) for target in targets]
    return [(target, rows[0]) for target, rows in found if rows is not None]
