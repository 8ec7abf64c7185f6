"""Write what is exported: a folder that another program loads, with its card. Each appears whole or not at all.

adapter   plain PEFT, tokenizer, chat template, decoding; of a reward model: a sequence classifier, and the head beside it
merged    the adapter in the base's 16-bit weights, with all that a server needs
ollama    the same with a Modelfile
dataset   preference pairs as JSONL
job       those pairs with a script for TRL and a configuration for axolotl, to go on elsewhere
"""

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lite import __version__
from lite.artifacts import Policy, Reward
from lite.errors import ArtifactError, PreconditionError, RecipeError
from lite.export import cards, jobs, snippets, speech
from lite.export.cards import Use
from lite.export.licences import LEGAL, Ask, Licence, licence_of, source_licence
from lite.export.subject import Subject, choose
from lite.model.plain import CONFIG, TARGETS, WEIGHTS
from lite.runs import publish
from lite.runs.journal import now
from lite.runs.read import Run
from lite.sources import reach
from lite.text.dialogue import STOP

MARK = "lite.json"
"""In every exported folder: what it is and what it came from. A folder that has it may be replaced."""
GENERATION, CHAT = "generation_config.json", "chat_template.jinja"
TOKENIZER = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt")
TEMPLATES = ("tokenizer_config.json",)  # where another chat template may stand
MOST_CONTEXT = 4096
SLACK = 1.05


@dataclass(frozen=True)
class Exported:
    path: Path
    subject: Subject
    what: str
    licence: Licence

    def files(self) -> dict[str, int]:
        """Size of every file by its name."""
        return {str(f.relative_to(self.path)): f.stat().st_size for f in sorted(self.path.rglob("*")) if f.is_file()}


def export(
    run: Run,
    what: str,
    *,
    stage: str | None = None,
    to: Path | None = None,
    ask: Ask = reach.card,
    done: Callable[[int, int], None] = lambda n, total: None,
) -> Exported:
    """Export a stage of a run into the folder ``to``; none: one inside the run.

    done: told bytes written and bytes in all while weights are merged
    """
    subject = choose(run, what, stage)
    target = to or run.folder.export(subject.stage.id, what)
    _may_be_written(target)
    base = None if what in ("dataset", "job") else base_folder(subject)
    licence = source_licence(subject) or licence_of(subject, base or _cached(subject), ask)
    target.parent.mkdir(parents=True, exist_ok=True)
    with publish.folder(target) as out:
        if what == "adapter" and base:
            _adapter(subject, base, licence, out)
        elif base:
            _merged(subject, base, licence, out, done, ollama=what == "ollama")
        else:
            jobs.write_pairs(subject, licence, out, job=what == "job")
        (out / "recipe.yaml").write_text(cards.without_places(subject.recipe.to_yaml()), encoding="utf-8")
        publish.write_json(out / MARK, _mark(subject, what))
    return Exported(target, subject, what, licence)


def base_folder(subject: Subject) -> Path:
    """The folder with the base's config, tokenizer and weights, fetched if it is a Hub id that is not in the cache."""
    if subject.base_on_hub:
        return reach.fetch(subject.base.model, subject.base.revision)
    folder = Path(subject.base_place)
    if not folder.is_dir():
        raise PreconditionError(f"base.model: there is no folder {folder} any more, nor a Hub id of that name; the export needs the base")
    return folder


def _cached(subject: Subject) -> Path | None:
    if subject.base_on_hub:
        return reach.snapshot(subject.base.model, subject.base.revision, "model")
    return Path(subject.base_place)


def _may_be_written(target: Path) -> None:
    if target.exists() and not (target.is_dir() and ((target / MARK).is_file() or not any(target.iterdir()))):
        raise RecipeError("--to", [f"{target} is there already and is no earlier export; name a new folder"])


def _mark(subject: Subject, what: str) -> dict[str, Any]:
    return {
        "lite": __version__,
        "what": what,
        "run": subject.run.name,
        "recipe": subject.recipe.name,
        "stage": subject.stage.id,
        "kind": subject.stage.kind,
        "base": subject.base_name,
        "revision": subject.base.revision,
        "seed": subject.recipe.seed,
        "stop": STOP,
        "exported": now(),
    }


def _adapter(subject: Subject, base: Path, licence: Licence, out: Path) -> None:
    assert isinstance(subject.artifact, Policy | Reward)
    source = subject.artifact.adapter
    config = subject.artifact.read_json(f"adapter/{CONFIG}")
    config |= {"base_model_name_or_path": subject.base_word, "revision": _commit(subject, base), "target_modules": sorted(TARGETS)}
    if isinstance(subject.artifact, Reward):
        use = _classifier(subject, subject.artifact, config, out)
    else:
        shutil.copyfile(source / WEIGHTS, out / WEIGHTS)
        use = Use("peft", "adapter", snippets.load_adapter(subject), notes=snippets.base_notes(subject))
    publish.write_json(out / CONFIG, config)
    _speech(subject, base, out)
    title = f"{subject.base_name}, {subject.recipe.name}, {subject.stage.id}: adapter"
    (out / "README.md").write_text(cards.model_card(subject, licence, use, title=title), encoding="utf-8")


