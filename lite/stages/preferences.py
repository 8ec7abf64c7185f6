"""Preference pairs with labels from outside: people's, from hh-rlhf or a file; in the embedded world the oracle's.

The reference that RLCD and RLAIF are measured against. No dialogue of the held-out prompts is among them. In the embedded world two
replies are drawn from its mixture under the plain cue, and the oracle says which is better; where it says neither, the pair is dropped.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lite.artifacts import Pairs, Prompts
from lite.chance import random_for
from lite.errors import ArtifactError, RecipeError
from lite.evaluate import diagnostics
from lite.knobs.writing import PreferencesSpec
from lite.micro.grammar import read_ask
from lite.micro.oracle import grade_ask
from lite.micro.replies import quality
from lite.micro.splits import answer
from lite.records import Pair, Prompt, write_rows
from lite.runs.publish import write_json
from lite.sources import files, hub
from lite.sources.files import Row
from lite.sources.preferences import PAIR_REASONS, Preferred, Unusable, read_pair
from lite.sources.rows import Asked, SchemaError
from lite.sources.splits import MOST_SHOWN, key
from lite.stages.bench import Bench
from lite.text.dialogue import prompt as plain_prompt

SHOWN = 8


def preferences(spec: PreferencesSpec, *, prompts: Prompts, out: Path, bench: Bench) -> Pairs:
    dropped: Counter[str] = Counter()
    facts: dict[str, Any] = {"source": spec.source}
    if spec.source == "micro":
        pairs = _from_world(prompts.rows("train")[: spec.pairs], bench, dropped)
    else:
        where, rows, more = _source(spec, bench)
        held_out = {key(row.turns) for split in ("dev", "test") for row in prompts.rows(split)}
        pairs = _from_rows(spec, where, rows, held_out, bench, dropped)
        facts |= more
    if not pairs:
        raise ArtifactError(f"{bench.stage}: no pair is left of {spec.source}: {dict(dropped)}")
    for pair in pairs[:SHOWN]:
        bench.show(id=pair.id, prompt=pair.prompt, chosen=pair.chosen, rejected=pair.rejected, label=pair.label)
    write_rows(out / "pairs.jsonl", pairs)
    report = {"pairs": len(pairs), "dropped": dict(dropped), "dropped_share": dropped.total() / (dropped.total() + len(pairs))}
    report |= {**diagnostics.describe(pairs, bench.task.name), **facts}
    write_json(out / "report.json", report)
    bench.log(f"{len(pairs)} labelled pairs from {spec.source}; dropped: {dict(dropped) or 'none'}")
    return Pairs(out)


def _from_world(rows: list[Prompt], bench: Bench, dropped: Counter[str]) -> list[Pair]:
    found = []
    for row in rows:
        ask = read_ask(row.turns[-1].text)
        if ask is None:
            raise RecipeError(
                "preferences.source", [f"micro: {row.id} is no prompt of the embedded world; take prompts from it too, or a file"]
            )
        rng = random_for(bench.seed, bench.stage, row.id)
        replies = [answer(ask, rng, quality(rng, "plain")) for _ in range(2)]
        scores = [grade_ask(ask, reply).score for reply in replies]
        if scores[0] == scores[1]:
            dropped["tie"] += 1
            continue
        better = replies if scores[0] > scores[1] else replies[::-1]
        found.append(_pair(row.id, Asked(row.turns, 0), better[0].strip(), better[1].strip(), 1.0, bench))
    return found


def _source(spec: PreferencesSpec, bench: Bench) -> tuple[str, Iterable[Row], dict[str, Any]]:
    """The rows to train on of the Hub's data or of a file, where they are from, and what the report says of it."""
    if spec.source == "hh-rlhf":
        subset = spec.subset or hub.subset_for(bench.task)
        loaded = hub.load(subset, spec.revision)
        return f"{hub.REPO} {subset}/train", loaded.rows["train"], {"repo": hub.REPO, "subset": subset, "commit": loaded.commit}
    named = files.row_files(spec.source)
    file = named.get("all") or named.get("train")
    if file is None:
        raise RecipeError(
            "preferences.source",
            [f"{spec.source}: write `micro`, `hh-rlhf`, a .jsonl or .csv file of labelled pairs, or a folder with train.jsonl"],
        )
    return str(file), files.read_file(file, plain="prompt"), {}


def _from_rows(
    spec: PreferencesSpec, where: str, rows: Iterable[Row], held_out: set[str], bench: Bench, dropped: Counter[str]
) -> list[Pair]:
    """As many pairs as are asked for, in an order that is drawn by a hash of each dialogue; one pair of a dialogue."""
    pool: dict[str, Preferred] = {}
    for found in _readable(where, rows, bench, dropped):
        name = key(found.asked.turns)
        if name in held_out:
            dropped["in_held_out"] += 1
        elif spec.max_words is not None and found.asked.words > spec.max_words:
            dropped["too_long"] += 1
        elif pool.setdefault(name, found) is not found:
            dropped["duplicate"] += 1
    chosen = sorted(pool, key=lambda name: bench.seed_for("order", name))[: spec.pairs]
    if len(chosen) < spec.pairs:
        raise RecipeError(
            where, [f"{len(chosen)} usable pairs, but preferences.pairs asks for {spec.pairs}; ask for fewer (left out: {dict(dropped)})"]
        )
    return [_pair(f"human-{i:05d}", p.asked, p.chosen, p.rejected, p.label, bench) for i, p in enumerate(pool[name] for name in chosen)]


def _readable(where: str, rows: Iterable[Row], bench: Bench, dropped: Counter[str]) -> Iterator[Preferred]:
    """The pairs that can be used. Rows of a wrong form are told all at once, by a :class:`RecipeError`."""
    problems: list[str] = []
    for place, values in rows:
        try:
            if isinstance(values, SchemaError):
                raise values
            found = read_pair(values, bench.task)
        except SchemaError as e:
            problems.append(f"{place}: {e}")
            continue
        if isinstance(found, Unusable):
            dropped[found.reason] += 1
        else:
            yield found
    if problems:
        more = len(problems) - MOST_SHOWN
        raise RecipeError(where, problems[:MOST_SHOWN] + ([f"and {more} more rows"] if more > 0 else []))
    for reason in dropped.keys() & PAIR_REASONS.keys():
        bench.log(f"{where}: {dropped[reason]} rows left out: {PAIR_REASONS[reason]}")


def _pair(id: str, asked: Asked, chosen: str, rejected: str, label: float, bench: Bench) -> Pair:
    """Both answers after the plain prompt, without the response lead with which that ends."""
    lead = bench.task.lead
    prompt = plain_prompt(asked.turns, lead=lead)
    return Pair(id, prompt, _after(chosen, lead), _after(rejected, lead), label, prompt, prompt, 0, 1, "turn", "turn")


def _after(answer: str, lead: str) -> str:
    """What stands behind the prompt: the white space too, which after a lead is the answer's own."""
    return answer.removeprefix(lead) if lead and answer.startswith(lead) else f" {answer}"
