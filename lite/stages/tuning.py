"""What SFT, DPO and the reward model share: what is held out, the order of the rows, where training starts, and what is kept of it."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from torch import Tensor
from torch.optim import Optimizer

from lite.artifacts import Policy
from lite.chance import random_for, seed_for
from lite.errors import DivergedError, RecipeError
from lite.knobs import LoraSpec
from lite.knobs.training import TuneSpec
from lite.model.bank import AdapterBank
from lite.model.state import load_state, save_state
from lite.stages.bench import Bench, Progress

ROLE = "policy"
Row = TypeVar("Row")


class Trainer(Protocol):
    tell: Callable[[int, dict[str, float]], None]
    restore: Callable[[], None]

    @property
    def plain_optimizer(self) -> Optimizer: ...

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


def steps_done(bench: Bench) -> int:
    """Optimiser steps in the checkpoint that this training goes on from."""
    return bench.resumed.step if bench.resumed else 0


def tune(trainer: Trainer, spec: TuneSpec, steps: int, held_out: Sequence[Any], bank: AdapterBank, bench: Bench, what: str) -> Training:
    """Train to the end, measuring on the way; where a step diverges the last good adapter is kept, and its place told.

    A training that was interrupted goes on from its checkpoint; ``trainer`` comes with the adapter as it was before the first step.
    """
    begin = steps_done(bench)
    with bench.progress(steps, "steps", what) as bar:
        watch = Watch(trainer, spec, steps, held_out, bank, bench, bar)
        trainer.tell, trainer.restore = watch.step, watch.restore
        bar.advance(begin)
        try:
            if begin < steps:
                trainer.train()
            else:
                watch.restore()
        except DivergedError as e:
            kept = bench.ckpt / "last-good"
            bank.restore(ROLE, watch.last_good)
            bank.save(ROLE, kept)
            raise DivergedError(f"{bench.stage}: {e}; the last good adapter is kept in {kept}") from e
    if watch.best is not None:
        bank.restore(ROLE, watch.best)
    return Training(watch.kept, watch.first, watch.last, watch.held)


class Watch:
    """Hears of every step: figures to the bench, measurements of what is held out, and the weights that may be gone back to."""

    def __init__(
        self, trainer: Trainer, spec: TuneSpec, steps: int, held_out: Sequence[Any], bank: AdapterBank, bench: Bench, bar: Progress
    ):
        self._trainer, self._spec, self._steps, self._rows = trainer, spec, steps, held_out
        self._bank, self._bench, self._bar = bank, bench, bar
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
        every = self._spec.eval_every
        if self._rows and (step == self._steps or (every and step % every == 0)):
            self._measure(step)
        self._bench.keep(step, self._steps, self._save, every=self._spec.save_every)

    def restore(self) -> None:
        """Go on as after the step of the checkpoint; without one there is nothing to do."""
        if not self._bench.resumed:
            return
        weights, facts = load_state(self._bench.resumed.path, self._trainer.plain_optimizer)
        self._bank.restore(ROLE, weights[ROLE])
        self._now, self.last_good, self.best = weights[ROLE], weights["last good"], weights.get("best")
        self.kept, self.first, self.last = facts["kept"], facts["first"], facts["last"]
        self.held = {int(step): figures for step, figures in facts["held_out"].items()}

    def _save(self, folder: Path) -> None:
        weights = {ROLE: self._now, "last good": self.last_good} | ({"best": self.best} if self.best else {})
        facts = {"kept": self.kept, "first": self.first, "last": self.last, "held_out": self.held}
        save_state(folder, weights=weights, optimizer=self._trainer.plain_optimizer, facts=facts)

    def _measure(self, step: int) -> None:
        found = self._trainer.measure(self._rows)
        self._bench.metric(step=step, **{f"held_out_{name}": value for name, value in found.items()})
        if self._spec.keep == "best" and (self.best is None or found["loss"] < self.held[self.kept]["loss"]):
            self.best, self.kept = self._bank.snapshot(ROLE), step  # a copy: tensors that are kept side by side share no memory
        self.held[step] = found
