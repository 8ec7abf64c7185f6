"""What ``benchmarks/gpu.py`` measures, one function per part, through ``lite``'s own code: each gives plain figures.

Texts are made-up words of exact lengths. A random model never stops, so every response has full length: that is the worst case for memory
and time, and nothing can be refilled.
"""

import importlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import rollouts
from benchmarks.old_loop import OldLoop
from benchmarks.random_base import FIRST_WORD, Silent, add_roles
from benchmarks.random_base import bench as silent_bench
from lite.artifacts import Pairs
from lite.contracts import CONTRACTS
from lite.fit import sizes
from lite.fit.shape import Shape
from lite.knobs import Spec
from lite.knobs.ppo import PpoSpec
from lite.knobs.training import RewardSpec
from lite.model.bank import AdapterBank
from lite.model.generate import Decoding, generate
from lite.records import Pair, write_rows
from lite.stages.ppo import Trainer
from lite.stages.reward import reward as reward_stage
from lite.stages.rollouts import POLICY, REWARD, VALUE

Ids = tuple[int, ...]
Figures = dict[str, Any]
SPREAD = 0.01
"""Standard deviation of B: adapters that do something."""


@dataclass(frozen=True)
class Job:
    """One machine, one base, and what to do how often."""

    bank: AdapterBank
    shape: Shape
    specs: Mapping[str, Any]  # by kind of stage, as they fit the card
    prompt_tokens: int
    new_tokens: int
    rows: tuple[int, ...]
    left_out: Mapping[int, str]  # numbers of rows that do not fit the card, and why
    steps: int
    repeats: int

    @property
    def device(self) -> torch.device:
        return self.bank.base.device

    def prompts(self, n: int, *, seed: int = 1, tokens: int | None = None) -> list[Ids]:
        generator = torch.Generator().manual_seed(seed)
        length = tokens or self.prompt_tokens
        return [tuple(row) for row in torch.randint(FIRST_WORD, self.shape.vocab, (n, length), generator=generator).tolist()]


def clock(device: torch.device) -> float:
    """Seconds, once the device has done all that it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def timed(device: torch.device, work: Callable[[], object]) -> float:
    began = clock(device)
    work()
    return clock(device) - began


def middle(times: Sequence[float]) -> float:
    return sorted(times)[len(times) // 2]


# -- generation -----------------------------------------------------------------------------------------------------------------


def bandwidth(device: torch.device) -> float:
    """Bytes per second that a large copy moves, read and written."""
    n = 2**30 if device.type == "cuda" else 2**26
    a = torch.empty(n, dtype=torch.uint8, device=device)
    b = torch.empty_like(a)
    b.copy_(a)
    return 2 * n / min(timed(device, lambda: b.copy_(a)) for _ in range(5))


def generation(job: Job) -> Figures:
    """Tokens per second of ours and transformers' generate, with an adapter, and what the bandwidth allows, for each number of rows."""
    told = {"left_out": {str(rows): why for rows, why in job.left_out.items()}}
    if not job.rows:
        return told | {"not_measured": f"no number of rows fits: {'; '.join(f'{rows} {why}' for rows, why in job.left_out.items())}"}
    bank, found, speed = job.bank, dict[str, Figures](), bandwidth(job.device)
    bank.clear()
    add_roles(bank, (POLICY,), lora=job.specs["ppo"].lora, spread=SPREAD)
    for rows in job.rows:
        try:
            found[str(rows)] = _both_ways(job, rows, speed)
        except torch.OutOfMemoryError:  # the other numbers keep their figures
            found[str(rows)] = {"failed": "out of memory"}
        if job.device.type == "cuda":
            torch.cuda.empty_cache()
    return told | {"bytes_per_second": speed, "tokens_per_second": found}


