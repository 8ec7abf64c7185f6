"""TRL's SFT and DPO trainers on an adapter of the shared base: their losses, figures and loop; our rows, batches and refusals.

Where they differ from what TRL does by itself:
1. rows come as token ids, cut between prompt and response as everywhere here: nothing is tokenised again, no end-of-text token is
   added, and the prompt's beginning is what gives way, never the response;
2. an item of the train loader is the whole batch of one optimiser step, drawn beforehand, and goes through the model in
   micro-batches of like length; each counts by its pairs or target tokens, so that their size changes no gradient. TRL's figures are
   means over passes: they are weighed the same way;
3. DPO's reference log-probs are taken once, from the adapter as it is before the first step, in TRL's own forward: no second
   adapter, no second forward per step, and the reference can only be what training starts from;
4. logits are 32-bit before a log-prob is made of them. In bf16 a sum of log-probs near -200 moves in steps of 1;
5. a loss or a gradient that is not finite stops the run before the weights are touched (transformers would log 0.0 and go on); through
   a base in fp16 gradients pass scaled, and a scale that is too high leaves an update out;
6. where memory runs out a step begins again with shorter passes; dropout is drawn anew at every step, from the step's own seed, and a
   course may begin at any step: so one that was stopped goes on to the same weights;
7. nothing is printed, reported home, or written but under ``folder``.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from operator import itemgetter
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from peft import PeftModel
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import PrinterCallback
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from lite.chance import seed_for
from lite.errors import DivergedError
from lite.model.bank import AdapterBank
from lite.model.course import Course
from lite.model.encoding import Row
from lite.model.forward import micro_batches
from lite.model.guard import Guard
from lite.model.memory import SCORE, TRAIN, Budget
from lite.model.optim import LossScale, adamw, warmup_cosine
from lite.model.reported import named
from lite.objectives.preference import other_order

IGNORED = -100
"""The label of a position that is not learnt."""
ACROSS_PAIRS = ("aot", "aot_unpaired")
"""Losses that sort the pairs of a batch: theirs goes through the model at once."""


class Twin(NamedTuple):
    """A preferred and a rejected response to one prompt; both rows have the same prompt ids.

    ``label``: the probability that ``chosen`` is the better one. Only the sigmoid loss knows labels under 1.
    """

    chosen: Row
    rejected: Row
    label: float = 1.0


class _Steps:
    """What both trainers do in the same way; TRL's class comes second in their bases."""

    course: Course
    model: Any
    accelerator: Any
    state: Any
    _metrics: dict[str, dict[str, list[float]]]
    pad_id: int
    tell: Callable[[int, dict[str, float]], None] = staticmethod(lambda step, figures: None)
    """Gets the figures of every step, once its update is done."""
    ready: Callable[[], None] | None = None
    """Called once, before the first step: weights and optimiser may be put back to what a checkpoint holds."""
    adam: torch.optim.Optimizer
    scale: LossScale
    budget: Budget
    learning: list[nn.Parameter]

    @property
    def step(self) -> int:
        """Steps that are done, those before ``course.begin`` included."""
        return self.course.begin + self.state.global_step

    # -- what the trainers of the two kinds say of their rows

    def tokens(self, row: Any) -> int:
        """Tokens that a row takes in a pass, padding aside."""
        raise NotImplementedError  # abstract: Sft and Dpo have their own

    def weight(self, row: Any) -> int:
        """What a row counts in a mean over rows."""
        raise NotImplementedError  # abstract: Sft and Dpo have their own

    def counts(self, figure: str, row: Any) -> int:
        """What a row counts in one of TRL's figures."""
        return self.weight(row)

    def mean_loss(self, model: Any, rows: Sequence[Any], total: int) -> Tensor:
        """The loss of these rows as their part of the mean over rows that weigh ``total`` together."""
        raise NotImplementedError  # abstract: Sft and Dpo have their own

    # -- the loop

    def get_train_dataloader(self) -> DataLoader:
        return DataLoader(self.course.batches[self.course.begin :], batch_size=1, shuffle=False, collate_fn=itemgetter(0))  # type: ignore[arg-type]

    def training_step(self, model: Any, inputs: Sequence[Any], num_items_in_batch: Any = None) -> Tensor:
        if self.ready and self.state.global_step == 0:
            self.ready()
        torch.manual_seed(seed_for(self.course.seed, self.step))
        model.train()
        loss = self._through(model, inputs, "train", self.scale.backward)
        self.course.ranks.add_gradients(self.learning)
        self.scale.unscale(self.learning)
        return loss

    @torch.no_grad()
    def measure(self, rows: Sequence[Any]) -> dict[str, float]:
        """The figures of rows that are not trained on."""
        self.model.eval()
        loss = self._through(self.model, rows, "eval", lambda loss: None)
        found = {name: values[0] for name, values in self._metrics["eval"].items()}
        self._metrics["eval"].clear()
        return named({"loss": float(loss), **found})

    def _through(self, model: Any, rows: Sequence[Any], mode: str, then: Callable[[Tensor], None]) -> Tensor:
        """Rows in micro-batches: ``then`` gets the loss of each; the mean loss of all, and figures of the whole in ``_metrics``.

        Several ranks go through their rows each, and loss and figures are those of all.
        """
        total, own = sum(map(self.weight, rows)), self.own(rows)

        def attempt(tokens: int) -> tuple[Tensor, list[list[Any]]]:
            self._metrics[mode].clear()
            loss = torch.zeros((), device=self.accelerator.device)
            parts = [[own[i] for i in group] for group in self._groups(own, tokens)]
            for part in parts:
                share = self.mean_loss(model, part, total)
                then(share)
                loss += share.detach()
            return loss, parts

        work = TRAIN if mode == "train" else SCORE
        loss, parts = self.budget.spend(work, self._most(own), attempt, undo=self._forget_gradients)
        if self.course.ranks.count > 1:
            loss = torch.tensor(sum(self.course.ranks.gather(float(loss))), device=loss.device)
        if not math.isfinite(loss):
            kind = type(self).__name__.lower()
            raise DivergedError(f"{kind} step {self.step + 1}: the loss is {float(loss)}; lower the learning rate")
        sums: dict[str, tuple[float, int]] = {}
        for name, values in self._metrics[mode].items():
            if len(values) == len(parts):
                weights = [sum(self.counts(name, row) for row in part) for part in parts]
                sums[name] = sum(v * w for v, w in zip(values, weights, strict=True)), sum(weights)
        for name, told in _by_name(self.course.ranks.gather(sums)).items():
            self._metrics[mode][name] = [sum(value for value, _ in told) / sum(weight for _, weight in told)]
        return loss

    def own(self, rows: Sequence[Any]) -> Sequence[Any]:
        """Those of a step's rows that go through the model here."""
        return self.course.ranks.mine(rows)

    def _groups(self, rows: Sequence[Any], tokens: int) -> list[list[int]]:
        return micro_batches([self.tokens(row) for row in rows], tokens=tokens)

    def _most(self, rows: Sequence[Any]) -> int:
        """Tokens of the longest pass that is asked for."""
        return min(self.course.micro_tokens, len(rows) * max(map(self.tokens, rows), default=0))

    def _forget_gradients(self) -> None:
        for p in self.learning:
            p.grad = None

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        found = {name: values[-1] for name, values in self._metrics["train"].items()}
        self._metrics["train"].clear()
        if "loss" in logs:  # and not the summary at the end
            self.tell(self.step, named({**found, **logs}))

    # -- what is left out

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset

    def _send_telemetry(self) -> None: ...

    def create_model_card(self, *_: Any, **__: Any) -> None: ...

    def floating_point_ops(self, inputs: Any) -> int:
        return 0

    def pad(self, sequences: Sequence[Sequence[int]], value: int) -> Tensor:
        """(B, T) long, padded on the right"""
        tensors = [torch.tensor(ids, dtype=torch.long, device=self.accelerator.device) for ids in sequences]
        return nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)


