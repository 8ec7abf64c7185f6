"""A recipe, run by a Python program."""

from contextlib import nullcontext
from pathlib import Path

from lite import engine, recipe
from lite.errors import RecipeError
from lite.fit.cards import this_card
from lite.fit.preflight import preflight
from lite.plan import compare, plan
from lite.runs import locks, read
from lite.runs.progress import Screen


def run(
    name: str | Path,
    *overrides: str,
    runs: str | Path = "runs",
    label: str | None = None,
    resume: bool = False,
    offline: bool = False,
    quiet: bool = False,
) -> read.Run:
    """Run a recipe in this process to its end; what ``lite run`` does, without its signals.

        done = lite.run("tiny_rlcd_helpful", "ppo.steps=4", runs="runs")
        done.report()["models"]["ppo"]["success"]

    name: a recipe's file, or a built-in one     overrides: as on the command line, ``"ppo.kl_coef=0.05"``     label: names the run
    resume: go on with the latest run of the recipe, if there is one     offline: use cached models only
    Raises the :class:`~lite.errors.LiteError` that ended the run; its folder is kept, to be gone on with.
    """
    folder = Path(runs)
    path = recipe.find(str(name))
    if len(combinations := recipe.combinations(path, overrides)) > 1:
        raise RecipeError(str(name), [f"a sweep of {len(combinations)} runs; give one value per place, such as seed=17"])
    loaded = recipe.load(path, combinations[0])
    old = read.latest(folder, path.stem) if resume else None
    statuses = compare(plan(loaded), old.stages() if old else ())
    preflight(loaded, [s.node for s in statuses], runs=folder, only=[s.node.id for s in statuses if s.state == "run"])
    engine.prepare_environment(offline=offline)
    screen = Screen(quiet=quiet)
    card = loaded.base.device != "cpu" and this_card() is not None
    with locks.held(locks.gpu_name(), queue=False, say=screen.say) if card else nullcontext(lambda run: None) as holds:
        text = path.read_text(encoding="utf-8")
        tools = engine.Tools(holds=holds)
        outcome = engine.execute(loaded, text, combinations[0], runs=folder, label=label, resume=old, screen=screen, tools=tools)
    if outcome.cause:
        raise outcome.cause
    return outcome.run