def _both_ways(job: Job, rows: int, speed: float) -> Figures:
    bank, prompts = job.bank, job.prompts(rows)
    wide = 2 if job.device.type == "cuda" else 4
    weights = sum(p.numel() * p.element_size() for name, p in bank.base.model.named_parameters() if "lora_" not in name and p.ndim > 1)
    embedding = bank.base.hidden_size * job.shape.vocab * wide  # of it a few rows are read
    sides: dict[str, Callable[[], int]] = {
        "ours": lambda: rollouts.ours(bank, prompts, rows, job.new_tokens, 1),
        "generate": lambda: rollouts.theirs(bank, prompts, rows, job.new_tokens, 1, stops=False),
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(job.repeats):
        for name, side in sides.items():
            times[name].append(timed(job.device, side))
    tokens = rows * job.new_tokens
    cache = rows * sizes.kv_cache(job.shape, job.prompt_tokens + job.new_tokens // 2, wide)
    ours, theirs = (tokens / middle(times[name]) for name in ("ours", "generate"))
    bound = rows * speed / (weights - embedding + cache)
    return {"ours": ours, "generate": theirs, "times": ours / theirs, "bound": bound, "of_bound": ours / bound}


def pairs(job: Job) -> Figures:
    """Two sides of every prompt, which share all but the last 16 tokens: with the prefix shared, and apart."""
    job.bank.clear()
    spec = job.specs["contrast"]
    n = max(2, spec.batch_rows // 2 * 2)
    both = [p + tail for p in job.prompts(n // 2) for tail in job.prompts(2, seed=2, tokens=16)]
    groups, decoding = [i // 2 for i in range(n)], Decoding(job.new_tokens)
    seconds = {
        name: timed(job.device, lambda of=of: generate(job.bank, None, both, seeds=range(n), decoding=decoding, rows=n, groups=of))
        for name, of in (("shared", groups), ("apart", None))
    }
    return {"rows": n, "tokens_per_second": {name: n * job.new_tokens / s for name, s in seconds.items()}}


# -- stages that learn from pairs -------------------------------------------------------------------------------------------------


@dataclass
class Clocked(Silent):
    """Notes when each training step ended."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    ticks: list[float] = field(default_factory=list)

    def metric(self, **values: Any) -> None:
        super().metric(**values)
        if "step" in values:
            self.ticks.append(clock(self.device))


def _made_up_pairs(job: Job, folder: Path, n: int) -> Pairs:
    def text(seed: int, tokens: int) -> str:
        return "".join(f" w{i}" for i in job.prompts(1, seed=seed, tokens=tokens)[0])

    half = job.new_tokens
    rows = [
        Pair(
            id=f"p{i}",
            prompt=text(3 * i, job.prompt_tokens),
            chosen=text(3 * i + 1, half),
            rejected=text(3 * i + 2, half),
            label=1.0,
            p_plus="",
            p_minus="",
            index=0,
            attempts=1,
            stop_chosen="turn",
            stop_rejected="turn",
        )
        for i in range(n)
    ]
    write_rows(folder / "pairs.jsonl", rows)
    return Pairs(folder)


def _learning(job: Job, kind: str, stage: Callable[..., object], spec: Spec, **inputs: object) -> Figures:
    """Seconds per optimiser step and tokens per second of a stage on made-up pairs; its first step warms up."""
    batch = spec.batch_pairs  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as name:
        folder, reporter = Path(name), Clocked(device=job.device)
        (folder / "out").mkdir()
        made = _made_up_pairs(job, folder, batch * (job.steps + 1) + 2)
        bench = replace(silent_bench(job.bank, folder), stage=kind, reporter=reporter)
        stage(spec, pairs=made, out=folder / "out", bench=bench, **inputs)
    steps = [b - a for a, b in zip(reporter.ticks, reporter.ticks[1:], strict=False)]
    tokens = 2 * batch * (job.prompt_tokens + job.new_tokens)
    return {"seconds_per_step": middle(steps), "tokens_per_second": tokens / middle(steps), "pairs_per_step": batch}


def reward(job: Job) -> Figures:
    spec: RewardSpec = job.specs["reward"]
    return _learning(job, "reward", reward_stage, spec.model_copy(update={"held_out": 0.01}))


def dpo(job: Job) -> Figures:
    """Whatever stage ``lite`` has by that name."""
    if "dpo" not in CONTRACTS:
        return {"not_measured": "this lite has no stage dpo"}
    stage = importlib.import_module("lite.stages.dpo").dpo
    return _learning(job, "dpo", stage, job.specs["dpo"].model_copy(update={"held_out": 0.01}), policy=None, prompts=None)


# -- PPO ----------------------------------------------------------------------------------------------------------------------------


@contextmanager
def _trainer(job: Job) -> Iterator[Trainer]:
    spec: PpoSpec = job.specs["ppo"]
    bank = job.bank
    bank.clear()
    add_roles(bank, (POLICY, REWARD, *([VALUE] if spec.value == "separate" else [])), lora=spec.lora, spread=SPREAD)
    bank.head(REWARD).randomize(1).requires_grad_(False)
    bank.head(VALUE).randomize(2)
    bank.checkpointing(spec.checkpointing)
    with tempfile.TemporaryDirectory() as folder:
        yield Trainer(spec, bank, silent_bench(bank, Path(folder)), job.prompts(spec.rollouts))
    bank.clear()


def ppo(job: Job) -> Figures:
    """Whole steps of the trainer; the first warms up."""
    with _trainer(job) as trainer:
        steps = []
        for k in range(job.steps + 1):
            figures: dict[str, float] = {}
            seconds = timed(job.device, lambda k=k, figures=figures: figures.update(trainer.step(k)))
            steps.append({"seconds": seconds} | {name: figures[name] for name in figures if name.startswith("seconds_")})
    parts = {name: middle([step[name] for step in steps[1:]]) for name in steps[0]}
    return {"rollouts": trainer.spec.rollouts, "steps": job.steps, **parts}


def old_ppo(job: Job) -> Figures:
    """The same steps in the old loop shape on the same base (see ``old_loop.py``)."""
    job.bank.clear()
    spec: PpoSpec = job.specs["ppo"]
    loop = OldLoop(spec, job.bank.base.model)
    try:
        if spec.checkpointing:
            loop.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        prompts, order = job.prompts(spec.rollouts), list(range(spec.rollouts))
        times = [timed(job.device, lambda k=k: loop.step(prompts, [order] * spec.epochs, seed=k)) for k in range(2)]
    finally:
        loop.model.base_model.unload()  # type: ignore[operator]
        job.bank.checkpointing(False)
    return {"rollouts": spec.rollouts, "steps": 1, "seconds": times[1]}


PARTS: Mapping[str, Callable[[Job], Figures]] = {
    "generation": generation,
    "pairs": pairs,
    "reward": reward,
    "dpo": dpo,
    "ppo": ppo,
    "old_ppo": old_ppo,
}
STAGES = {"pairs": "contrast", "reward": "reward", "dpo": "dpo", "ppo": "ppo"}
"""Parts that are stages of a recipe, whose memory ``lite.fit`` estimates."""