class Sft(_Steps, SFTTrainer):
    """Rows are :class:`Row`; the loss is the mean over the target tokens of a batch."""

    def tokens(self, row: Row) -> int:
        return len(row)

    def weight(self, row: Row) -> int:
        return len(row.response)

    def mean_loss(self, model: Any, rows: Sequence[Row], total: int) -> Tensor:
        inputs = {
            "input_ids": self.pad([row.prompt + row.response for row in rows], self.pad_id),
            "attention_mask": self.pad([[1] * len(row) for row in rows], 0),
            "labels": self.pad([(IGNORED,) * len(row.prompt) + row.response for row in rows], IGNORED),
        }
        return self.compute_loss(model, inputs, num_items_in_batch=total)  # type: ignore[return-value]


class Dpo(_Steps, DPOTrainer):
    """Rows are :class:`Twin`; the loss is the mean over the pairs of a batch, of TRL's loss and of ``nll`` times the chosen response's.

    The negative log-likelihood is a mean over each response's own tokens (Pang et al. 2024, eq. 2).
    """

    nll: float = 0.0
    reference: dict[Twin, tuple[float, float]]

    def tokens(self, row: Twin) -> int:
        return 2 * max(len(row.chosen), len(row.rejected))

    def weight(self, row: Twin) -> int:
        return 1

    def counts(self, figure: str, row: Twin) -> int:
        tokens = {"entropy": len(row.chosen.response) + len(row.rejected.response), "mean_token_accuracy": len(row.chosen.response)}
        return tokens.get(figure, 1)

    def mean_loss(self, model: Any, rows: Sequence[Twin], total: int) -> Tensor:
        inputs = self.collated(rows)
        known = torch.tensor([self.reference[row] for row in rows], device=self.accelerator.device)
        inputs |= {"ref_chosen_logps": known[:, 0], "ref_rejected_logps": known[:, 1]}
        loss, outputs = self._compute_loss(model, inputs, return_outputs=True)
        if any(row.label < 1 for row in rows):
            loss = loss + self._other_order(outputs.logits, rows, known)
        if self.nll:
            loss = loss + self.nll * self._nll(outputs.logits[: len(rows)], rows)
        return loss * (len(rows) / total)

    @torch.no_grad()
    def refer(self, rows: Sequence[Twin], done: Callable[[int], None] = lambda n: None) -> None:
        """Take the reference log-probs of rows from the model as it is now. TRL's reference model is a stand-in, so it switches nothing."""
        self.model.eval()
        own = self.course.ranks.mine(rows)

        def attempt(tokens: int) -> None:
            todo = [row for row in own if row not in self.reference]
            for group in micro_batches([self.tokens(row) for row in todo], tokens=tokens):
                part = [todo[i] for i in group]
                chosen, rejected = self.compute_ref_log_probs(self.model, self.collated(part))
                self.reference |= dict(zip(part, zip(chosen.tolist(), rejected.tolist(), strict=True), strict=True))
                done(len(part))

        self.budget.spend(SCORE, self._most(own), attempt)
        for found in self.course.ranks.gather(self.reference):
            self.reference |= found

    def collated(self, rows: Sequence[Twin]) -> dict[str, Tensor]:
        """The chosen rows, then the rejected ones: (2B, T)"""
        texts = [row.chosen for row in rows] + [row.rejected for row in rows]
        return {
            "input_ids": self.pad([row.prompt + row.response for row in texts], self.pad_id),
            "attention_mask": self.pad([[1] * len(row) for row in texts], 0),
            "completion_mask": self.pad([[0] * len(row.prompt) + [1] * len(row.response) for row in texts], 0),
        }

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        return dataset

    def own(self, rows: Sequence[Twin]) -> Sequence[Twin]:
        return super().own(rows) if not self._sorts else rows if self.course.ranks.number == 0 else []

    def _groups(self, rows: Sequence[Twin], tokens: int) -> list[list[int]]:
        return [list(range(len(rows)))] if self._sorts and rows else super()._groups(rows, tokens)

    @property
    def _sorts(self) -> bool:
        return bool(set(self.loss_types) & set(ACROSS_PAIRS))

    def _other_order(self, logits: Tensor, rows: Sequence[Twin], known: Tensor) -> Tensor:
        """What soft labels add to the mean sigmoid loss. logits (2B, T, V); known (B, 2): the reference's log-probs of both responses"""
        texts = [row.chosen for row in rows] + [row.rejected for row in rows]
        chosen, rejected = (-self._surprise(logits, texts, "sum")).chunk(2)
        margins = self.beta * ((chosen - known[:, 0]) - (rejected - known[:, 1]))
        return other_order(margins, torch.tensor([row.label for row in rows], device=logits.device)).mean()

    def _nll(self, logits: Tensor, rows: Sequence[Twin]) -> Tensor:
        """logits (B, T, V) of the chosen texts -> mean over rows of the mean over response tokens."""
        return self._surprise(logits, [row.chosen for row in rows], "mean").mean()

    @staticmethod
    def _surprise(logits: Tensor, rows: Sequence[Row], reduction: str) -> Tensor:
        """logits (B, T, V) -> (B,): the negative log-likelihood of every response, summed or averaged over its tokens."""
        own = [
            nn.functional.cross_entropy(
                logits[i, len(row.prompt) - 1 : len(row) - 1], torch.tensor(row.response, device=logits.device), reduction=reduction
            )
            for i, row in enumerate(rows)
        ]
        return torch.stack(own)


