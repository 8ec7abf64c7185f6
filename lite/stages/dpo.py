"""Direct preference optimisation of an adapter on preference pairs, on TRL's trainer (Rafailov et al. 2023; Yuan et al. 2024).

The adapter starts as the policy that the recipe names, or as a fresh one that is equal to the base, and where it starts is the
reference. So one plain LoRA adapter goes on from round to round and nothing is stacked; the loss of the first step is ln 2 and its
margin 0, which the report shows. Pairs with a label under 1/2 are turned round, ties are left out. TRL's losses take hard labels; with
``labels: soft`` a label is the weight of its order, and the rest goes to the opposite one (the consistency weight of CREAM, or RLAIF's odds).
"""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from lite.artifacts import Pairs, Policy, Prompts
from lite.errors import ArtifactError
from lite.knobs.training import DpoSpec
from lite.model.bank import AdapterBank
from lite.model.encoding import encode_targets
from lite.model.trainers import Twin, dpo_trainer
from lite.records import Pair
from lite.runs.publish import write_json
from lite.stages.bench import Bench
from lite.stages.course import course
from lite.stages.shelf import Shelf
from lite.stages.tuning import ROLE, begin, held_out_ids, tune
from lite.text.dialogue import STOP


def dpo(spec: DpoSpec, *, pairs: Pairs, policy: Policy | None, prompts: Prompts | None, out: Path, bench: Bench) -> Policy:
    rows = pairs.rows()
    decided = [row for row in map(hard, rows) if row.label - 0.5 > spec.min_gap]
    bank = bench.bank()
    twins = _encoded(decided, spec, bank)
    held_out = held_out_ids((row.id for row, _ in twins), spec.held_out, bench.seed)
    learnt = [twin for row, twin in twins if row.id not in held_out]
    measured = [twin for row, twin in twins if row.id in held_out]
    left_out = {"undecided": len(rows) - len(decided), "too_long": len(decided) - len(twins)}
    if not learnt:
        raise ArtifactError(f"{pairs.path}: no pair to learn from: {len(rows)} pairs, left out {left_out}")
    if left_out["undecided"]:
        bench.log(f"{left_out['undecided']} of {len(rows)} pairs are left out: their label is no further than {spec.min_gap:g} from 1/2")
    begin(bank, policy, spec.lora, bench)
    bank.checkpointing(spec.checkpointing is True)
    plan = course(spec, learnt, spec.batch_pairs, epochs=spec.epochs, lr=spec.lr, bench=bench)
    terms = {"beta": spec.beta, "loss": spec.loss, "label_smoothing": spec.label_smoothing, "ld_alpha": spec.ld_alpha, "nll": spec.nll}
    with dpo_trainer(bank, ROLE, plan, **terms) as trainer:
        with bench.progress(len(learnt) + len(measured), "pairs", "dpo: log-probs of the reference") as bar:

            def done(pairs: int) -> None:
                bar.advance(pairs)
                bench.pause_inside()

            trainer.refer([*learnt, *measured], done=done)
        shelf = Shelf(spec.compare, bench.ckpt / "compared", len(plan.batches), bench.ranks) if spec.compare else None
        training = tune(trainer, spec, len(plan.batches), measured, bank, bench, "dpo: training on pairs", shelf=shelf)
    bank.checkpointing(False)
    chosen = None
    if shelf and prompts:
        chosen = shelf.choose(ROLE, policy, prompts, bank, bench)
        training = training._replace(kept=chosen.step)
        bench.log(f"step {chosen.step} of {len(plan.batches)} is kept: the best of its replies to dev prompts")
    bank.save(ROLE, out / "adapter")
    report = {
        "pairs": len(learnt),
        "held_out_pairs": len(measured),
        "left_out": left_out,
        "turned_round": Counter(row.label < 0.5 for row in rows)[True],
        "steps": len(plan.batches),
        "adapter_change": bank.change(ROLE),
        **training.report(),
        **({"compared": chosen.contests} if chosen else {}),
        **({"mean_label": fmean(twin.label for twin in learnt)} if spec.labels == "soft" else {}),
    }
    write_json(out / "report.json", report)
    first, last = training.first, training.last
    bench.log(
        f"first step: loss {first['loss']:.4f}, margin {first['margin']:.4f}; last: loss {last['loss']:.4f}, margin {last['margin']:.2f}"
    )
    return Policy(out)


def hard(pair: Pair) -> Pair:
    """The pair with the response that is more likely the better one as ``chosen``."""
    if pair.label >= 0.5:
        return pair
    return replace(
        pair,
        chosen=pair.rejected,
        rejected=pair.chosen,
        label=1 - pair.label,
        stop_chosen=pair.stop_rejected,
        stop_rejected=pair.stop_chosen,
    )


def _encoded(pairs: list[Pair], spec: DpoSpec, bank: AdapterBank) -> list[tuple[Pair, Twin]]:
    """The pairs of which both responses fit, as token ids."""
    found = []
    for pair in pairs:
        texts = [pair.chosen + STOP, pair.rejected + STOP]
        rows = encode_targets(bank.base.tokenizer, pair.prompt, texts, max_tokens=spec.max_tokens)
        if rows is not None:
            found.append((pair, Twin(*rows, label=pair.label if spec.labels == "soft" else 1.0)))
    return found
