"""The commands that look after runs: ps, logs, stop, rm, gc, and cp for recipes and tasks. None of them loads a model or imports torch."""

import os
import shutil
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from lite import recipe, tables, tasks
from lite.errors import PreconditionError, RecipeError
from lite.runs import control, env, read
from lite.runs.control import Waste
from lite.runs.publish import dumps
from lite.terminal import RUNS, Json, Runs, Which, say, told
from lite.yamltext import near

Yes = Annotated[bool, typer.Option("--yes", help="do it; without, only say what would be done")]
TAIL_BYTES = 65536
FOLLOW_SECONDS = 0.3


def ps(
    every: Annotated[bool, typer.Option("--all", "-a", help="finished ones too")] = False, runs: Runs = RUNS, as_json: Json = False
) -> None:
    """List the runs that are going on, waiting, or were cut off."""
    with told():
        rows = [
            tables.progress_row(run) for run in read.all_runs(runs) if every or run.state in ("running", "queued", "interrupted", "stopped")
        ]
        print(dumps({"runs": rows}) if as_json else tables.listed("runs", rows))


def logs(
    run: Which = "latest",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on until the run ends")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="how many of the last lines")] = 40,
    runs: Runs = RUNS,
) -> None:
    """Print the end of a run's log."""
    with told():
        found = read.find(runs, run)
        place = tail(found.folder.log, lines)
        while follow and (open_still := found.alive or place != _size(found.folder.log)):
            place = _print_from(found.folder.log, place)
            if open_still:
                time.sleep(FOLLOW_SECONDS)


def tail(file: Path, lines: int) -> int:
    """Print the last lines of a file, however long it is; where it ends."""
    end = _size(file)
    if not end:
        return 0
    with file.open("rb") as f:
        f.seek(max(0, end - TAIL_BYTES))
        part = f.read(end - f.tell())
    sys.stdout.write("".join(line + "\n" for line in part.decode("utf-8", "replace").split("\n")[:-1][-lines or len(part) :]))
    sys.stdout.flush()
    return end


def _print_from(file: Path, place: int) -> int:
    """Print what was added after ``place``; where it ends."""
    if not _size(file):
        return 0  # a run that has just been started
    with file.open("rb") as f:
        f.seek(place if place <= _size(file) else 0)  # the log was begun anew
        part, end = f.read(), f.tell()
    sys.stdout.write(part.decode("utf-8", "replace"))
    sys.stdout.flush()
    return end


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def stop(
    run: Which = "latest",
    now: Annotated[bool, typer.Option("--now", help="end its processes at once; what was done since the last checkpoint is lost")] = False,
    runs: Runs = RUNS,
    as_json: Json = False,
) -> None:
    """Stop a run after its step, so that it can be gone on with."""
    with told():
        found = read.find(runs, run)
        if not found.alive:
            say(f"{found.name} is not running ({found.state})")
        state = control.stop(found, now=now)
        if as_json:
            print(dumps({"run": found.name, "state": state}))
        if state == "running":
            say(f"{found.name} is still finishing its step; look again with `lite ps`, or end it with --now")
            raise typer.Exit(1)
        say(f"{found.name}: {state}; go on with: lite run --resume {found.folder.path}" if state != "done" else f"{found.name}: done")


def rm(
    names: Annotated[list[str], typer.Argument(metavar="RUN...", help="runs by name or folder")], yes: Yes = False, runs: Runs = RUNS
) -> None:
    """Delete runs, with everything in them."""
    with told():
        for found in [read.find(runs, name) for name in names]:
            print(f"{tables.bytes_text(control.size(found.folder.path))}  {found.folder.path}")
            if yes:
                control.remove(found)
        if not yes:
            say("nothing was deleted; --yes deletes")


def gc(
    checkpoints: Annotated[bool, typer.Option("--checkpoints", help="also what unfinished runs would go on from")] = False,
    replaced: Annotated[bool, typer.Option("--replaced", help="also results in whose place a changed recipe put others")] = False,
    copies: Annotated[bool, typer.Option("--copies", help="also the 4-bit copies of bases; `--cache-4bit` makes them again")] = False,
    yes: Yes = False,
    runs: Runs = RUNS,
    as_json: Json = False,
) -> None:
    """Free the space of what no run needs any more; a run's results are never touched."""
    with told():
        kept = [(Waste(path, f"4-bit copy of {base}"), control.size(path)) for path, base in env.copies().items()]
        found = [
            (item, control.size(item.path)) for item in control.waste(runs, read.all_runs(runs), checkpoints=checkpoints, replaced=replaced)
        ]
        found += kept if copies else []
        for item, _ in found if yes else ():
            control.delete(item.path)
        total = sum(n for _, n in found)
        if as_json:
            files = [{"path": str(item.path), "why": item.why, "bytes": n} for item, n in found]
            print(dumps({"deleted": yes, "bytes": total, "files": files}))
            return
        for item, n in found:
            print(f"{tables.bytes_text(n)}  {item.path}  ({item.why})")
        say(f"{tables.bytes_text(total)} {'freed' if yes else 'can be freed; --yes frees it'}")
        if kept and not copies:
            say(
                f"{tables.bytes_text(sum(n for _, n in kept))} more are 4-bit copies of bases in {env.copies_folder()}; --copies has them too"
            )


def cp(
    name: Annotated[str, typer.Argument(metavar="RECIPE|TASK", help="a built-in recipe or task, or a file")],
    to: Annotated[Path | None, typer.Argument(metavar="[DEST]", help="a file or a folder (default: here)")] = None,
) -> None:
    """Copy a recipe or a task, to edit it."""
    with told():
        source = _copied(name)
        target = to or Path(source.name)
        target = target / source.name if target.is_dir() else target
        if target.exists():
            raise RecipeError(str(target), ["there is a file already; name another one"])
        try:
            shutil.copyfile(source, target)
        except OSError as e:
            raise PreconditionError(f"{target}: cannot be written ({e.strerror or os.strerror(e.errno or 0)})") from e
        print(target)


def _copied(name: str) -> Path:
    """The file of a recipe or of a task; ``recipes/NAME`` and ``tasks/NAME`` tell those of one name apart."""
    path, recipes, known = Path(name), recipe.built_in(), tasks.names()
    if path.is_file():
        return path
    stem = path.name.removesuffix(".yaml").removesuffix(".yml")
    is_recipe = stem in recipes and path.parent in (Path("."), Path("recipes"))
    is_task = stem in known and path.parent in (Path("."), Path("tasks"))
    if is_recipe and is_task:
        raise RecipeError(name, [f"there are a recipe and a task of this name; write recipes/{stem} or tasks/{stem}"])
    if not is_recipe and not is_task:
        there = f"recipes: {', '.join(recipes)}; tasks: {', '.join(known)}"
        raise RecipeError(name, [f"no such file, and no built-in recipe or task{near(stem, [*recipes, *known])} ({there})"])
    return recipes[stem] if is_recipe else tasks.file_of(stem)


def register(app: typer.Typer) -> None:
    for verb in (ps, logs, stop, rm, gc, cp):
        app.command(verb.__name__)(verb)
