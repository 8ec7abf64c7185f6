"""The whole loop at true sizes on one GPU, with random weights: memory against the estimate, speed against plain code.

    python -m benchmarks.gpu --model 7b --card 8          a card of 8 GB, or a larger one that may use no more
    python -m benchmarks.gpu --model 30b --card 24
    python -m benchmarks.gpu --cpu                        a toy shape without a GPU: shows that the script runs, measures nothing of use

Needs what `pip install -e .` installs and a GPU; nothing is downloaded, since weights are made on the card, matrix by matrix. Measured,
each through ``lite``'s own code: generation at 8, 32 and 64 rows beside transformers' generate and the bound that the card's own bandwidth
sets; pairs with a shared prefix; steps of the reward model and of DPO; whole PPO steps, and the same steps in the old loop
shape; the peak of each part beside ``lite.fit``'s estimate. What cannot be measured is called so, with the reason: so are numbers of rows
that do not fit the card by the estimate.

Writes results/gpu-MODEL-CARD.json and .md, on the CPU toy-cpu-MODEL. Exit codes: 0 all that fits is measured, 1 a part failed or ran out of
memory, 2 usage, 3 this machine cannot.
"""

import argparse
import importlib.util
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.gpu_options import options

GIB = 2**30
RECIPES = ("rlcd_helpful", "rlcd_helpful_30b")
"""For bases of under and over 20e9 parameters."""
LIMITS = {"peak_over_estimate": (0.85, 1.15), "generation": 2.0, "ppo": 2.5}
"""What the project set out to show: peak within 15% of the estimate, generation and PPO steps so many times as fast as plain code."""


class Cannot(Exception):
    """A sentence for the reader, and exit code 3."""


# -- may it run here? -------------------------------------------------------------------------------------------------------------


def check_machine(cpu: bool, card: float | None) -> float | None:
    """GiB of the card that stands here or is asked for; None on the CPU. Raises :class:`Cannot`."""
    for name in ("torch", "transformers", "peft", "bitsandbytes"):
        if importlib.util.find_spec(name) is None:
            raise Cannot(f"{name} is not installed: run `pip install -e .` in the repository first")
    import torch

    if cpu:
        return card
    if not torch.cuda.is_available():
        raise Cannot("torch sees no GPU here (is the driver installed, and torch a CUDA build?); `--cpu` runs a toy shape without one")
    total = torch.cuda.get_device_properties(0).total_memory / GIB
    free = torch.cuda.mem_get_info()[0] / GIB
    wanted = card or total
    if wanted > total * 1.02:
        raise Cannot(f"this GPU has {total:.1f} GiB, fewer than --card {wanted:g}")
    if free < wanted * 0.93:
        raise Cannot(f"only {free:.1f} of {total:.1f} GiB are free on this GPU: end what else uses it, or take a smaller --card")
    return wanted


def cap(card: float) -> None:
    """This process may use no more than a card of so many GiB, the context aside, which torch does not count."""
    import torch

    from lite.fit import cards, sizes

    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, (cards.usable(card) - sizes.CONTEXT) / total))


class Planned(NamedTuple):
    """Config and shape of the base, specs by kind of stage with which it fits the card, and estimated peaks in bytes."""

    config: Any
    shape: Any
    specs: Mapping[str, Any]
    peaks: Mapping[str, int]  # by kind of stage
    rows: Mapping[int, int]  # of generation, by its number of rows


def plan_for(found: argparse.Namespace, card: float | None) -> Planned:
    from benchmarks.gpu_base import config_of
    from lite import recipe
    from lite.fit.estimate import estimate
    from lite.fit.shape import Shape, shape_of
    from lite.fit.ways import way_to_fit
    from lite.plan import plan

    config = config_of(found.model)
    prompt, new = found.tokens
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps({"model_type": config.model_type} | config.to_dict(), default=str))
        overrides = [
            f"base.model={folder}",
            *(["base.dtype=float32"] if found.cpu else []),
            f"contrast.max_new_tokens={new}",
            f"reward.max_tokens={max(8, prompt + new)}",
            f"ppo.rollouts={found.rollouts}",
            f"ppo.minibatch={max(1, found.rollouts // 2)}",
            f"ppo.max_prompt_tokens={prompt}",
            f"ppo.max_new_tokens={new}",
            "ppo.dev_prompts=0",
            "ppo.warmup_steps=0",
        ]
        shape = shape_of(recipe.load(recipe.find(RECIPES[0]), overrides).base)
        assert isinstance(shape, Shape)
        path = recipe.find(RECIPES[shape.parameters > 20e9])
        loaded = recipe.load(path, overrides)
        size = card or 1024.0
        way = way_to_fit(loaded, plan(loaded), size)
        if way is None:
            raise Cannot(f"{found.model} does not fit a card with {size:g} GiB by the estimate, whatever is turned; take a larger --card")
        loaded = recipe.load(path, [*overrides, *way.overrides])
        nodes = plan(loaded)
        peaks = {fit.kind: fit.peak for fit in estimate(loaded, nodes, card_gib=size)}
        specs = {node.kind: node.spec for node in nodes} | _others(nodes)
        rows = {n: generation_peak(shape, loaded.base, specs["ppo"].lora.r, n, prompt, new) for n in found.rows}
    return Planned(config, shape, specs, peaks, rows)


