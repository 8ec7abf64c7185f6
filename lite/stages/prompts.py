"""Dialogues that wait for an answer, in three splits: train, dev (for choices), test (touched once).

Sources: the embedded world, hh-rlhf and OpenAssistant on the Hub, local files (``lite.sources``). report.json counts what was read, left out and
why, and kept. Dialogues too long for PPO are not left out here unless ``max_words`` says so: this stage knows no tokenizer, and
PPO leaves out by tokens.
"""

from pathlib import Path
from typing import Any

from lite.artifacts import Prompts
from lite.chance import random_for
from lite.errors import RecipeError
from lite.knobs.writing import PromptsSpec
from lite.micro.world import SPLITS, Split, draw_dialogue
from lite.records import Prompt, write_rows
from lite.runs.publish import write_json
from lite.sources import files, hub, oasst
from lite.sources.splits import Pool, choose, gather, go_on_from, lengths
from lite.stages.bench import Bench
from lite.text.dialogue import prompt

NAMES: dict[str, Split] = dict(zip(("train", "dev", "test"), SPLITS, strict=True))
"""Our split names, and the embedded world's."""

IN_VAIN = 200
"""Draws in a row that bring no new prompt, after which the embedded world counts as exhausted."""


def prompts(spec: PromptsSpec, *, out: Path, bench: Bench) -> Prompts:
    wanted = {"train": spec.train, "dev": spec.dev, "test": spec.test}
    report: dict[str, Any] = {"source": spec.source, "task": bench.task.name, **wanted}
    if spec.source == "micro":
        found = _from_world(wanted, bench)
    else:
        pools, facts = _pools(spec, bench)
        chosen = choose(pools, wanted, lambda key: bench.seed_for("order", key))
        report |= facts | {
            "files": {name: pool.report() for name, pool in pools.items()},
            "go_on_from_held_out": go_on_from(chosen["train"], [*chosen["dev"], *chosen["test"]]),
            "words": {split: lengths(part) for split, part in chosen.items()},
        }
        for pool in pools.values():
            bench.log(f"{pool.where}: {pool.read} rows, {len(pool.dialogues)} dialogues kept; left out: {pool.left_out()}")
        found = {split: [Prompt(f"{split}-{i:05d}", asked.turns) for i, asked in enumerate(part)] for split, part in chosen.items()}
    for split, rows in found.items():
        write_rows(out / f"{split}.jsonl", rows)
    write_json(out / "report.json", report)
    return Prompts(out)


def _from_world(wanted: dict[str, int], bench: Bench) -> dict[str, list[Prompt]]:
    """Prompts of the grammar; within a split no text comes twice, between splits none can."""
    found: dict[str, list[Prompt]] = {}
    for split, n in wanted.items():
        rows: dict[str, Prompt] = {}
        draw = in_vain = 0
        while len(rows) < n:
            turns = draw_dialogue(bench.task.name, random_for(bench.seed, bench.stage, split, draw), split=NAMES[split])
            draw += 1
            text = prompt(turns)
            if text not in rows:
                rows[text] = Prompt(f"{split}-{len(rows):05d}", tuple(turns))
                in_vain = 0
            elif (in_vain := in_vain + 1) > IN_VAIN:
                task = bench.task.name
                raise RecipeError(
                    "prompts", [f"{split}: the embedded world has hardly more than {len(rows)} different {task} prompts; ask for fewer"]
                )
        found[split] = list(rows.values())
    return found


def _pools(spec: PromptsSpec, bench: Bench) -> tuple[dict[str, Pool], dict[str, Any]]:
    """The dialogues of a source by split (``all``: one file for the three), and what the report says of the source."""
    facts: dict[str, Any] = {}
    if spec.source == "hh-rlhf":
        subset = spec.subset or hub.subset_for(bench.task)
        bench.log(f"reading {hub.REPO}, {subset}")
        loaded = hub.load(subset, spec.revision)
        facts = {"repo": hub.REPO, "subset": subset, "commit": loaded.commit}
        rows = {split: (f"{hub.REPO} {subset}/{split}", part) for split, part in loaded.rows.items()}
    elif spec.source in oasst.REPOS:
        bench.log(f"reading {oasst.REPOS[spec.source]}")
        loaded = oasst.load(spec.source, spec.revision)
        facts = {"repo": loaded.repo, "commit": loaded.commit}
        asked = oasst.questions(loaded.rows, most=1)
        rows = {"all": (loaded.repo, ((f"question {n}", {"prompt": q.text}) for n, q in enumerate(asked, 1)))}
    else:
        plain = "premise" if bench.task.ask else "prompt"
        rows = {split: (str(file), files.read_file(file, plain=plain)) for split, file in files.splits_of(spec.source).items()}
    limits = {"min_words": spec.min_words, "max_words": spec.max_words}
    return {split: gather(part, where, bench.task, **limits) for split, (where, part) in rows.items()}, facts
