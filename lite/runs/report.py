"""report.json and report.md at the top of a run."""

from collections.abc import Mapping, Sequence
from typing import Any

from lite import __version__
from lite.artifacts import Artifact, Evaluation
from lite.knobs import base_of
from lite.plan import Node
from lite.recipe import Recipe
from lite.runs.journal import Journal
from lite.runs.progress import duration
from lite.runs.publish import write_json, write_text
from lite.runs.read import Run, read_json


def write(journal: Journal, recipe: Recipe, nodes: Sequence[Node], artifacts: Mapping[str, Artifact]) -> None:
    """report.json and report.md at the top of the run: the last evaluation's, and how long the stages took."""
    evaluations = [artifact for artifact in artifacts.values() if isinstance(artifact, Evaluation)]
    empty: dict[str, Any] = {"models": {}, "comparisons": [], "reward": {}, "diagnostics": {}}
    found = empty | (evaluations[-1].report() if evaluations else {})
    seconds = {n.id: read_json(journal.run.stage(n.number, n.id).stage).get("seconds") for n in nodes}
    found["run"] = {"name": journal.run.name, "recipe": recipe.name, "base": recipe.base.model, "task": recipe.task, "seed": recipe.seed}
    others = {n.id: base.model for n in nodes if (base := base_of(n.spec, recipe.base)) != recipe.base}
    found["run"] |= {
        "other_bases": others,
        "seconds": seconds,
        "total_seconds": sum(s or 0 for s in seconds.values()),
        "lite": __version__,
    }
    write_json(journal.run.report_json, found)

    page = evaluations[-1].path / "report.md" if evaluations else None
    told = page.read_text(encoding="utf-8").rstrip() if page and page.is_file() else f"# {recipe.name}"
    if page:  # its pictures lie beside it
        told = told.replace("](pictures/", f"]({page.parent.relative_to(journal.run.path).as_posix()}/pictures/")
    rows = "\n".join(f"| {id} | {duration(s) if s is not None else '?'} |" for id, s in seconds.items())
    overrides = " ".join(journal.facts.get("overrides") or ()) or "none"
    bases = ", ".join((f"base {recipe.base.model}", *(f"{model} for {id}" for id, model in others.items())))
    facts = f"Recipe {recipe.name}, {bases}, task {recipe.task}, seed {recipe.seed}, overrides: {overrides}."
    write_text(journal.run.report_md, f"{told}\n\n## Run\n\n{facts}\n\n| stage | time |\n|---|---|\n{rows}\n")


def headline(run: Run) -> str:
    """The first section of a run's report: all before its first heading that follows some text."""
    try:
        lines = run.folder.report_md.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    first_text = next((i for i, line in enumerate(lines) if line.strip() and not line.startswith("#")), len(lines))
    end = next((i for i, line in enumerate(lines) if i > first_text and line.startswith("#")), len(lines))
    return "\n".join(lines[:end]).rstrip()
