"""What SFT, DPO and the reward model share: what is held out, the order of the rows, where training starts, and what is kept of it."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from lite.artifacts import Policy
from lite.chance import random_for, seed_for
from lite.errors import DivergedError, RecipeError
from lite.knobs import LoraSpec
from lite.knobs.training import TuneSpec
from lite.model.bank import AdapterBank
from lite.model.optim import LossScale
from lite.model.state import load_state, save_state
from lite.stages.bench import Bench, Progress

ROLE = "policy"
Row = TypeVar("Row")


class Shelf(Protocol):
    """Takes adapters to compare them later."""

    def put(self, step: int, weights: Mapping[str, Tensor]) -> None: ...


class Trainer(Protocol):
    tell: Any  # (step, figures) -> None
    ready: Any  # () -> None, before the first step
    adam: torch.optim.Optimizer
    scale: LossScale

    def train(self) -> Any: ...

    def measure(self, rows: Sequence[Any]) -> dict[str, float]: ...


class Training(NamedTuple):
    """What became of a training; the bank holds the adapter of step ``kept``."""

    kept: int
    first: dict[str, float]  # figures of the first step, taken before its update
    last: dict[str, float]
    held_out: dict[int, dict[str, float]]  # by step

    def report(self) -> dict[str, Any]:
        return {"kept_step": self.kept, "first": self.first, "last": self.last, "held_out": self.held_out}


def held_out_ids(ids: Iterable[str], share: float, seed: int) -> set[str]:
    """Ids of the rows that are not trained on: a fixed share, drawn by id, so that other rows coming or going change no choice."""
    ranked = sorted(set(ids), key=lambda name: seed_for(seed, "held out", name))
    return set(ranked[: max(1, round(share * len(ranked)))]) if share and len(ranked) > 1 else set()


def batches(rows: Sequence[Row], size: int, *, epochs: int, bench: Bench) -> list[list[Row]]:
    """The rows of every step; each epoch has an order of its own, drawn by its number."""
    found = []
    for epoch in range(epochs):
        order = random_for(bench.seed, bench.stage, "order", epoch).sample(range(len(rows)), len(rows))
        found += [[rows[i] for i in order[k : k + size]] for k in range(0, len(rows), size)]
    return found


def begin(bank: AdapterBank, policy: Policy | None, lora: LoraSpec, bench: Bench) -> None:
    """Put the adapter on the base that is trained: a fresh one, equal to the base, or a policy's own weights to go on from."""
    if policy is None:
        bank.add(ROLE, lora, seed=bench.seed_for("adapter"))
        return
    stored = policy.read_json("adapter/adapter_config.json")
    own = {"r": stored["r"], "alpha": stored["lora_alpha"]}
    if clash := [name for name, value in own.items() if name in lora.model_fields_set and getattr(lora, name) != value]:
        raise RecipeError(
            bench.stage,
            [f"lora.{name}: {getattr(lora, name)}, but the policy that is trained on has {own[name]}; leave it out" for name in clash],
        )
    bank.load(ROLE, policy.adapter, trainable=True, dropout=lora.dropout)


def tune(
    trainer: Trainer,
    spec: TuneSpec,
    steps: int,
    held_out: Sequence[Any],
    bank: AdapterBank,
    bench: Bench,
    what: str,
    *,
    shelf: Shelf | None = None,
) -> Training:
    """Train to the end, measuring on the way; where a step diverges the last good adapter is kept, and its place told.

    The trainer's course begins after the step of ``bench.resumed``; what else that checkpoint holds is put back here. ``shelf`` is given
    the adapter after every step.
    """
    with bench.progress(steps, "steps", what) as bar:
        watch = Watch(trainer, spec, steps, held_out, bank, bench, bar, shelf)
        trainer.tell, trainer.ready = watch.step, watch.go_on
        try:
            if done_before(bench) < steps:
                trainer.train()
            else:
                watch.go_on()
        except DivergedError as e:
            kept = bench.ckpt / "last-good"
            bank.restore(ROLE, watch.last_good)
            bank.save(ROLE, kept)
            raise DivergedError(f"{bench.stage}: {e}; the last good adapter is kept in {kept}") from e
    if watch.best is not None:
        bank.restore(ROLE, watch.best)
    return Training(watch.kept, watch.first, watch.last, watch.held)


def done_before(bench: Bench) -> int:
    """Steps that an earlier process did, and kept."""
    return bench.resumed.step if bench.resumed else 0


class Watch:
    """Hears of every step: figures to the bench, measurements of what is held out, checkpoints, and the weights that may be gone back to."""

    def __init__(
        self,
        trainer: Trainer,
        spec: TuneSpec,
        steps: int,
        held_out: Sequence[Any],
        bank: AdapterBank,
        bench: Bench,
        bar: Progress,
        shelf: Shelf | None = None,
    ):
        self._trainer, self._spec, self._steps, self._rows = trainer, spec, steps, held_out
        self._bank, self._bench, self._bar, self._shelf = bank, bench, bar, shelf
        self._now = self.last_good = bank.snapshot(ROLE)
        self.best: dict[str, Tensor] | None = None
        self.kept = steps
        self.first: dict[str, float] = {}
        self.last: dict[str, float] = {}
        self.held: dict[int, dict[str, float]] = {}

    def step(self, step: int, figures: dict[str, float]) -> None:
        self.first, self.last = self.first or figures, figures
        self.last_good, self._now = self._now, self._bank.snapshot(ROLE)  # the newest update has not been seen to be good yet
        self._bench.metric(step=step, **figures)
        self._bar.advance(1, **{name: figures[name] for name in ("loss", "accuracy", "margin") if name in figures})
        if self._shelf:
            self._shelf.put(step, self._now)
        every = self._spec.eval_every
        if self._rows and (step == self._steps or (every and step % every == 0)):
            self._measure(step)
        self._bench.keep(step, self._steps, self._save, every=self._spec.save_every)

    def _save(self, folder: Path) -> None:
        weights: dict[str, Mapping[str, Tensor]] = {ROLE: self._now, "last good": self.last_good}
        if self.best is not None:  # may be one of the two, and a file holds no tensor twice
            weights["best"] = {name: tensor.clone() for name, tensor in self.best.items()}
        facts = {
            "loss_scale": self._trainer.scale.state_dict(),
            "first": self.first,
            "last": self.last,
            "held": self.held,
            "kept": self.kept,
        }
        save_state(folder, weights=weights, optimizer=self._trainer.adam, facts=facts)

    def go_on(self) -> None:
        """Put back what the checkpoint holds, if there is one."""
        if self._bench.resumed is None:
            return
        weights, facts = load_state(self._bench.resumed.path, self._trainer.adam)
        self._bank.restore(ROLE, weights[ROLE])
        self._now, self.last_good, self.best = weights[ROLE], weights["last good"], weights.get("best")
        self._trainer.scale.load_state_dict(facts["loss_scale"])
        self.first, self.last, self.kept = facts["first"], facts["last"], facts["kept"]
        self.held = {int(step): found for step, found in facts["held"].items()}
        self._bar.advance(self._bench.resumed.step)

    def _measure(self, step: int) -> None:
        found = self._trainer.measure(self._rows)
        self._bench.metric(step=step, **{f"held_out_{name}": value for name, value in found.items()})
        if self._spec.keep == "best" and (self.best is None or found["loss"] < self.held[self.kept]["loss"]):
            self.best, self.kept = self._now, step
        self.held[step] = found
