"""A recipe, run by a Python program."""

from contextlib import nullcontext
from pathlib import Path

from lite import engine, launch, recipe
from lite.errors import RecipeError
from lite.launch import Wish
from lite.runs import locks, read
from lite.runs.manners import offline_while
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
    folder, path = Path(runs), recipe.find(str(name))
    if len(wanted := recipe.combinations(path, overrides)) > 1:
        raise RecipeError(str(name), [f"a sweep of {len(wanted)} runs; give one value per place, such as seed=17"])
    old = read.latest(folder, path.stem) if resume else None
    screen = Screen(quiet=quiet)
    with offline_while(offline):
        it = launch.ready(path, wanted[0], Wish(folder, label, resume=old.name if old else None, offline=offline))
        launch.refuse_what_cannot_fit(it)
        gpu = locks.held(locks.gpu_name(), queue=False, say=screen.say) if it.wants_gpu else nullcontext(lambda run: None)
        with gpu as holds:
            tools = engine.Tools(holds=holds)
            outcome = engine.execute(it.loaded, it.text, it.overrides, runs=folder, label=label, resume=it.old, screen=screen, tools=tools)
    if outcome.cause:
        raise outcome.cause
    return outcome.run