@contextmanager
def sft_trainer(bank: AdapterBank, role: str, course: Course) -> Iterator[Sft]:
    """A trainer of ``role`` on :class:`Row` batches."""
    config = SFTConfig(**_settings(bank, course), loss_type="chunked_nll", dataset_kwargs={"skip_prepare_dataset": True}, max_length=None)

    def build(model: PeftModel) -> Sft:
        return Sft(model=model, args=config, **_parts(bank, role, course))

    with bank.lent(role, build) as trainer:
        yield _dressed(trainer, bank, role, course)


@contextmanager
def dpo_trainer(
    bank: AdapterBank,
    role: str,
    course: Course,
    *,
    beta: float,
    loss: str,
    label_smoothing: float = 0.0,
    ld_alpha: float | None = None,
    nll: float = 0.0,
) -> Iterator[Dpo]:
    """A trainer of ``role`` on :class:`Twin` batches; call ``refer`` with every row before the first step."""
    config = DPOConfig(
        **_settings(bank, course),
        beta=beta,
        loss_type=[loss],
        label_smoothing=label_smoothing,
        ld_alpha=ld_alpha,
        max_length=None,
        disable_dropout=False,  # it would set the shared modules' rate for good; the adapter has the rate that the recipe gives
        precompute_ref_log_probs=True,
    )

    def build(model: PeftModel) -> Dpo:
        return Dpo(model=model, ref_model=nn.Identity(), args=config, **_parts(bank, role, course))  # type: ignore[arg-type]

    with bank.lent(role, build) as trainer:
        trainer.nll, trainer.reference = nll, {}
        bank.base.model.get_output_embeddings().register_forward_hook(lambda head, given, logits: logits.float())  # type: ignore[union-attr]
        yield _dressed(trainer, bank, role, course)