def generation_peak(shape: Any, base: Any, r: int, rows: int, prompt: int, new: int) -> int:
    """The most that so many rows need: the base, one adapter, and the cache at its full length."""
    from lite.fit import sizes
    from lite.fit.demand import Site
    from lite.fit.turn import with_slack

    site = Site(shape, base, {})
    resident = site.resident([sizes.lora(shape, r)], [])
    moments = site.writing(resident, rows, prompt, new, adapter=True, nucleus=False, knob="rows")
    return max(with_slack(moment).bytes for moment in moments)


def too_many(rows: Mapping[int, int], card: float | None) -> dict[int, str]:
    """The numbers of rows that do not fit, each with the reason."""
    from lite.fit import cards

    usable = cards.usable(card) if card else None
    return {
        n: f"does not fit: about {peak / GIB:.1f} GiB by the estimate, of which {card:g} GiB have {usable / GIB:.1f}"
        for n, peak in rows.items()
        if usable is not None and peak > usable
    }


def _others(nodes: Sequence[Any]) -> dict[str, Any]:
    """Specs of stages that the recipe has not, with the memory knobs of its reward stage."""
    from lite.contracts import CONTRACTS

    have = {node.kind for node in nodes}
    if "dpo" not in CONTRACTS or "dpo" in have:
        return {}
    like = next(node.spec for node in nodes if node.kind == "reward")
    fields = CONTRACTS["dpo"].spec.model_fields
    return {"dpo": CONTRACTS["dpo"].spec(**{k: getattr(like, k) for k in ("max_tokens", "micro_tokens", "checkpointing") if k in fields})}


# -- measuring --------------------------------------------------------------------------------------------------------------------


def run_part(name: str, job: Any, peaks: Mapping[str, int]) -> dict[str, Any]:
    """A part's figures, and its peak of memory; or a sentence on why there are none."""
    import torch

    from benchmarks.gpu_parts import PARTS, STAGES
    from lite.fit import sizes

    gpu = job.device.type == "cuda"
    if gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    figures: dict[str, Any] = {}
    try:
        figures = PARTS[name](job)
    except torch.OutOfMemoryError:
        figures["failed"] = "out of memory"
    except Exception as e:  # one part that fails must not take the others' figures with it
        figures["failed"] = f"{type(e).__name__}: {str(e).partition(chr(10))[0]}"
    if "failed" in figures:
        job.bank.clear()
        return figures
    if not gpu:
        return figures | {"peak_gib": "not measured"}
    peak = torch.cuda.max_memory_allocated() + sizes.CONTEXT
    estimated = peaks.get(STAGES.get(name, ""))
    against = {"estimated_gib": estimated / GIB, "peak_over_estimate": peak / estimated} if estimated else {}
    return figures | {"peak_gib": peak / GIB, "reserved_gib": torch.cuda.max_memory_reserved() / GIB, **against}


def measure(found: argparse.Namespace, card: float | None) -> dict[str, Any]:
    config, shape, specs, peaks, rows_peaks = plan_for(found, card)
    left_out = too_many(rows_peaks, card)
    import torch

    from benchmarks.gpu_base import random_base
    from benchmarks.gpu_parts import PARTS, Job
    from lite.model.bank import AdapterBank
    from lite.model.base import pick_dtype

    device = torch.device("cpu" if found.cpu else "cuda")
    if not found.cpu and card:
        cap(card)
    dtype = pick_dtype("auto", device)
    try:
        bank = AdapterBank(random_base(config, device, dtype))
    except torch.OutOfMemoryError as e:
        raise Cannot(f"the base {found.model} alone does not fit {card:g} GiB") from e
    rows = tuple(n for n in found.rows if n not in left_out)
    job = Job(bank, shape, specs, *found.tokens, rows=rows, left_out=left_out, steps=found.steps, repeats=2 if found.cpu else 3)
    parts = {}
    for name in found.only or PARTS:
        print(f"  {name} ...", file=sys.stderr, flush=True)
        parts[name] = run_part(name, job, peaks)
    return {
        "model": found.model,
        "parameters": shape.parameters,
        "card_gib": None if found.cpu else card,
        "dtype": str(dtype),
        "tokens": {"prompt": found.tokens[0], "new": found.tokens[1]},
        "knobs": {kind: specs[kind].model_dump(mode="json") for kind in ("contrast", "reward", "ppo") if kind in specs},
        "parts": parts | not_measured(parts),
        "gpu": None if found.cpu else torch.cuda.get_device_name(0),
    }


def not_measured(parts: Mapping[str, Any]) -> dict[str, Any]:
    """What the project wants to know and this script does not tell."""
    missing = "installed, but this script has no side for it" if importlib.util.find_spec("unsloth") else "unsloth is not installed"
    return {
        name: {"not_measured": why}
        for name, why in (("unsloth", missing), ("trl_defaults", "this script has no TRL side yet"))
        if name not in parts
    }


