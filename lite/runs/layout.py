"""The names of everything in a run's folder, and the only code that knows them.

runs/<UTC>-<recipe>-<6 hex>/
  recipe.yaml  resolved.yaml  plan.json  env.json  run.json  events.jsonl  log.txt  log.1.txt  report.json  report.md  console.txt  lock
  human/  human_sheet.csv  human_sheet.key.json  ratings.json
  stages/01-prompts/  stage.json  metrics.jsonl  samples.jsonl  ckpt/  out/
  tensorboard/                                                   with `track: tensorboard`
  evals/lm-eval-ppo.json                                         what `lite eval --suite` found
  export/ppo-merged/                                             what `lite export` writes unless it is told another place
  reviews/contrast.jsonl  ratings/ppo-vs-base/  votes.jsonl      what people add; no stage reads it
"""

import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


@dataclass(frozen=True)
class StageFolder:
    path: Path

    @property
    def stage(self) -> Path:
        return self.path / "stage.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def samples(self) -> Path:
        return self.path / "samples.jsonl"

    @property
    def ckpt(self) -> Path:
        return self.path / "ckpt"

    @property
    def out(self) -> Path:
        return self.path / "out"


@dataclass(frozen=True)
class RunFolder:
    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def resolved(self) -> Path:
        return self.path / "resolved.yaml"

    @property
    def plan(self) -> Path:
        return self.path / "plan.json"

    @property
    def env(self) -> Path:
        return self.path / "env.json"

    @property
    def run(self) -> Path:
        return self.path / "run.json"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def older_log(self) -> Path:
        return self.path / "log.1.txt"

    @property
    def console(self) -> Path:
        """What a detached run's process prints, its own last words included."""
        return self.path / "console.txt"

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def report_json(self) -> Path:
        return self.path / "report.json"

    @property
    def report_md(self) -> Path:
        return self.path / "report.md"

    @property
    def human(self) -> Path:
        return self.path / "human"

    def reviews(self, stage: str) -> Path:
        return self.path / "reviews" / f"{stage}.jsonl"

    def ratings(self, first: str, second: str) -> Path:
        return self.path / "ratings" / f"{first}-vs-{second}"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    def evals(self, name: str) -> Path:
        return self.path / "evals" / f"{name}.json"

    def export(self, stage: str, what: str) -> Path:
        return self.path / "export" / f"{stage}-{what}"

    @property
    def replaced(self) -> Path:
        """Finished results in whose place a changed recipe put others."""
        return self.path / "replaced"

    @property
    def votes(self) -> Path:
        return self.path / "votes.jsonl"

    def stage(self, number: int, id: str) -> StageFolder:
        return StageFolder(self.path / "stages" / f"{number:02d}-{id}")

    def stages(self) -> list[StageFolder]:
        return [StageFolder(path) for path in sorted((self.path / "stages").glob("*")) if path.is_dir()]


def table_file(runs: Path, recipe: str, ending: str) -> Path:
    """The table over all runs of a recipe: beside the runs, since it belongs to none of them."""
    return runs / f"{recipe}-table.{ending}"


def new_run_name(label: str, now: datetime | None = None) -> str:
    """``<UTC>-<label>-<6 hex>``: hardly ever repeats; the first three digits are the second's part of 4096, so that order is time to the end."""
    now = now or datetime.now(UTC)
    return f"{now.strftime('%Y%m%dT%H%M%SZ')}-{label[:50]}-{now.microsecond * 4096 // 10**6:03x}{secrets.randbelow(4096):03x}"


def begun(name: str) -> tuple[str, str]:
    """What runs are sorted by, whatever their labels."""
    return name[:16], name[-6:]


def stage_of(out: Path) -> str:
    """The id of the stage that an artifact is from, by the folder that it lies in."""
    return re.sub(r"^\d+-", "", out.parent.name)
