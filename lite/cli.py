"""The command line: run, plan, ls, show, validate, table, doctor, ui; `lite.verbs` has those that look after runs, `lite.after` those for
what comes after one.

Results on stdout, everything else on stderr; no torch at import.

Exit codes: 0 done, 1 failure, 2 usage or recipe, 3 precondition, 4 diverged or gate refused, 5 lock held,
75 stopped but resumable, 130 second Ctrl-C.
"""

import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from lite import __version__, after, launch, recipe, sweeps, tables, verbs
from lite.errors import LockError, RecipeError
from lite.launch import Wish
from lite.plan import Status, compare, plan
from lite.runs import locks, read
from lite.runs.publish import dumps
from lite.runs.ranks import forget, launched, several
from lite.runs.signals import Switch
from lite.terminal import RUNS, Card, Json, Runs, say, told

app = typer.Typer(
    name="lite",
    help="Align a language model without human labels, on one GPU: RLCD and self-rewarding, with 4-bit adapters.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
Overrides = Annotated[list[str] | None, typer.Argument(help="id.knob=value, base.model=..., seed=..., task=...; the last one wins")]
verbs.register(app)
after.register(app)


@app.command("run")
def run_command(
    recipe_name: Annotated[str | None, typer.Argument(metavar="[RECIPE]", help="a file, or a built-in recipe's name")] = None,
    overrides: Overrides = None,
    resume: Annotated[
        str | None, typer.Option(metavar="[RUN]", help="go on with a run (default: the latest); what is done is not repeated")
    ] = None,
    from_run: Annotated[str | None, typer.Option(metavar="RUN", help="take finished stages of another run")] = None,
    name: Annotated[str | None, typer.Option(help="a label for the run, in place of the recipe's name")] = None,
    seed: Annotated[int | None, typer.Option(help="the same as seed=N")] = None,
    track: Annotated[
        str | None, typer.Option(metavar="[tensorboard|wandb|trackio]", help="the same as track=NAME: figures go there too")
    ] = None,
    runs: Runs = RUNS,
    begin: Annotated[str | None, typer.Option("--from", metavar="STAGE", help="run no stage before this one; those must be done")] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="STAGE", help="end after this stage")] = None,
    only: Annotated[str | None, typer.Option("--only", metavar="STAGE", help="run this stage alone; those before it must be done")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="run in the background; `lite ps`, `logs` and `stop` look after it")] = False,
    queue: Annotated[bool, typer.Option("--queue", help="wait while another run uses the GPU")] = False,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="runs of a sweep at a time (default: 1 on a GPU, else one per core)")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would run, and why")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="use cached models only")] = False,
    cache_4bit: Annotated[
        bool, typer.Option("--cache-4bit", help="the same as base.cache_4bit=true: keep a 4-bit copy of the base for the next start")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress on standard error")] = False,
    as_json: Json = False,
) -> None:
    """Run a recipe: every stage that is not done yet."""
    with told():
        given = [*([recipe_name] if recipe_name and "=" in recipe_name else []), *(overrides or ())]
        recipe_name = None if recipe_name and "=" in recipe_name else recipe_name
        if recipe_name is None and resume is None:
            raise RecipeError("lite run", [f"which recipe? a file, or one of: {', '.join(recipe.built_in())}"])
        path = recipe.find(recipe_name) if recipe_name else None
        given += [f"seed={seed}"] if seed is not None else []
        given += ["base.cache_4bit=true"] if cache_4bit else []
        given += [f"track={track}"] if track else []
        wish = Wish(runs, _label(name), resume, from_run, only or begin, only or until, queue, offline)
        wanted = recipe.combinations(path, given) if path else [tuple(given)]
        if path and len(wanted) > 1:
            if several():
                raise RecipeError(
                    "lite run", ["several processes do one run together, and this is a sweep; give one value per place, such as seed=17"]
                )
            if detach:
                raise RecipeError("--detach", ["a sweep is several runs; give one value per place, such as seed=17"])
            raise typer.Exit(_sweep(path, wanted, wish, jobs, dry_run=dry_run, quiet=quiet, as_json=as_json))
        it = launch.ready(path, wanted[0], wish)
        if dry_run:
            _print_plan(it.statuses, it.loaded, it.old or it.source, as_json)
            return
        launch.refuse_what_cannot_fit(it)
        if not detach:
            raise typer.Exit(_run(it, quiet=quiet, as_json=as_json))
        run, child = launch.detached(it)
        if as_json:
            print(dumps({"run": str(run.folder.path), "state": "queued", "pid": child.pid}))
        else:
            print(run.folder.path)
            say(f"runs in the background; lite logs -f {run.name}")


