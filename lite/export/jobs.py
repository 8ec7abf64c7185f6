"""Preference pairs to take away: as a data set with its card, or as a DPO job for TRL and axolotl."""

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from lite.errors import ArtifactError
from lite.export import cards
from lite.export.licences import Licence
from lite.export.rows import reviewed
from lite.export.subject import Subject
from lite.knobs.training import DpoSpec
from lite.model.plain import TARGETS
from lite.runs import publish
from lite.runs.read import read_json
from lite.text.dialogue import STOP


def write_pairs(subject: Subject, licence: Licence, out: Path, *, job: bool) -> None:
    rows = list(reviewed(subject.run, subject.stage.id))
    if not rows:
        raise ArtifactError(f"{subject.artifact.path}: no pair is left to be exported")
    ends = STOP if job else ""  # a job learns to stop; a data set is for all uses
    with (out / "train.jsonl").open("w", encoding="utf-8") as f:
        for row in rows:
            both = {side: row[side] + ends for side in ("chosen", "rejected")}
            f.write(json.dumps({**row, **both}, ensure_ascii=False) + "\n")
    title = f"Preference pairs of {subject.recipe.name}, {subject.stage.id}"
    card = cards.dataset_card(subject, licence, title=title, rows=len(rows), columns=list(rows[0]))
    if job:
        card = card[: card.index("# ")] + _job(subject, out) + card[card.index("## Columns") :]
    (out / "README.md").write_text(card, encoding="utf-8")


def _job(subject: Subject, out: Path) -> str:
    """The files of a DPO job with the run's own knobs where it has a dpo stage; what its README says first."""
    spec = next((s.spec for s in reversed(subject.recipe.stages) if isinstance(s.spec, DpoSpec)), DpoSpec())
    settings = {
        "base": subject.base_place,
        "revision": subject.base.revision,
        "four_bit": subject.base.quantize == "nf4",
        "beta": spec.beta,
        "loss": spec.loss,
        "lr": spec.lr,
        "epochs": spec.epochs,
        "warmup": spec.warmup,
        "batch_pairs": spec.batch_pairs,
        "max_tokens": spec.max_tokens,
        "max_grad_norm": spec.max_grad_norm,
        "lora": spec.lora.model_dump(),
        "targets": sorted(TARGETS),
        "seed": subject.recipe.seed,
    }
    _write(settings, out)
    script = resources.files("lite.export") / "train_dpo.py.txt"
    (out / "train_dpo.py").write_text(script.read_text(encoding="utf-8"), encoding="utf-8")
    return (
        f"# A DPO job on the pairs of {subject.recipe.name}, {subject.stage.id}\n\n"
        "To go on elsewhere, on several GPUs or with other losses: `job.json` holds the knobs, `train.jsonl` the pairs, each response "
        "with the string that ends it.\n\n"
        "```sh\npip install 'trl==1.12.*' peft bitsandbytes datasets && python train_dpo.py        # TRL\n"
        "accelerate launch train_dpo.py                                                          # TRL on several GPUs\n"
        "axolotl train axolotl.yaml                                                              # axolotl\n```\n\n"
        f"{_about_base(subject)}"
    )


def _about_base(subject: Subject) -> str:
    if subject.base_on_hub:
        return ""
    which = "the embedded tiny base of lite, the folder `lite/micro/base` of the package" if subject.base.model == "tiny" else "a folder"
    name = "" if subject.base.model == "tiny" else f", `{subject.base_name}`"
    return (
        f"The base is {which}{name}; no hub has it. `job.json` and `axolotl.yaml` name its place on the machine that wrote them, or, once "
        f"pushed, `{subject.base_word}`: elsewhere say where it lies, `python train_dpo.py --base PLACE`, or `base_model` in `axolotl.yaml`.\n\n"
    )


def forget_place(folder: Path, subject: Subject) -> None:
    """In a job's folder, put a name in the place of the base's folder on this machine."""
    _write({**read_json(folder / "job.json"), "base": subject.base_word}, folder)


def _write(settings: Mapping[str, Any], out: Path) -> None:
    publish.write_json(out / "job.json", settings)
    (out / "axolotl.yaml").write_text(yaml.safe_dump(_axolotl(settings), sort_keys=False), encoding="utf-8")


def _axolotl(job: Mapping[str, Any]) -> dict[str, Any]:
    fields = {f"field_{side}": side for side in ("prompt", "chosen", "rejected")}
    shapes = {f"{side}_format": f"{{{side}}}" for side in ("prompt", "chosen", "rejected")}
    return {
        "base_model": job["base"],
        **({"revision_of_model": job["revision"]} if job["revision"] else {}),
        "load_in_4bit": job["four_bit"],
        "adapter": "qlora" if job["four_bit"] else "lora",
        "lora_r": job["lora"]["r"],
        "lora_alpha": job["lora"]["alpha"],
        "lora_dropout": job["lora"]["dropout"],
        "lora_target_modules": job["targets"],
        "rl": "dpo",
        "rl_beta": job["beta"],
        "datasets": [{"path": "train.jsonl", "ds_type": "json", "split": "train", "type": fields | shapes}],
        "sequence_len": job["max_tokens"],
        "micro_batch_size": 2,
        "gradient_accumulation_steps": max(1, job["batch_pairs"] // 2),
        "num_epochs": job["epochs"],
        "learning_rate": job["lr"],
        "lr_scheduler": "cosine",
        "warmup_ratio": job["warmup"],
        "max_grad_norm": job["max_grad_norm"],
        "optimizer": "adamw_bnb_8bit",
        "bf16": "auto",
        "gradient_checkpointing": True,
        "seed": job["seed"],
        "output_dir": "./out",
    }
