"""How a benchmark tells what it found: a markdown table on stdout, and the same beside a JSON file in benchmarks/results."""

import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "trl")


def hardware() -> dict[str, Any]:
    """The processor and the threads used: nothing else of the machine."""
    return {"cpu": _cpu(), "threads": torch.get_num_threads()}


def versions() -> dict[str, str]:
    return {name: _version(name) for name in LIBRARIES}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def publish(name: str, *, claim: str, holds: bool, figures: Mapping[str, Any], text: str, results: Path = RESULTS) -> None:
    """Write NAME.json and NAME.md, and print the latter."""
    results.mkdir(parents=True, exist_ok=True)
    facts = {"claim": claim, "holds": holds, "figures": figures, "hardware": hardware(), "versions": versions()}
    (results / f"{name}.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    machine = f"{hardware()['cpu']}, {hardware()['threads']} thread(s); " + ", ".join(f"{k} {v}" for k, v in versions().items())
    page = f"# {name}\n\n{claim}: **{'holds' if holds else 'DOES NOT HOLD'}**\n\n{text}\n\n{machine}\n"
    (results / f"{name}.md").write_text(page, encoding="utf-8")
    print(page)


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