def _run(it: launch.Ready, *, quiet: bool, as_json: bool) -> int:
    """The run, in this process; its exit code."""
    from lite import engine, parallel
    from lite.runs import report
    from lite.runs.progress import Screen

    wish = it.wish
    engine.prepare_environment(offline=wish.offline)
    screen = Screen(quiet=quiet or as_json)
    switch = Switch(screen.say)
    gpu = locks.held(locks.gpu_name(), queue=wish.queue, say=screen.say, stop_asked=switch.asked)
    with redirect_stdout(sys.stderr), switch, gpu if it.wants_gpu else nullcontext(lambda run: None) as holds:  # libraries print too
        outcome = parallel.execute(
            it.loaded,
            it.text,
            it.overrides,
            runs=wish.runs,
            label=wish.label,
            resume=it.old,
            from_run=it.source,
            until=wish.until,
            screen=screen,
            tools=engine.Tools(stop_asked=switch.asked, holds=holds),
        )
    if as_json:
        facts = {"run": str(outcome.run.folder.path), "state": outcome.state, "exit_code": outcome.exit_code, "error": outcome.error}
        print(dumps(facts | {"report": outcome.run.report() if outcome.state == "done" else None}))
    elif outcome.state == "done":
        print(report.headline(outcome.run))
        say(f"\n{outcome.run.folder.report_md}")
    if outcome.error:
        say(f"lite: {outcome.error}")
    return outcome.exit_code


def _sweep(
    path: Path, wanted: Sequence[tuple[str, ...]], wish: Wish, jobs: int | None, *, dry_run: bool, quiet: bool, as_json: bool
) -> int:
    """All runs of a sweep, then the table over them; the exit code of the first that does not end well."""

    def of(overrides: tuple[str, ...]) -> launch.Ready:
        resume = sweeps.earlier(wish.runs, path.stem, overrides) if wish.resume else None
        return launch.ready(path, overrides, replace(wish, resume=resume))

    def run(it: launch.Ready) -> int:
        if not dry_run:
            return _run(it, quiet=quiet, as_json=False)
        _print_plan(it.statuses, it.loaded, it.old or it.source, as_json=False)
        return 0

    found = [of(overrides) for overrides in wanted]
    if not dry_run:
        sweeps.refuse_what_cannot_fit(found)
    at_once = 1 if dry_run else min(len(found), jobs or sweeps.jobs_here(found[0]))
    code = sweeps.side_by_side(found, jobs=at_once, quiet=quiet) if at_once > 1 else sweeps.in_turn(run, found)
    if not code and not dry_run:
        sweeps.print_table(path.stem, wish.runs, as_json)
    return code


@app.command("table")
def table_command(
    recipe_name: Annotated[str, typer.Argument(metavar="RECIPE", help="a recipe of which there are finished runs")],
    only: Annotated[list[str] | None, typer.Option("--run", metavar="RUN", help="only this run, and others that are named so")] = None,
    runs: Runs = RUNS,
    as_json: Json = False,
) -> None:
    """One table over the finished runs of a recipe: each task summarised over its seeds, from the newest run of each.

    Runs that differ in other knobs have tables of their own. Also written: RECIPE-table.md and .json beside the runs.
    """
    with told():
        sweeps.print_table(Path(recipe_name).stem, runs, as_json, only or ())