def _classifier(subject: Subject, reward: Reward, config: dict[str, Any], out: Path) -> Use:
    """A reward adapter as PEFT knows one: a sequence classifier with its score layer, which is our head without its bias."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    shutil.copyfile(reward.head, out / "head.safetensors")
    with safe_open(reward.head, "pt") as opened:
        pool = (opened.metadata() or {}).get("pool", "last")
    head, weights = load_file(reward.head), load_file(reward.adapter / WEIGHTS)
    if pool != "last":
        shutil.copyfile(reward.adapter / WEIGHTS, out / WEIGHTS)
        return Use(
            "peft",
            "adapter",
            snippets.load_adapter(subject),
            notes=("The reward is the mean of `head.safetensors` over the response.", *snippets.base_notes(subject)),
        )
    config |= {"task_type": "SEQ_CLS", "modules_to_save": ["score"]}
    save_file({**weights, "base_model.model.score.weight": head["weight"]}, out / WEIGHTS, metadata={"format": "pt"})
    return Use("peft", "adapter", snippets.load_classifier(subject, float(head["bias"])), notes=snippets.base_notes(subject))


def _commit(subject: Subject, base: Path) -> str | None:
    return base.name if subject.base_on_hub and base.parent.name == "snapshots" else subject.base.revision


def _merged(
    subject: Subject, base: Path, licence: Licence, out: Path, done: Callable[[int, int], None], *, ollama: bool
) -> None:  # fmt: skip
    from lite.model import merge

    tensors = merge.stored(base)
    total = sum(tensor.bytes for tensor in tensors)
    _room(out, total)
    written = 0

    def told(n: int) -> None:
        nonlocal written
        written += n
        done(written, total)

    assert isinstance(subject.artifact, Policy)
    merge.merge(base, subject.artifact.adapter, out, done=told)
    config = {k: v for k, v in _json(base / "config.json").items() if k != "_name_or_path"}
    config["dtype"] = next(str(t.dtype).removeprefix("torch.") for t in tensors if t.dtype)
    config["torch_dtype"] = config["dtype"]  # what programs that know transformers 4 look for
    publish.write_json(out / "config.json", config)
    _speech(subject, base, out)
    _copy(base, LEGAL, out)
    title = f"{subject.base_name}, {subject.recipe.name}, {subject.stage.id}"
    use = Use("transformers", "finetune", snippets.load_merged(), notes=(snippets.STOPS,))
    if ollama:
        context = min(int(config.get("max_position_embeddings", MOST_CONTEXT)), MOST_CONTEXT)
        text = speech.modelfile(positions=context, decoding=subject.decoding, lead=subject.lead)
        (out / "Modelfile").write_text(text, encoding="utf-8")
        use = Use("transformers", "finetune", snippets.load_ollama(config), language="sh", notes=(snippets.STOPS,))
    card = cards.model_card(subject, licence, use, title=title, extra_tags=("ollama",) if ollama else ())
    (out / "README.md").write_text(card, encoding="utf-8")


def _room(out: Path, total: int) -> None:
    need, free = int(total * SLACK), shutil.disk_usage(out).free
    if free < need:
        raise PreconditionError(
            f"{out.parent}: the merged model takes {need / 2**30:.1f} GiB, {free / 2**30:.1f} are free; free some space or name another disk with --to"
        )


def _speech(subject: Subject, base: Path, out: Path) -> None:
    """The base's tokenizer as it is, with our chat template in place of any of its own; and how replies are drawn and where they end."""
    from lite.model.tokenizing import begins_with_bos, load_tokenizer

    _copy(base, TOKENIZER, out)
    for name in TEMPLATES:
        if (out / name).is_file():
            kept = {key: value for key, value in _json(out / name).items() if key != "chat_template"}
            publish.write_json(out / name, kept)
    begins = begins_with_bos(load_tokenizer(base))
    (out / CHAT).write_text(speech.chat_template(begins=begins, lead=subject.lead), encoding="utf-8")
    own = _json(base / GENERATION) if (base / GENERATION).is_file() else {}
    publish.write_json(out / GENERATION, speech.generation_config(_json(base / "config.json"), own, subject.decoding))


def _copy(base: Path, patterns: Iterable[str], out: Path) -> None:
    for file in (file for pattern in patterns for file in base.glob(pattern) if file.is_file()):
        shutil.copyfile(file, out / file.name)


def _json(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise ArtifactError(f"{file}: cannot be read ({e})") from e
