"""Runs as the page finds them: whole ones made by fake stages, with the rows that pages read put beside."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from lite.runs.read import Run, open_run
from lite.ui.site import Site

PROMPT = "\n\nHuman: How do I sew a shirt?\n\nAssistant:"


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def pair_row(i: int, **other: Any) -> dict[str, Any]:
    row = {
        "id": f"p{i}", "prompt": f"\n\nHuman: Question {i}?\n\nAssistant:", "chosen": f" A good answer {i}.", "rejected": f" A bad answer {i}.",
        "label": 1.0, "p_plus": f"\n\nHuman: Question {i}?\n\nAssistant (kind):", "p_minus": f"\n\nHuman: Question {i}?\n\nAssistant (rude):",
        "index": 0, "attempts": 1, "stop_chosen": "turn", "stop_rejected": "turn",
    }  # fmt: skip
    return row | other


def reply_row(id: str, model: str, text: str, score: float | None = None) -> dict[str, Any]:
    return {
        "id": id,
        "model": model,
        "draw": 0,
        "prompt": PROMPT,
        "text": text,
        "stop": "turn",
        "tokens": 4,
        "score": score,
        "success": None,
    }


@pytest.fixture
def done_run(fakes) -> Run:
    """A finished run with three pairs, figures of PPO and replies of two models."""
    run = fakes.go().run
    stages = {record.id: record.folder for record in run.stages()}
    write_lines(stages["contrast"].out / "pairs.jsonl", [pair_row(i) for i in (1, 2, 3)])
    write_lines(
        stages["ppo"].metrics, [{"step": i, "reward": i / 10, "reward_std": 0.5, "kl": 0.1 * i, "new_figure": i} for i in range(1, 6)]
    )
    replies = [reply_row(f"q{i}", model, f" {model} says {i}.", i + (model == "ppo")) for i in range(4) for model in ("ppo", "base")]
    write_lines(stages["evaluate"].out / "replies.jsonl", replies)
    return open_run(run.folder.path)


@pytest.fixture
def site(fakes, tmp_path) -> Site:
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    return Site(fakes.folder, downloads)


@pytest.fixture
def add_pairs() -> Callable[[Run, list[dict[str, Any]]], None]:
    def add(run: Run, rows: list[dict[str, Any]]) -> None:
        write_lines(next(r.folder for r in run.stages() if r.id == "contrast").out / "pairs.jsonl", rows)

    return add