@app.command("plan")
def plan_command(
    recipe_name: Annotated[str, typer.Argument(metavar="RECIPE", help="a file, or a built-in recipe's name")],
    overrides: Overrides = None,
    against: Annotated[
        str | None, typer.Option("--against", metavar="RUN", help="the run to compare with (default: the recipe's latest)")
    ] = None,
    card: Card = None,
    runs: Runs = RUNS,
    as_json: Json = False,
) -> None:
    """What would run, what is done already, and why. The same as `lite run --resume --dry-run`."""
    with told():
        from lite.fit.backend import lacking
        from lite.fit.bases import bases

        path = recipe.find(recipe_name)
        wanted = recipe.combinations(path, overrides or ())
        if len(wanted) > 1:
            say(f"a sweep of {len(wanted)} runs; the first of them: {' '.join(wanted[0])}")
        old = read.find(runs, against, path.stem) if against else read.latest(runs, path.stem)
        found = [recipe.load(path, combination) for combination in (wanted if card else wanted[:1])]
        compared = [compare(plan(loaded), old.stages() if old else ()) for loaded in found]
        why = [lacking(loaded, launch.to_run(all)) for loaded, all in zip(found, compared, strict=True)]
        for reason in dict.fromkeys(filter(None, why)):
            say(f"`lite run` would be refused on this machine: {reason}")
        if not card:
            _print_plan(compared[0], found[0], old, as_json)
            if any(base.model != "tiny" for base in bases(found[0])):
                say("--card GB (8, 24, T4) tells whether it fits a card, how long it takes, and what is fetched")
            return
        from lite.fit.together import Asked, refuse_any, shown

        each = zip(wanted, found, compared, strict=True)
        asked = [Asked(" ".join(w), loaded, [s.node for s in all], launch.to_run(all)) for w, loaded, all in each]
        _print_plan(compared[0], found[0], old, as_json, shown(asked, card, as_json=as_json))
        refuse_any(asked, card)


def _print_plan(
    statuses: Sequence[Status], loaded: recipe.Recipe, old: read.Run | None, as_json: bool, fit: Mapping[str, Any] | None = None
) -> None:  # fmt: skip
    """``fit``: what is known of a card, by name, as text or for JSON."""
    if as_json:
        stages = [
            {**s.node.to_json(), "status": s.state, "why": s.why, "from": str(s.record.folder.path) if s.record else None} for s in statuses
        ]  # fmt: skip
        found = {"recipe": loaded.name, "base": loaded.base, "seed": loaded.seed, "task": loaded.task, "stages": stages}
        print(dumps(found | dict(fit or {})))
        return
    words = {"cached": "cached", "run": "will run"}
    rows = [(s.node.id, _listed(s.node.input_ids()), words[s.state], s.why) for s in statuses]
    print("\n\n".join((tables.text(("stage", "reads", "status", "why"), rows), *(fit or {}).values())))
    if old:
        say(f"compared with {old.folder.path}; `lite run ... --from-run {old.name}` takes what is cached there")


def _listed(ids: Sequence[str], most: int = 4) -> str:
    return ", ".join([*ids[:most], *([f"and {len(ids) - most} more"] if len(ids) > most else [])]) or "-"


@app.command("ls")
def ls_command(
    what: Annotated[str, typer.Argument(metavar="[recipes|runs|tasks|stages]", help="what to list; nothing: all")] = "all",
    runs: Runs = RUNS,
    as_json: Json = False,
) -> None:
    """List built-in recipes, runs, tasks and kinds of stages."""
    with told():
        found = tables.listing(what, runs)
        print(dumps(found) if as_json else "\n\n".join(tables.listed(name, rows) for name, rows in found.items()))


@app.command("show")
def show_command(
    thing: Annotated[str, typer.Argument(metavar="RECIPE|RUN|TASK|KIND", help="a recipe, a run (or `latest`), a task, or a kind of stage")],
    overrides: Overrides = None,
    schema: Annotated[bool, typer.Option("--schema", help="the JSON schema of a recipe or of a stage's knobs")] = False,
    runs: Runs = RUNS,
    as_json: Json = False,
) -> None:
    """Print a resolved recipe, a run's state and results, a task, or the knobs of a stage."""
    with told():
        print(tables.show(thing, overrides or (), runs, schema=schema, as_json=as_json))


