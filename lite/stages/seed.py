"""The seed of self-rewarding: instructions with their best response, and ranked responses to learn and to measure judging by.

Yuan et al. 2024, section 3.1.1: first turns in English with the response that people ranked best (IFT); other prompts with all their ranked
responses (EFT), some of them kept apart to measure judges. The three parts share no question, and none has a question of the held-out
prompts. On the embedded world the oracle ranks; the part that measures judges is of its validation split.
"""

from pathlib import Path
from typing import Any

from lite.artifacts import Prompts, Seed
from lite.errors import RecipeError
from lite.knobs.rounds import SeedSpec
from lite.records import Example, Ranked, write_rows
from lite.runs.publish import write_json
from lite.sources import oasst
from lite.sources.ranked import Question, distinct, from_file, from_world, instructions_from_world, same
from lite.stages.bench import Bench
from lite.text.clean import as_response
from lite.text.dialogue import STOP, Turn, prompt

SHOWN = 10


def seed(spec: SeedSpec, *, prompts: Prompts, out: Path, bench: Bench) -> Seed:
    held_out = {same(row.turns[-1].text) for split in ("dev", "test") for row in prompts.rows(split)}
    if spec.source == "micro":
        ift, train, judged, facts = _from_world(spec, bench, held_out)
    else:
        ift, train, judged, facts = _from_people(spec, bench, held_out)
    write_rows(out / "examples.jsonl", [_example(q, i, bench) for i, q in enumerate(ift)])
    for name, part in (("train", train), ("judged", judged)):
        write_rows(out / f"ranked_{name}.jsonl", [_ranked(q, f"{name}-{i:05d}", bench) for i, q in enumerate(part)])
    report = {"source": spec.source, "ift": len(ift), "ranked": len(train), "judged": len(judged), **facts}
    report |= {"responses": sum(len(q.responses) for q in (*train, *judged)) / len([*train, *judged])}
    write_json(out / "report.json", report)
    for question in ift[:SHOWN]:
        bench.show(prompt=question.text, response=question.best)
    bench.log(f"{len(ift)} instructions, {len(train)} ranked to learn judging, {len(judged)} ranked to measure it")
    return Seed(out)


Parts = tuple[list[Question], list[Question], list[Question], dict[str, Any]]


def _from_world(spec: SeedSpec, bench: Bench, held_out: set[str]) -> Parts:
    family, place = bench.task.name, (bench.seed, bench.stage)
    known = set(held_out)

    def new(questions: list[Question], n: int) -> list[Question]:
        found = [q for q in questions if same(q.text) not in known][:n]
        known.update(same(q.text) for q in found)
        return found

    ift = new(instructions_from_world(family, spec.ift, good=spec.good, place=(*place, "ift")), spec.ift)
    train = new(from_world(family, 2 * spec.ranked, split="train", responses=spec.responses, place=(*place, "ranked")), spec.ranked)
    judged = new(from_world(family, 2 * spec.judged, split="validation", responses=spec.responses, place=(*place, "judged")), spec.judged)
    return ift, train, judged, {}


def _from_people(spec: SeedSpec, bench: Bench, held_out: set[str]) -> Parts:
    """IFT first, in an order drawn by each question's text; what is left and has an order is ranked."""
    if spec.source in oasst.REPOS:
        bench.log(f"reading {oasst.REPOS[spec.source]}")
        loaded = oasst.load(spec.source, spec.revision)
        questions, facts = oasst.questions(loaded.rows, most=spec.responses), {"repo": loaded.repo, "commit": loaded.commit}
    else:
        questions, facts = from_file(Path(spec.source).expanduser(), most=spec.responses), {}
    different = list(distinct(questions))
    free = [q for q in different if same(q.text) not in held_out]
    drawn = sorted(free, key=lambda q: bench.seed_for("order", same(q.text)))
    judged = [q for q in drawn if q.orders][: spec.judged]
    train = [q for q in drawn if q.orders][spec.judged : spec.judged + spec.ranked]
    taken = {q.text for q in (*judged, *train)}
    ift = [q for q in drawn if q.text not in taken][: spec.ift]
    if len(train) < spec.ranked or not ift:
        orders = sum(q.orders for q in drawn)
        raise RecipeError(
            "seed",
            [
                f"{len(drawn)} questions, {orders} of them with ranked responses, are too few for judged = {spec.judged}, "
                f"ranked = {spec.ranked} and instructions besides; ask for fewer"
            ],
        )
    facts |= {"read": len(questions), "duplicates": len(questions) - len(different), "held_out": len(different) - len(free)}
    return ift, train, judged, facts


def _example(question: Question, number: int, bench: Bench) -> Example:
    return Example(f"ift-{number:05d}", _prompt(question, bench), as_response(question.best) + STOP, "ift")


def _ranked(question: Question, id: str, bench: Bench) -> Ranked:
    return Ranked(id, _prompt(question, bench), tuple(as_response(r) for r in question.responses), question.ranks)


def _prompt(question: Question, bench: Bench) -> str:
    return prompt([Turn("human", question.text)], lead=bench.task.lead)