# -- the report ---------------------------------------------------------------------------------------------------------------------


def rows_of(parts: Mapping[str, Any]) -> list[list[str]]:
    """One row of the table per figure: part, figure, beside it, peak."""
    found = []
    for name, part in parts.items():
        if why := part.get("failed") or part.get("not_measured"):
            found.append([name, f"**failed**: {why}" if "failed" in part else f"not measured: {why}", "", ""])
            continue
        peak = part.get("peak_gib")
        told = "not measured" if not isinstance(peak, float) else f"{peak:.2f} GiB"
        told += f", {part['peak_over_estimate']:.2f} of the estimate" if "peak_over_estimate" in part else ""
        if name == "generation":
            found += [[f"generation, {rows} rows", f"not measured: {why}", "", ""] for rows, why in part.get("left_out", {}).items()]
            for rows, f in part["tokens_per_second"].items():
                if "failed" in f:
                    found.append([f"generation, {rows} rows", f"**failed**: {f['failed']}", "", ""])
                    continue
                beside = f"generate {f['generate']:,.0f} ({f['times']:.2f}x), bound {f['bound']:,.0f} ({f['of_bound']:.0%})"
                found.append([f"generation, {rows} rows", f"{f['ours']:,.0f} tokens/s", beside, told])
        elif name == "pairs":
            speeds = part["tokens_per_second"]
            found.append([f"pairs, {part['rows']} rows", f"{speeds['shared']:,.0f} tokens/s", f"prefix apart {speeds['apart']:,.0f}", told])
        elif name in ("ppo", "old_ppo"):
            old = parts.get("old_ppo", {}).get("seconds")
            beside = f"old loop shape {old:.2f} s ({old / part['seconds']:.2f}x)" if name == "ppo" and old else ""
            found.append([f"{name}, {part['rollouts']} rollouts", f"{part['seconds']:.2f} s per step", beside, told])
        else:
            each = f"{part['seconds_per_step']:.2f} s per step"
            found.append([f"{name}, {part['pairs_per_step']} pairs", f"{part['tokens_per_second']:,.0f} tokens/s", each, told])
    return found


def shortfalls(parts: Mapping[str, Any]) -> list[str]:
    """Which of the set limits the figures miss."""
    low, high = LIMITS["peak_over_estimate"]  # type: ignore[misc]
    found = [
        f"{name}: the peak is {part['peak_over_estimate']:.2f} of the estimate"
        for name, part in parts.items()
        if not low <= part.get("peak_over_estimate", 1.0) <= high
    ]
    for rows, f in parts.get("generation", {}).get("tokens_per_second", {}).items():
        if f.get("times", LIMITS["generation"]) < LIMITS["generation"]:
            found.append(f"generation, {rows} rows: {f['times']:.2f}x generate, not {LIMITS['generation']}x")
    ours, old = (parts.get(name, {}).get("seconds") for name in ("ppo", "old_ppo"))
    if ours and old and old / ours < LIMITS["ppo"]:
        found.append(f"ppo: {old / ours:.2f}x the old loop shape, not {LIMITS['ppo']}x")
    return found


def publish(facts: dict[str, Any], out: Path) -> None:
    from benchmarks.report import hardware, table, versions

    out.mkdir(parents=True, exist_ok=True)
    model, card = facts["model"].rpartition("/")[2], f"{facts['card_gib'] or 0:.0f}"
    name = f"gpu-{model}-{card}" if facts["gpu"] else f"toy-cpu-{model}"
    missed = shortfalls(facts["parts"]) if facts["gpu"] else []
    facts |= {"shortfalls": missed, "hardware": hardware(), "versions": versions()}
    (out / f"{name}.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    where = f"{facts['gpu']}, at most {card} GiB" if facts["gpu"] else "the CPU: a toy shape, which says nothing of a GPU"
    said = "\n\n".join(
        [
            f"# {name}",
            f"{facts['parameters'] / 1e9:.2f}e9 random weights in NF4 on {where}; {facts['tokens']['prompt']} + {facts['tokens']['new']} tokens a row.",
            table(["part", "ours", "beside it", "peak"], rows_of(facts["parts"])),
            "\n".join(f"- missed: {text}" for text in missed) or "No set limit is missed." if facts["gpu"] else "",
            ", ".join(f"{k} {v}" for k, v in facts["versions"].items()),
        ]
    )
    (out / f"{name}.md").write_text(said + "\n", encoding="utf-8")
    print(said)


def main(argv: Sequence[str] | None = None) -> int:
    found = options(argv, __doc__)
    try:
        facts = measure(found, check_machine(found.cpu, found.card))
    except Cannot as e:
        print(f"benchmarks.gpu: {e}", file=sys.stderr)
        return 3
    publish(facts, found.out)
    rows = facts["parts"].get("generation", {}).get("tokens_per_second", {})
    return 1 if any("failed" in part for part in (*facts["parts"].values(), *rows.values())) else 0


if __name__ == "__main__":
    raise SystemExit(main())
