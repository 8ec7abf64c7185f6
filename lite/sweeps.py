"""Sweeps: a recipe that asks for several runs, and the table over all of them."""

import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import typer

from lite.errors import RecipeError
from lite.runs import read
from lite.runs.layout import table_file
from lite.runs.publish import dumps, write_json, write_text
from lite.terminal import say
from lite.yamltext import hint


def run_all(
    run: Callable[..., None], path: Path, wanted: Sequence[tuple[str, ...]], *, resume: bool, as_json: bool, options: dict[str, Any]
) -> int:
    """One run after the other, then the table over all of them; the exit code of the first that does not end well."""
    runs: Path = options["runs"]
    for number, overrides in enumerate(wanted, 1):
        known = [r for r in read.all_runs(runs) if r.recipe == path.stem and r.facts.get("overrides") == list(overrides)] if resume else []
        say(f"run {number} of {len(wanted)}: {' '.join(overrides)}")
        try:
            with redirect_stdout(sys.stderr):
                run(str(path), list(overrides), resume=str(known[-1].folder.path) if known else None, **options)
        except typer.Exit as e:
            if e.exit_code:
                return e.exit_code
    if not options["dry_run"]:
        print_table(path.stem, runs, as_json)
    return 0


def print_table(name: str, runs: Path, as_json: bool) -> None:
    """The table over all finished runs of a recipe, kept beside the runs too."""
    from lite.evaluate import table

    known = read.all_runs(runs)
    reports = table.reports_of(run for run in known if run.recipe == name)
    if not reports:
        raise RecipeError(str(runs), [f"no finished run of {name} here{hint(name, {run.recipe for run in known})}"])
    summary = table.summarise(reports)
    page = table.markdown(summary, name)
    write_json(table_file(runs, name, "json"), summary)
    write_text(table_file(runs, name, "md"), page)
    print(dumps(summary) if as_json else page.rstrip())
