"""What can be taken out of a run without loading anything: adapters as they lie on disk, replies, pairs, votes."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from lite.artifacts import Evaluation, Policy, Reward
from lite.contracts import CONTRACTS
from lite.evaluate.summary import by_model
from lite.runs.publish import dumps
from lite.runs.read import Run
from lite.text.dialogue import parse


@dataclass(frozen=True)
class Adapter:
    """A plain PEFT folder. ``bytes``: the size of its files."""

    stage: str
    role: str
    folder: Path
    bytes: int


def adapters(run: Run) -> list[Adapter]:
    found = []
    for record in run.stages():
        contract = CONTRACTS.get(str(record.facts.get("kind", "")))
        if not record.done or contract is None or contract.gives not in (Policy, Reward):
            continue
        folder = record.folder.out / "adapter"
        if folder.is_dir():
            size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
            found.append(Adapter(record.id, "policy" if contract.gives is Policy else "reward model", folder, size))
    return found


def zipped(adapter: Adapter, to: Path) -> Path:
    """The folder as a zip file in an empty folder."""
    to.mkdir(parents=True)
    return Path(shutil.make_archive(str(to / f"{adapter.stage}-adapter"), "zip", adapter.folder))


def alpaca(run: Run, model: str) -> str:
    """The first draw of a model's replies as AlpacaEval's list of instruction, output and generator."""
    for record in reversed(run.stages()):
        if record.done and (record.folder.out / "replies.jsonl").is_file():
            replies = by_model(Evaluation(record.folder.out).rows()).get(model, [])
            rows = [
                {"instruction": _last_human(r.prompt), "output": r.text.strip(), "generator": f"{run.recipe}-{model}"}
                for r in replies
                if r.draw == 0
            ]
            return dumps(rows, indent=2)
    return "[]"


def _last_human(prompt: str) -> str:
    try:
        turns = parse(prompt.strip().removesuffix("Assistant:").rstrip())
    except ValueError:
        return prompt.strip()
    return next((turn.text for turn in reversed(turns) if turn.role == "human"), prompt.strip())


def votes(run: Run) -> str:
    try:
        return run.folder.votes.read_text(encoding="utf-8")
    except OSError:
        return ""


def use(adapter: Adapter, base: str) -> str:
    """A few lines of Python that load it with nothing but PEFT."""
    return (
        "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\n"
        f"model = AutoModelForCausalLM.from_pretrained({json.dumps(base)})\n"
        f"model = PeftModel.from_pretrained(model, {json.dumps(str(adapter.folder.resolve()))})\n"
    )
