"""The reward model: a LoRA adapter and a scalar head on the shared base, from preference pairs.

Pairwise logistic loss on the difference of the two rewards (Ouyang et al. 2022, eq. 1), with hard or soft labels (Yang et al.
2023, section 3: RLCD's are hard). A text is prompt + response + the start of the next human turn, and its reward is read at the
last token of that, or as the mean over the response. Where a text is too long the prompt's beginning is cut, so that the two responses of a pair stay different.
"""

import math
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from lite.artifacts import Pairs, Reward
from lite.chance import random_for
from lite.errors import ArtifactError
from lite.knobs.training import RewardSpec
from lite.model.bank import AdapterBank
from lite.model.encoding import Row, encode_row
from lite.model.forward import Pause, collate, hidden_states, micro_batches, nothing, response_rewards, reward_rows
from lite.model.memory import TRAIN
from lite.model.optim import LossScale, adamw, clip_and_check, set_rate, warmup_cosine
from lite.model.state import load_state, save_state
from lite.objectives import metrics
from lite.objectives.preference import bradley_terry, center_penalty, preference_probability
from lite.records import Pair
from lite.runs.publish import write_json
from lite.runs.ranks import Ranks
from lite.stages.bench import Bench
from lite.stages.tuning import held_out_ids
from lite.text.dialogue import STOP

ROLE = "reward"


class Encoded(NamedTuple):
    chosen: Row
    rejected: Row
    label: float

    @property
    def longest(self) -> int:
        return max(len(self.chosen), len(self.rejected))


def reward(spec: RewardSpec, *, pairs: Pairs, out: Path, bench: Bench) -> Reward:
    rows = pairs.rows()
    held_out = held_out_ids((row.id for row in rows), spec.held_out, bench.seed)
    if not held_out or len(held_out) == len(rows):
        raise ArtifactError(f"{pairs.path}: {len(rows)} pairs are too few to train a reward model and to measure it")
    bank = bench.bank()
    bank.add(ROLE, spec.lora, seed=bench.seed_for("adapter"))
    bank.head(ROLE).randomize(bench.seed_for("head")).pool = spec.pool
    bank.checkpointing(spec.checkpointing is True)  # the engine has settled `auto`
    tokenizer = bank.base.tokenizer

    def encoded(kept: list[Pair]) -> list[Encoded]:
        def row(pair: Pair, text: str) -> Row:
            return encode_row(tokenizer, pair.prompt, text + STOP, max_tokens=spec.max_tokens)

        return [Encoded(row(p, p.chosen), row(p, p.rejected), p.label) for p in kept]

    _train(spec, encoded([p for p in rows if p.id not in held_out]), bank, bench)
    measured = measure(bank, encoded([p for p in rows if p.id in held_out]), micro_tokens=spec.micro_tokens, pause=bench.pause_inside)
    bank.checkpointing(False)
    bank.save(ROLE, out / "adapter")
    bank.head(ROLE).save(out / "head.safetensors")
    report = {"pairs": len(rows) - len(held_out), "held_out": len(held_out), "adapter_change": bank.change(ROLE), **measured}
    write_json(out / "report.json", report)
    accuracy = report["accuracy"]
    bench.log(f"accuracy {'not defined' if accuracy is None else f'{accuracy:.3f}'} on {len(held_out)} held-out pairs")
    return Reward(out)


