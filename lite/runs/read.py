"""Read runs from disk: which there are, how far they came, which stages are done. Imports no torch and never raises on a torn line."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lite.errors import RecipeError
from lite.runs import process
from lite.runs.journal import try_lock
from lite.runs.layout import RunFolder, StageFolder, begun
from lite.yamltext import near


@dataclass(frozen=True)
class StageRecord:
    """What stage.json says of one stage."""

    folder: StageFolder
    facts: dict[str, Any]

    @property
    def id(self) -> str:
        return str(self.facts.get("id", ""))

    @property
    def fingerprint(self) -> str:
        return str(self.facts.get("fingerprint", ""))

    @property
    def identity(self) -> dict[str, Any]:
        """What the fingerprint was made of."""
        found = self.facts.get("identity")
        return found if isinstance(found, dict) else {}

    @property
    def files(self) -> dict[str, str]:
        """sha256 of what lies in ``out``."""
        found = self.facts.get("files")
        return found if isinstance(found, dict) else {}

    @property
    def seconds(self) -> float | None:
        return self.facts.get("seconds")

    @property
    def left_off(self) -> str:
        """How a stage that was not finished will go on. Checkpoints are looked at only: whether one is whole is seen when it is used."""
        manifests = [read_json(file) for file in self.folder.ckpt.glob("checkpoint-*/manifest.json")]
        if newest := max(manifests, key=lambda m: m.get("step", 0), default=None):
            return f"goes on from step {newest.get('step')} of {newest.get('of')}"
        return "goes on where it left off" if any(self.folder.ckpt.glob("*.jsonl")) else "begins anew"

    @property
    def done(self) -> bool:
        return bool(self.fingerprint) and self.folder.out.is_dir()


@dataclass(frozen=True)
class Run:
    folder: RunFolder
    facts: dict[str, Any]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def recipe(self) -> str:
        return str(self.facts.get("recipe", ""))

    @property
    def state(self) -> str:
        """The state that run.json tells; `interrupted` where it tells of a process that is no more."""
        state = str(self.facts.get("state", "queued"))
        return "interrupted" if state in ("running", "queued") and not self.alive else state

    @property
    def alive(self) -> bool:
        """Whether a process holds the run's lock, or was started and waits for its turn."""
        if not self.folder.lock.is_file():
            return False
        if self.facts.get("state") == "queued" and process.lives(self.facts):
            return True
        with self.folder.lock.open() as f:
            return not try_lock(f.fileno())

    def stages(self) -> list[StageRecord]:
        return [StageRecord(folder, read_json(folder.stage)) for folder in self.folder.stages()]

    def report(self) -> dict[str, Any]:
        return read_json(self.folder.report_json)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file, or an empty one where there is no readable object."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file; a torn line is left out."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for line in text.split("\n"):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            yield row


def open_run(path: Path) -> Run:
    return Run(RunFolder(path), read_json(path / "run.json"))


def all_runs(runs: Path) -> list[Run]:
    """The runs of a folder, oldest first."""
    if runs.exists() and not runs.is_dir():
        raise RecipeError("--runs", [f"{runs} is a file; name the folder of the runs"])
    found = sorted(runs.iterdir(), key=lambda path: begun(path.name)) if runs.is_dir() else ()
    return [open_run(path) for path in found if (path / "run.json").is_file()]


def latest(runs: Path, recipe: str | None = None) -> Run | None:
    """The newest run, of a recipe if one is named."""
    found = [run for run in all_runs(runs) if recipe is None or run.recipe == recipe]
    return found[-1] if found else None


def find(runs: Path, name: str, recipe: str | None = None, *, fits: Callable[[Run], bool] | None = None) -> Run:
    """The run of a folder, of a run's name or its beginning or end, or `latest`: the newest that ``fits``, or the newest if none does."""
    if name == "latest":
        found = latest(runs, recipe)
        if found is None:
            of = f" of recipe {recipe}" if recipe else ""
            raise RecipeError(str(runs), [f"no run{of} here yet; `lite run` starts one"])
        if fits is None or fits(found):
            return found
        return next((run for run in reversed(all_runs(runs)) if recipe in (None, run.recipe) and fits(run)), found)
    if (Path(name) / "run.json").is_file():
        return open_run(Path(name))
    known = all_runs(runs)
    matches = [run for run in known if name in (run.name, run.facts.get("name"))]
    matches = matches[-1:] or [run for run in known if run.name.startswith(name) or run.name.endswith(name)]
    if len(matches) == 1:
        return matches[0]
    if not matches and (what := _model_in(Path(name))):
        raise RecipeError(name, [what])
    labels = [str(label) for run in known for label in (run.name, run.facts.get("name")) if label]
    what = f"{len(matches)} runs are named so" if matches else f"no such run{near(name, labels)}"
    raise RecipeError(str(runs), [f"{name}: {what} ({_newest(matches or known)})"])


def _newest(found: Sequence[Run], most: int = 3) -> str:
    """The names of a few runs, newest first, and how to see the rest."""
    if not found:
        return "there are none"
    names = ", ".join(run.name for run in list(reversed(found))[:most])
    return f"the newest: {names}; `lite ls runs` has them all" if len(found) > most else f"there are: {names}"


def _model_in(folder: Path) -> str:
    """What a folder is in which there is a model and no run, and how it is loaded."""
    if any((place / "adapter_config.json").is_file() for place in (folder, folder / "adapter")):
        return f"a folder with an adapter, and no run; in Python: lite.load_policy({str(folder)!r})"
    if (folder / "config.json").is_file():
        return (
            f"a whole (merged) model, and neither a run nor an adapter; transformers loads it: "
            f"AutoModelForCausalLM.from_pretrained({str(folder)!r}); as the base of a run: base.model={folder}"
        )
    return ""