def _by_name(told: Sequence[dict[str, tuple[float, int]]]) -> dict[str, list[tuple[float, int]]]:
    return {name: [one[name] for one in told if name in one] for name in dict.fromkeys(name for one in told for name in one)}


def _settings(bank: AdapterBank, course: Course) -> dict[str, Any]:
    return {
        "output_dir": str(course.folder),
        "max_steps": len(course.batches) - course.begin,
        "max_grad_norm": course.max_grad_norm,
        "seed": course.seed % 2**32,
        "use_cpu": bank.base.device.type == "cpu",
        "bf16": False,  # the base computes in its own type, and the adapter in fp32: no autocast
        "gradient_checkpointing": False,  # the bank's to switch
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
    }


def _parts(bank: AdapterBank, role: str, course: Course) -> dict[str, Any]:
    """Optimiser and schedule are those of the other stages. TRL wants to see a dataset; ours are the course's batches."""
    parameters = bank.parameters(role)
    total = len(course.batches)
    optimizer = adamw([(parameters, course.lr)], weight_decay=course.weight_decay)
    schedule = LambdaLR(optimizer, lambda step: warmup_cosine(course.begin + step, total, round(course.warmup * total)))
    return {
        "optimizers": (optimizer, schedule),
        "processing_class": deepcopy(bank.base.tokenizer),  # TRL gives it a padding token where it has none
        "train_dataset": Dataset.from_dict({"input_ids": [[0]], "labels": [[0]]}),
        "callbacks": [Guard(parameters, course.begin)],
    }


def _dressed(trainer: Any, bank: AdapterBank, role: str, course: Course) -> Any:
    trainer.course, trainer.pad_id = course, bank.base.pad_id
    trainer.adam, trainer.scale = trainer.optimizer, LossScale(bank.vocabulary.dtype)
    trainer.budget, trainer.learning = bank.budget, bank.parameters(role)
    trainer.args._n_gpu = 1  # one GPU, however many there are: Trainer would spread a batch over all of them
    trainer.remove_callback(PrinterCallback)
    return trainer
