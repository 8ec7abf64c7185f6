"""Dialogues that wait for an answer, in three splits: train, dev (for choices), test (touched once).

Sources: the embedded world, or a JSONL file with a ``turns`` column ([{role, text}, ...]) or a ``prompt`` column (an HH-rlhf
transcript, or one human message). A file is cut into test, dev and train in this order after a seeded shuffle.
"""

import json
from pathlib import Path

from lite.artifacts import Prompts
from lite.chance import random_for
from lite.contracts import PromptsSpec
from lite.errors import RecipeError
from lite.micro.world import SPLITS, draw_dialogue
from lite.records import Prompt, write_rows
from lite.runs.publish import write_json
from lite.stages.bench import Bench
from lite.text.dialogue import Turn, cut_after_last_assistant_tag, parse, prompt

NAMES = dict(zip(("train", "dev", "test"), SPLITS, strict=True))
"""Our split names, and the embedded world's."""


def prompts(spec: PromptsSpec, *, out: Path, bench: Bench) -> Prompts:
    wanted = {"train": spec.train, "dev": spec.dev, "test": spec.test}
    found = _from_world(wanted, bench) if spec.source == "micro" else _from_file(Path(spec.source), wanted, bench)
    for split, rows in found.items():
        write_rows(out / f"{split}.jsonl", rows)
    report = {"source": spec.source, "task": bench.task.name, **{split: len(rows) for split, rows in found.items()}}
    write_json(out / "report.json", report)
    return Prompts(out)


def _from_world(wanted: dict[str, int], bench: Bench) -> dict[str, list[Prompt]]:
    """Prompts of the grammar; within a split no text comes twice, between splits none can."""
    found: dict[str, list[Prompt]] = {}
    for split, n in wanted.items():
        rows: dict[str, Prompt] = {}
        draw = 0
        while len(rows) < n:
            turns = draw_dialogue(bench.task.name, random_for(bench.seed, bench.stage, split, draw), split=NAMES[split])
            draw += 1
            text = prompt(turns)
            if text not in rows:
                rows[text] = Prompt(f"{split}-{len(rows):05d}", tuple(turns))
            if draw > 50 * n:
                raise RecipeError("prompts", [f"{split}: the embedded world has only {len(rows)} different {bench.task.name} prompts; ask for fewer"])
        found[split] = list(rows.values())
    return found


def _from_file(file: Path, wanted: dict[str, int], bench: Bench) -> dict[str, list[Prompt]]:
    dialogues = list(dict.fromkeys(_read(file)))
    need = sum(wanted.values())
    if len(dialogues) < need:
        raise RecipeError(
            str(file),
            [f"{len(dialogues)} different dialogues, but train + dev + test ask for {need}; lower prompts.train, prompts.dev or prompts.test"],
        )
    random_for(bench.seed, bench.stage, "shuffle").shuffle(dialogues)
    found: dict[str, list[Prompt]] = {}
    start = 0
    for split in ("test", "dev", "train"):
        part = dialogues[start : start + wanted[split]]
        found[split] = [Prompt(f"{split}-{i:05d}", turns) for i, turns in enumerate(part)]
        start += wanted[split]
    return found


def _read(file: Path) -> list[tuple[Turn, ...]]:
    if not file.is_file():
        raise RecipeError("prompts.source", [f"{file}: no such file; write `micro`, or a JSONL file with a `turns` or `prompt` column"])
    found, problems = [], []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            found.append(_turns(json.loads(line)))
        except (ValueError, TypeError, KeyError, AttributeError) as e:
            problems.append(f"line {number}: {e}")
    if problems:
        more = [f"and {len(problems) - 10} more"] if len(problems) > 10 else []
        raise RecipeError(str(file), problems[:10] + more)
    return found


def _turns(row: dict) -> tuple[Turn, ...]:
    if "turns" in row:
        turns = [Turn(turn["role"], turn["text"]) for turn in row["turns"]]
    elif "prompt" in row:
        text = row["prompt"]
        turns = parse(text) if text.lstrip().startswith("Human:") else [Turn("human", text.strip())]
    else:
        raise ValueError(f"no `turns` and no `prompt` column (there are: {', '.join(row)})")
    if any(turn.role not in ("human", "assistant") for turn in turns):
        raise ValueError("a role is neither human nor assistant")
    if turns and turns[-1].role == "assistant":
        turns = cut_after_last_assistant_tag(turns)
    if not turns or turns[-1].role != "human":
        raise ValueError("the dialogue does not end with a human turn that waits for an answer")
    return tuple(turns)
