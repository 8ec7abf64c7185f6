"""New prompts: a model goes on with a list of examples, and what it writes is filtered.

Self-Instruct (Wang et al. 2023) as in Yuan et al. 2024, section 2.2: eight examples, six of them from the seed and two that the model wrote
before, temperature 0.6, nucleus 0.9. The writer is the base, which stays the same from round to round, or the policy that ``from`` names.
A prompt is one line. None is held out, and dev and test prompts are handed on as they are, so that every round is measured
on the same ones.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from lite import templates
from lite.artifacts import Policy, Prompts, Seed
from lite.chance import random_for
from lite.errors import ArtifactError
from lite.knobs.rounds import InstructSpec
from lite.micro.world import split_of
from lite.model.encoding import encode
from lite.model.generate import Decoding, Generated
from lite.records import Prompt, write_rows
from lite.runs.layout import stage_of
from lite.runs.publish import write_json
from lite.stages.bench import Bench
from lite.stages.drawing import draw
from lite.text.dialogue import Turn
from lite.text.filters import Limits, Sieve
from lite.text.judging import turns_of

WRITER = "writer"
END = "\n"
SHOWN = 20


def instruct(
    spec: InstructSpec, *, seed: Seed, prompts: Mapping[str, Prompts], policy: Policy | None, out: Path, bench: Bench
) -> Prompts:  # fmt: skip
    """``prompts``: all earlier ones. Those of the first hold the held-out ones; what earlier rounds wrote is not written again."""
    reports = {id: given.read_json("report.json") for id, given in prompts.items()}
    earlier = [row.turns[-1].text for id, given in prompts.items() if reports[id].get("writer") for row in given.rows("train")]
    first = next(iter(prompts.values()))
    held_out = [row.turns[-1].text for split in ("dev", "test") for row in first.rows(split)]
    seeds = [turns_of(example.prompt)[-1].text for example in seed.rows()]
    source = reports[next(iter(prompts))].get("source")
    on_world = source == "micro"
    sieve = Sieve(
        Limits(spec.min_words, spec.max_words, spec.alike, spec.not_text),
        seeds=[*seeds, *earlier],
        held_out=held_out,
        is_held_out=(lambda text: split_of(text) in ("validation", "test")) if on_world else None,
    )
    _write(spec, seeds, sieve, policy, bench)
    if not sieve.kept:
        raise ArtifactError(f"{bench.stage}: the writer gave no prompt that passes the filters ({sieve.report()}); look at samples.jsonl")
    rows = [Prompt(f"{bench.stage}-{i:05d}", (Turn("human", text),)) for i, text in enumerate(sieve.kept)]
    write_rows(out / "train.jsonl", rows)
    for split in ("dev", "test"):
        write_rows(out / f"{split}.jsonl", first.rows(split))
    report = {
        "source": source,
        "task": bench.task.name,
        "writer": stage_of(policy.path) if policy else "base",
        "train": len(rows),
        "wanted": spec.prompts,
        "filters": sieve.report(),
        "words": sum(len(text.split()) for text in sieve.kept) / len(sieve.kept),
    }
    if on_world:
        report["grammatical"] = sum(split_of(text) is not None for text in sieve.kept) / len(sieve.kept)
    write_json(out / "report.json", report)
    for row in rows[:SHOWN]:
        bench.show(id=row.id, prompt=row.turns[0].text)
    bench.log(f"{len(rows)} prompts of {spec.prompts} wanted; filters: {sieve.report()}")
    return Prompts(out)


def _write(spec: InstructSpec, seeds: list[str], sieve: Sieve, policy: Policy | None, bench: Bench) -> None:
    """Draw prompts pass by pass until enough are kept, or too many are drawn; later passes have kept ones among their examples."""
    bank = bench.bank()
    if policy:
        bank.load(WRITER, policy.adapter)
    template = templates.load(spec.template)
    label = template.text.rpartition("\n")[2]
    examples = _examples(spec, seeds, sieve, bench)
    with bench.progress(spec.prompts, "prompts", "instruct: new prompts") as bar:
        for number in range(-(-spec.most_drawn * spec.prompts // spec.per_pass)):
            if len(sieve.kept) >= spec.prompts:
                break
            places = range(number * spec.per_pass, (number + 1) * spec.per_pass)
            asked = [template.render(examples="\n".join(f"{label} {' '.join(text.split())}" for text in examples(i))) for i in places]
            written = draw(
                bench,
                f"pass-{number}",
                bank,
                WRITER if policy else None,
                [encode(bank.base.tokenizer, text) for text in asked],
                keys=[str(i) for i in places],
                seeds=[bench.seed_for("write", i) for i in places],
                decoding=Decoding(spec.max_new_tokens, spec.temperature, spec.top_p, stop=END),
                rows=spec.batch_rows,
            )
            kept = _sift(sieve, written, spec.prompts)
            bench.metric(drawn=places.stop, kept=len(sieve.kept))
            bar.advance(kept)


def _examples(spec: InstructSpec, seeds: list[str], sieve: Sieve, bench: Bench) -> Callable[[int], list[str]]:
    """The examples of draw ``i``: from the seed, and from what was kept in earlier passes, in an order of their own."""

    def examples(i: int) -> list[str]:
        rng = random_for(bench.seed, bench.stage, "examples", i)
        own = rng.sample(sieve.kept, spec.own_shots) if len(sieve.kept) >= spec.own_shots else []
        shots = min(len(seeds), spec.seed_shots + spec.own_shots - len(own))
        chosen = rng.sample(seeds, shots) + own
        rng.shuffle(chosen)
        return chosen

    return examples


def _sift(sieve: Sieve, written: list[Generated], wanted: int) -> int:
    """Put what was written through the sieve until enough is kept; how many were."""
    before = len(sieve.kept)
    for generated in written:
        if len(sieve.kept) >= wanted:
            break
        sieve.take(generated.text.partition(END)[0], finished=generated.stop != "length")
    return len(sieve.kept) - before
