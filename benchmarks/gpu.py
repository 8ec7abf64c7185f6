"""The whole loop at true sizes on one GPU, with random weights: memory against the estimate, speed against plain code.

    python -m benchmarks.gpu --model 7b --card 8          a card of 8 GB, or a larger one that may use no more
    python -m benchmarks.gpu --model 30b --card 24
    python -m benchmarks.gpu --cpu                        a toy shape without a GPU: shows that the script runs, measures nothing of use

Needs what `pip install -e .` installs and a GPU; nothing is downloaded, since weights are made on the card, matrix by matrix. Measured,
each through ``lite``'s own code: generation at 8, 32 and 64 rows beside transformers' generate and the bound that the card's own bandwidth
sets; pairs with a shared prefix; steps of the reward model and of DPO; whole PPO steps, and the same steps in the old loop
shape; the peak of each part beside ``lite.fit``'s estimate. What cannot be measured is called so, with the reason.

Writes results/gpu-MODEL-CARD.json and .md. Exit codes: 0 all measured, 1 a part failed or ran out of memory, 2 usage, 3 this machine cannot.
"""

import argparse
import importlib.util
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
GIB = 2**30
RECIPES = ("rlcd_helpful", "rlcd_helpful_30b")
"""For bases of under and over 20e9 parameters."""
LIMITS = {"peak_over_estimate": (0.85, 1.15), "generation": 2.0, "ppo": 2.5}
"""What the project set out to show: peak within 15% of the estimate, generation and PPO steps so many times as fast as plain code."""


class Cannot(Exception):
    """A sentence for the reader, and exit code 3."""


def options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=None, help="7b (the default), 30b, qwen7b, olmo32b, small, or a base that the estimate knows")
    parser.add_argument("--card", type=float, default=None, help="GB that may be used: 8, 12, 16, 24, 48; default: the whole card")
    parser.add_argument("--cpu", action="store_true", help="a toy shape on the CPU")
    parser.add_argument("--steps", type=int, default=None, help="timed steps of PPO and of the stages that learn; default 5 (CPU: 1)")
    parser.add_argument("--rollouts", type=int, default=None, help="responses per PPO step; default 64 (CPU: 4)")
    parser.add_argument("--rows", type=int, nargs="+", default=None, help="rows of the generation part; default 8 32 64 (CPU: 2 3)")
    parser.add_argument("--tokens", type=int, nargs=2, default=None, metavar=("PROMPT", "NEW"), help="default 192 300 (CPU: 12 6)")
    parser.add_argument("--only", nargs="+", default=None, metavar="PART", help="generation pairs reward dpo ppo old_ppo")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON and the table")
    found = parser.parse_args(argv)
    small = found.cpu
    found.model = found.model or ("small" if small else "7b")
    found.steps = found.steps or (1 if small else 5)
    found.rollouts = found.rollouts or (4 if small else 64)
    found.rows = found.rows or ([2, 3] if small else [8, 32, 64])
    found.tokens = found.tokens or ([12, 6] if small else [192, 300])
    return found


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


def plan_for(found: argparse.Namespace, card: float | None) -> tuple[Any, Any, Mapping[str, Any], dict[str, int]]:
    """Config and shape of the base, specs by kind of stage with which it fits the card, and the estimated peaks in bytes."""
    from benchmarks.gpu_base import config_of
    from lite import recipe
    from lite.fit.estimate import estimate, way_to_fit
    from lite.fit.shape import Shape, shape_of
    from lite.plan import plan

    try:
        config = config_of(found.model)
    except ValueError as e:
        raise Cannot(f"--model: {e}") from e
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
    return config, shape, {node.kind: node.spec for node in nodes} | _others(nodes), peaks


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
    config, shape, specs, peaks = plan_for(found, card)
    import torch

    from benchmarks.gpu_base import random_base
    from benchmarks.gpu_parts import PARTS, Job
    from lite.model.bank import AdapterBank
    from lite.model.base import pick_dtype

    if unknown := [part for part in found.only or () if part not in PARTS]:
        raise Cannot(f"--only: no part called {unknown[0]!r}; there are {', '.join(PARTS)}")
    device = torch.device("cpu" if found.cpu else "cuda")
    if not found.cpu and card:
        cap(card)
    dtype = pick_dtype("auto", device)
    try:
        bank = AdapterBank(random_base(config, device, dtype))
    except torch.OutOfMemoryError as e:
        raise Cannot(f"the base {found.model} alone does not fit {card:g} GiB") from e
    job = Job(bank, shape, specs, *found.tokens, rows=tuple(found.rows), steps=found.steps, repeats=2 if found.cpu else 3)
    parts = {}
    for name in found.only or PARTS:
        print(f"  {name} ...", file=sys.stderr, flush=True)
        parts[name] = run_part(name, job, peaks)
    return {
        "model": found.model,
        "parameters": shape.parameters,
        "card_gib": card,
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
            for rows, f in part["tokens_per_second"].items():
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
        if f["times"] < LIMITS["generation"]:
            found.append(f"generation, {rows} rows: {f['times']:.2f}x generate, not {LIMITS['generation']}x")
    ours, old = (parts.get(name, {}).get("seconds") for name in ("ppo", "old_ppo"))
    if ours and old and old / ours < LIMITS["ppo"]:
        found.append(f"ppo: {old / ours:.2f}x the old loop shape, not {LIMITS['ppo']}x")
    return found


def publish(facts: dict[str, Any], out: Path) -> None:
    from benchmarks.report import hardware, table, versions

    out.mkdir(parents=True, exist_ok=True)
    card = f"{facts['card_gib']:.0f}" if facts["card_gib"] else "cpu"
    name = f"gpu-{facts['model'].rpartition('/')[2]}-{card}"
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
    found = options(argv)
    try:
        facts = measure(found, check_machine(found.cpu, found.card))
    except Cannot as e:
        print(f"benchmarks.gpu: {e}", file=sys.stderr)
        return 3
    publish(facts, found.out)
    return 1 if any("failed" in part for part in facts["parts"].values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