@app.command("validate")
def validate_command(
    file: Annotated[Path, typer.Argument(help="a recipe or a task (.yaml), or preference pairs in TRL's format (.jsonl)")],
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Check a recipe (with overrides), a task, or a file of preference pairs; every problem with its place."""
    from lite import validate

    problems: list[str] = []
    found: dict[str, Any] = {"file": str(file)}
    with told():
        try:
            found |= validate.whatever(file, overrides or ())
        except RecipeError as e:
            if not as_json:
                raise
            problems = e.problems
    if as_json:
        print(dumps({**found, "valid": not problems, "problems": problems}))
        raise typer.Exit(2 if problems else 0)
    print(f"{file}: good, {validate.summary(found)}")


@app.command("doctor")
def doctor_command(runs: Runs = RUNS, as_json: Json = False) -> None:
    """Check this machine: Python, memory, disk, versions, 4-bit arithmetic, GPU, the tiny base."""
    from lite import doctor

    with told():
        checks = list(doctor.checks(runs))
        red = any(check.level == "red" for check in checks)
        if as_json:
            print(dumps({"ok": not red, "checks": [check._asdict() for check in checks]}))
        else:
            rows = [(c.level, c.name, c.found + (f"  -> {c.fix}" if c.fix else "")) for c in checks]
            print(tables.text(("", "check", "found"), rows))
        raise typer.Exit(3 if red else 0)


@app.command("ui")
def ui_command(
    runs: Runs = RUNS,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="default: the first free one from 7860 on")] = None,
    listen: Annotated[bool, typer.Option("--listen", help="let other machines in; a login is asked for")] = False,
    share: Annotated[bool, typer.Option("--share", help="a public address through Gradio's servers; a login is asked for")] = False,
    auth_file: Annotated[
        Path | None, typer.Option(help="a file with one line name:password; default: a password is made and shown once")
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="another name under which the page is asked for, e.g. behind a proxy")
    ] = None,
    root: Annotated[list[Path] | None, typer.Option(help="a folder with models or prompts that recipes of the page may name")] = None,
    browser: Annotated[bool, typer.Option("--open", help="open it in the browser")] = False,
) -> None:
    """Serve the page: start, watch and compare runs, look at pairs, rate, chat."""
    with told():
        from lite.ui.serve import Door, read_login, serve

        door = Door(listen, share, port, read_login(auth_file) if auth_file else None, tuple(allow_host or ()))
        try:
            serve(runs, door, roots=tuple(root or ()), browser=browser)
        except LockError as e:
            say(f"lite is already running at {e}")


def _label(name: str | None) -> str | None:
    from lite.runs.layout import RUN_NAME

    if name is not None and not RUN_NAME.fullmatch(name):
        raise RecipeError("--name", [f"letters, digits, '.', '-' and '_' are needed, 80 at most (got {name!r})"])
    return name


def _version(on: bool) -> None:
    if on:
        print(f"lite {__version__}")
        raise typer.Exit


@app.callback()
def top(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="the version, and nothing else")] = False,
) -> None:
    pass


def spell_out_resume(arguments: Sequence[str]) -> list[str]:
    """``--resume`` may stand alone: it then means ``--resume latest``."""
    out: list[str] = []
    for i, word in enumerate(arguments):
        out.append(word)
        if word == "--resume":
            following = arguments[i + 1] if i + 1 < len(arguments) else "-"
            if following.startswith("-") or "=" in following or following.endswith((".yaml", ".yml")) or following in recipe.built_in():
                out.append("latest")
    return out


def main() -> None:
    words = spell_out_resume(sys.argv[1:])
    if several():
        if done_together(words):
            from lite import parallel

            sys.exit(parallel.follow() if launched() else parallel.lead(partial(app, args=words)))
        if launched():  # the first does it alone
            return
        forget()
    app(args=words)


def done_together(words: list[str]) -> bool:
    """Whether several processes do this command together: a run that is one, and goes on here."""
    return words[:1] == ["run"] and not {"--dry-run", "--detach", "--help"} & set(words)


if __name__ == "__main__":
    main()
