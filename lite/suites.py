"""`lite eval --suite`: a run's models on public benchmarks, and its scorers on labelled pairs. What is found is kept beside the run.

lm-eval:gsm8k,arc_challenge      lm-eval's tasks, before (the base) and after (an adapter)
reward-bench:FILE.jsonl          prompt, chosen, rejected, subset: how often reward model, judge and base prefer the better one
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lite import engine, recipe, tables, tasks
from lite.artifacts import Policy, Reward
from lite.chat.offers import BASE, room
from lite.chat.terminal import seats
from lite.contracts import CONTRACTS
from lite.errors import RecipeError
from lite.evaluate import rewardbench
from lite.knobs import BaseSpec
from lite.knobs.rounds import JudgeSpec
from lite.runs.progress import Counter
from lite.runs.publish import write_json
from lite.runs.read import Run
from lite.yamltext import near

SUITES = ("lm-eval", "reward-bench")
ROLE = "after"


def parse(suite: str) -> tuple[str, str]:
    """The suite's name and what stands behind its colon; a :class:`RecipeError` says how one is written."""
    name, _, rest = suite.partition(":")
    if name not in SUITES or not rest:
        raise RecipeError("--suite", [f"lm-eval:TASK,TASK or reward-bench:FILE.jsonl is needed (got {suite!r}){near(name, SUITES)}"])
    return name, rest


def benchmarks(
    run: Run, names: list[str], *, model: str | None, limit: int | None, shots: int | None, include: Path | None, say: Callable[[str], None]
) -> dict[str, Any]:
    """lm-eval before and after, and the table of changes."""
    from lite.evaluate import harness

    place = room(run)
    (seat,) = seats(place, model, ())
    manager = harness.tasks_of(names, include)
    bank = _bank(place.base)
    models: dict[str, str | None] = {BASE: None}
    if seat.offer.adapter:
        bank.load(ROLE, seat.offer.adapter)
        models[seat.offer.name] = ROLE
    found = harness.measure(bank, models, names, manager, limit=limit, shots=shots, say=say)
    before, after = (harness.figures(told["results"]) for told in (found[BASE], found[list(models)[-1]]))
    rows = [
        {
            "task": c.task, "metric": c.metric, "before": c.before.value, "before_error": c.before.error, "after": c.after.value,
            "after_error": c.after.error, "difference": c.difference, "error": c.error,
        }
        for c in harness.changes(before, after)
    ]  # fmt: skip
    return _keep(
        run, f"lm-eval-{seat.offer.name}", {"suite": "lm-eval", "model": seat.offer.name, "limit": limit, "changes": rows, **found}
    )


def pairs(run: Run, file: Path, *, model: str | None, limit: int | None, say: Callable[[str], None]) -> dict[str, Any]:
    """Accuracy by subset of every scorer that the run has: its last reward model, its judge (a policy), and the base by letters."""
    from lite.stages import contests as scorers

    place = room(run)
    (seat,) = seats(place, model, ())
    loaded = recipe.load(run.folder.resolved, name=run.recipe)
    contests = rewardbench.read_contests(file, tasks.load(place.task), limit)
    rewards = [r for r in run.stages() if r.done and CONTRACTS[str(r.facts["kind"])].gives is Reward]
    judging = next((stage.spec for stage in reversed(loaded.stages) if isinstance(stage.spec, JudgeSpec)), None)
    bank = _bank(place.base)
    found = {}
    with _bench(loaded, bank, say) as bench:
        if rewards:
            say(f"scoring {len(contests)} pairs with {rewards[-1].id}")
            found[rewards[-1].id] = scorers.by_reward(bank, Reward(rewards[-1].folder.out), contests)
        if judging and seat.offer.adapter:
            say(f"judging {len(contests)} pairs with {seat.offer.name}")
            policy = Policy(seat.offer.adapter.parent)
            found[f"{seat.offer.name} as judge"] = scorers.by_judge(bank, policy, contests, judging, bench)
        say(f"choosing in {len(contests)} pairs with the base")
        found["base by letters"] = scorers.by_letters(bank, contests, bench)
    told = {name: {s: asdict(a) for s, a in rewardbench.accuracies(contests, scores).items()} for name, scores in found.items()}
    return _keep(run, f"reward-bench-{file.stem}", {"suite": "reward-bench", "file": file.name, "pairs": len(contests), "scorers": told})


def text(found: dict[str, Any]) -> str:
    """The table of a suite."""
    if found["suite"] == "lm-eval":
        rows = [
            (c["task"], c["metric"], _plus_minus(c["before"], c["before_error"]), _plus_minus(c["after"], c["after_error"]), _signed(c))
            for c in found["changes"]
        ]
        return tables.text(("task", "metric", "base", found["model"], "difference"), rows)
    scorers = found["scorers"]
    subsets = next(iter(scorers.values()))
    cells = [[_share(scores[subset]) for scores in scorers.values()] for subset in subsets]
    return tables.text(
        ("subset", "pairs", *scorers),
        [(s, subsets[s]["scored"] + subsets[s]["unreadable"], *c) for s, c in zip(subsets, cells, strict=True)],
    )


def _plus_minus(value: float, error: float | None) -> str:
    return f"{value:.4f}" + (f" ± {error:.4f}" if error is not None else "")


def _signed(change: dict[str, Any]) -> str:
    return f"{change['difference']:+.4f}" + (f" ± {change['error']:.4f}" if change["error"] is not None else "")


def _share(found: dict[str, Any]) -> str:
    if found["accuracy"] is None:
        return "none could be read"
    notes = [f"{found[key]} {words}" for key, words in (("ties", "ties"), ("unreadable", "not readable")) if found[key]]
    return f"{found['accuracy']:.3f}" + (f" ({', '.join(notes)})" if notes else "")


def _bank(base: BaseSpec) -> Any:
    engine.prepare_base(base)
    return engine.load_bank(base)


def _keep(run: Run, name: str, found: dict[str, Any]) -> dict[str, Any]:
    place = run.folder.evals(name)
    place.parent.mkdir(exist_ok=True)
    write_json(place, found)
    return found | {"kept": str(place)}


@contextmanager
def _bench(loaded: recipe.Recipe, bank: Any, say: Callable[[str], None]) -> Iterator[Any]:
    """A bench for work that belongs to no stage of the run: nothing is told but in words, and nothing is gone on with."""

    @contextmanager
    def progress(total: int, unit: str, what: str) -> Iterator[Counter]:
        yield Counter(total, lambda counter: None)

    reporter = SimpleNamespace(progress=progress, metric=lambda **values: None, show=lambda **values: None, log=say, figures=dict)
    with tempfile.TemporaryDirectory() as scratch:
        yield engine.make_bench(
            task=tasks.load(loaded.task), seed=loaded.seed, stage="suite", ckpt=Path(scratch), reporter=reporter, load_bank=lambda: bank
        )