def _train(spec: RewardSpec, pairs: list[Encoded], bank: AdapterBank, bench: Bench) -> None:
    head = bank.head(ROLE)
    parameters = [*bank.parameters(ROLE), *head.parameters()]
    optimizer = adamw([(parameters, spec.lr)], weight_decay=spec.weight_decay)
    scale = LossScale(bank.vocabulary.dtype)
    per_epoch = math.ceil(len(pairs) / spec.batch_pairs)
    total = spec.epochs * per_epoch
    warmup = round(spec.warmup * total)

    def save(folder: Path) -> None:
        weights = {ROLE: bank.snapshot(ROLE), "head": head.state_dict()}
        save_state(folder, weights=weights, optimizer=optimizer, facts={"loss_scale": scale.state_dict()})

    begin = 0
    if bench.resumed:
        found = load_state(bench.resumed.path, optimizer)
        bank.restore(ROLE, found.weights[ROLE])
        head.load_state_dict(found.weights["head"])
        scale.load_state_dict(found.facts["loss_scale"])
        begin = bench.resumed.step
    with bench.progress(total, "steps", "reward: training on pairs") as bar:
        bar.advance(begin)
        for step in range(begin, total):
            torch.manual_seed(bench.seed_for("dropout", step))
            epoch, k = divmod(step, per_epoch)
            order = random_for(bench.seed, bench.stage, "order", epoch).sample(range(len(pairs)), len(pairs))
            batch = [pairs[i] for i in order[k * spec.batch_pairs : (k + 1) * spec.batch_pairs]]
            set_rate(optimizer, warmup_cosine(step, total, warmup))
            most = min(spec.micro_tokens, 2 * len(batch) * max(pair.longest for pair in batch))
            loss, accuracy = bank.budget.spend(
                TRAIN, most, partial(_accumulate, spec, batch, bank, scale, bench.ranks), undo=optimizer.zero_grad
            )
            loss, accuracy = (sum(shares) for shares in zip(*bench.ranks.gather((loss, accuracy)), strict=True))
            bench.ranks.add_gradients(parameters)
            scale.unscale(parameters)
            norm = clip_and_check(parameters, spec.max_grad_norm, f"reward step {step + 1}")
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            rate = optimizer.param_groups[0]["lr"]
            bench.metric(step=step + 1, loss=loss, accuracy=accuracy, grad_norm=norm, lr=rate)
            bar.advance(1, loss=loss, accuracy=accuracy)
            bench.keep(step + 1, total, save, every=spec.save_every)


def _accumulate(
    spec: RewardSpec, batch: list[Encoded], bank: AdapterBank, scale: LossScale, ranks: Ranks, micro_tokens: int
) -> tuple[float, float]:
    """Gradients of the batch's mean loss, micro-batch by micro-batch; loss and accuracy of the batch. Of several ranks: my shares of them."""
    loss = hits = 0.0
    own = ranks.mine(batch)
    for group in micro_batches([2 * pair.longest for pair in own], tokens=micro_tokens):
        part = [own[i] for i in group]
        texts = collate([p.chosen for p in part] + [p.rejected for p in part], pad_id=bank.base.pad_id, device=bank.base.device)
        label = torch.tensor([p.label for p in part], device=bank.base.device)
        with bank.using(ROLE, training=True) as trunk:
            chosen, rejected = response_rewards(hidden_states(trunk, texts), bank.head(ROLE), texts).chunk(2)
            share = (bradley_terry(chosen, rejected, label) + spec.center * center_penalty(chosen, rejected)).sum() / len(batch)
            scale.backward(share)
        loss += share.item()
        hits += float(metrics.accuracy((chosen - rejected).detach(), label).nan_to_num()) * len(part)
    return loss, hits / len(batch)


def measure(bank: AdapterBank, pairs: list[Encoded], *, micro_tokens: int, pause: Pause = nothing) -> dict[str, float | None]:
    """Accuracy, calibration and what length explains, of the reward role on labelled pairs; None is what pairs without a preference tell."""
    chosen, rejected = (
        reward_rows(bank, rows, role=ROLE, micro_tokens=micro_tokens, pause=pause).cpu()
        for rows in zip(*((p.chosen, p.rejected) for p in pairs), strict=True)
    )
    label = torch.tensor([p.label for p in pairs])
    prob = preference_probability(chosen, rejected)
    lengths = [
        torch.tensor([float(len(row.response)) for row in rows]) for rows in ([p.chosen for p in pairs], [p.rejected for p in pairs])
    ]
    figures = {
        "accuracy": metrics.accuracy(chosen - rejected, label),
        "probability": (prob * label + (1 - prob) * (1 - label)).mean(),
        "brier": metrics.brier(prob, label),
        "calibration_error": _calibration(prob, label),
        "length_correlation": metrics.pearson(torch.cat([chosen, rejected]), torch.cat(lengths)),
        "longer_accuracy": metrics.accuracy(lengths[0] - lengths[1], label),
        "mean": torch.cat([chosen, rejected]).mean(),
        "std": torch.cat([chosen, rejected]).std(),
    }
    return {name: None if math.isnan(float(x)) else float(x) for name, x in figures.items()}


def _calibration(prob: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Pairs are stored chosen-first, so every hard label is 1; half of them are turned round, or calibration would have one side only."""
    turned = torch.arange(len(prob)) % 2 == 1
    return metrics.expected_calibration_error(torch.where(turned, 1 - prob, prob), torch.where(turned, 1 - label, label))
