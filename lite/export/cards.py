"""The cards that go with what is exported: model cards and data set cards, whole, from what the run knows. Torch-free.

Nothing in them is left to be filled in: what is not known is said to be unknown, or left out. Paths of this machine and whatever
looks like a credential stay here.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from lite import __version__, tasks
from lite.contracts import CONTRACTS
from lite.export.licences import PROMPTS, WRITERS, Licence
from lite.export.subject import Subject
from lite.knobs import base_of
from lite.knobs.writing import PreferencesSpec
from lite.plan import effective
from lite.runs.env import PACKAGES
from lite.runs.journal import clean
from lite.runs.publish import plain
from lite.runs.read import read_json
from lite.text.dialogue import STOP

METHODS: Mapping[str, tuple[str, str]] = {
    "rlcd": ("RLCD, reinforcement learning from contrastive distillation (Yang et al. 2023)", "2307.12950"),
    "self-rewarding": ("self-rewarding, the model being its own judge (Yuan et al. 2024)", "2401.10020"),
    "rlaif": ("RLAIF, reinforcement learning from the feedback of a model (Bai et al. 2022)", "2212.08073"),
    "preferences": ("training on preferences that people, or the embedded world's oracle, have labelled", ""),
    "tuning": ("supervised training", ""),
}
STOPPED = "how `{}` ended: `turn`, before the next human turn; `eos`, with the end-of-text token; `length`, cut at the limit of tokens"
LABELLED: Mapping[str, str] = {
    "contrast": "Nobody compared the two responses: `chosen` is the one written under the better of two prompts, and may be the worse one.",
    "score": "A model chose between the two responses by the odds of two letters; what it prefers for a wrong reason is labelled so too.",
    "pair": "A model judged responses, its own among them: what it overrates, such as length or its own style, is labelled so too.",
}
"""What to know of the labels, by the kind of stage that gave them last."""
ABSOLUTE = re.compile(r"(?<![\w/.:])(?:~|[A-Za-z]:)?/(?:[^\s/'\"]+/)+(?=[^\s/'\"]+)")
TRAININGS = ("ppo", "dpo", "sft", "reward")
MODEL_FIGURES = ("success", "score", "reward", "kl_to_base", "tokens", "stop_rate")
OF_THE_MACHINE = ("seconds", "tokens_per_s", "memory")
HEADS = {"kl_to_base": "KL to the base", "stop_rate": "ends by itself"}


@dataclass(frozen=True)
class Use:
    """How it is loaded: a few lines of a language, and the libraries' name for it."""

    library: str
    relation: str
    code: str
    language: str = "python"
    notes: tuple[str, ...] = ()


def method(subject: Subject) -> str:
    """The key of METHODS that the history of a stage comes to."""
    kinds = subject.kinds
    marks = (("judge", "self-rewarding"), ("contrast", "rlcd"), ("score", "rlaif"), ("preferences", "preferences"))
    return next((name for kind, name in marks if kind in kinds), "tuning")


def model_card(subject: Subject, licence: Licence, use: Use, *, title: str, extra_tags: Sequence[str] = ()) -> str:
    name = method(subject)
    head: dict[str, Any] = {
        **({"base_model": subject.base.model, "base_model_relation": use.relation} if subject.base_on_hub else {}),
        **licence.metadata(),
        "library_name": use.library,
        "pipeline_tag": "text-generation" if subject.stage.kind != "reward" else "text-classification",
        **({"datasets": found} if (found := _hub_datasets(subject)) else {}),
        "tags": [
            name,
            *[kind for kind in TRAININGS if kind == subject.stage.kind or (kind in subject.kinds and kind != "reward")],
            "lora",
            "lite",
            *extra_tags,
        ],
    }
    about = tasks.load(subject.recipe.task).about
    is_reward = subject.stage.kind == "reward"
    what = "A reward model" if is_reward else "A language model"
    words, paper = METHODS[name]
    paper = f" ([paper](https://arxiv.org/abs/{paper}))" if paper else ""
    parts = [
        f"# {title}",
        f"{what} made from {subject.base_name} by {words}{paper}, with a LoRA adapter on the base in "
        f"{'4 bits' if subject.base.quantize == 'nf4' else '16 or 32 bits'}. Task: {subject.recipe.task}. {about}",
        "## Use",
        *(f"{note}" for note in use.notes),
        f"```{use.language}\n{use.code.rstrip()}\n```",
        "## How it was made",
        _steps(subject),
        f"### Hyper-parameters of `{subject.stage.id}` ({subject.stage.kind})",
        _knobs(subject),
        *_figures_of_training(subject),
        "## Evaluation",
        _evaluation(subject),
        "## Data and provenance",
        _provenance(subject),
        "## Limits",
        _limits(subject),
        "## Licence",
        licence.sentence(subject.base_name),
        "## Made with",
        _made_with(subject),
    ]
    return whole(head, parts)


def dataset_card(subject: Subject, licence: Licence, *, title: str, rows: int, columns: Iterable[str]) -> str:
    found = _hub_datasets(subject)
    head = {
        **licence.metadata(),
        "task_categories": ["text-generation"],
        "tags": [method(subject), "preference", "dpo", "trl", "lite"],
        "size_categories": [_size(rows)],
        **({"source_datasets": found} if found else {}),
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "train.jsonl"}]}],
    }
    own = {
        "id": "which prompt of the run it is; pairs of one prompt share it",
        "prompt": "the dialogue so far, ending with an open assistant tag",
        "chosen": "the preferred response, with the white space before it",
        "rejected": "the other response",
        "label": "the probability that `chosen` is the better one; 1.0 where labels are hard",
        "p_plus": "the prompt that `chosen` was written under",
        "p_minus": "the prompt that `rejected` was written under",
        "index": "which pair of stage directions",
        "attempts": "draws that the pair took",
        "turned": "whether a scorer turned the pair round",
        "stop_chosen": STOPPED.format("chosen"),
        "stop_rejected": STOPPED.format("rejected"),
        "review": "what a person decided: keep, or flip (turned round by hand); excluded pairs are not here",
    }
    listed = "\n".join(f"| `{name}` | {own.get(name, 'provenance')} |" for name in columns)
    parts = [
        f"# {title}",
        f"{rows} preference pairs in TRL's format (`prompt`, `chosen`, `rejected`; the other columns may be dropped), from the stage "
        f"`{subject.stage.id}` ({subject.stage.kind}) of a run of lite. {tasks.load(subject.recipe.task).about}",
        '```python\nfrom datasets import load_dataset\n\npairs = load_dataset("json", data_files="train.jsonl", split="train")\n```',
        f"A response does not hold the string that ends it, {STOP!r}: add it where a model is to learn to stop.",
        "## Columns",
        f"| column | meaning |\n|---|---|\n{listed}",
        "## How it was made",
        _steps(subject),
        *_figures_of_training(subject),
        "## Data and provenance",
        _provenance(subject),
        "## Limits",
        _limits_of_pairs(subject),
        "## Licence",
        licence.sentence(subject.base_name) + (" The prompts' own licence is named above." if found else ""),
        "## Made with",
        _made_with(subject),
    ]
    return whole(head, parts)


def whole(head: Mapping[str, Any], parts: Sequence[str]) -> str:
    text = "\n\n".join(part for part in parts if part)
    return f"---\n{yaml.safe_dump(plain(head), sort_keys=False, allow_unicode=True)}---\n\n{without_places(clean(text))}\n"


def without_places(text: str) -> str:
    """The text with absolute paths cut to their last part: where things lie on this machine is nobody's business."""
    return ABSOLUTE.sub("", text)


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows)])


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|").replace("\n", " ")


def _steps(subject: Subject) -> str:
    rows = [f"{i}. `{s.id}` ({s.kind}): {CONTRACTS[s.kind].about}" for i, s in enumerate(subject.history, 1)]
    return f"The stages that led here, of recipe `{subject.recipe.name}`, seed {subject.recipe.seed}:\n\n" + "\n".join(rows)


def _knobs(subject: Subject) -> str:
    def flat(values: Mapping[str, Any], before: str = "") -> Iterable[tuple[str, Any]]:
        for name, value in values.items():
            if isinstance(value, Mapping):
                yield from flat(value, f"{before}{name}.")
            elif value is not None:
                yield f"{before}{name}", value

    return table(("knob", "value"), [(f"`{name}`", value) for name, value in flat(effective(subject.stage.spec))])


def _figures_of_training(subject: Subject) -> list[str]:
    """What the stage told of itself, KL included: numbers only, one level deep."""
    report = subject.report()
    pairs = [(name, value) for name, value in report.items() if not isinstance(value, Mapping)]
    pairs += [(f"{name}.{k}", v) for name, value in report.items() if isinstance(value, Mapping) for k, v in value.items()]
    rows = [
        (name, value)
        for name, value in pairs
        if isinstance(value, int | float) and not isinstance(value, bool) and not any(word in name for word in OF_THE_MACHINE)
    ]
    return [f"### Figures of `{subject.stage.id}`", table(("figure", "value"), rows)] if rows else []


def _evaluation(subject: Subject) -> str:
    report = subject.run.report()
    models = report.get("models") or {}
    if not models:
        return "This run has not been evaluated."
    shown = [name for name in MODEL_FIGURES if any(name in figures for figures in models.values())]
    rows = [(f"**{name}**" if name == subject.stage.id else name, *(figures.get(f) for f in shown)) for name, figures in models.items()]
    decoding = subject.decoding
    said = [
        f"Held-out prompts, {next(iter(models.values())).get('prompts', '?')} of them, temperature {decoding.temperature:g}, top-p "
        f"{decoding.top_p:g}, at most {decoding.max_new_tokens} new tokens. KL is that of the policy to the base, in nats per reply.",
        table(("model", *(HEADS.get(name, name) for name in shown)), rows),
    ]
    if report.get("judge") == "oracle":
        said.append("Success and score are the verdict of the embedded world's oracle; they say nothing of other worlds.")
    met = [c for c in report.get("comparisons", ()) if subject.stage.id in (c.get("first"), c.get("second"))]
    met += [c for c in report.get("judged", ()) if subject.stage.id in (c.get("first"), c.get("second"))]
    if met:
        rows = [(c["first"], c["second"], c.get("judge", report.get("judge")), c.get("win_rate"), c.get("compared")) for c in met]
        said.append(table(("first", "second", "judge", "win rate of the first", "compared"), rows))
    reward = report.get("reward") or {}
    if reward.get("accuracy") is not None:
        said.append(
            f"The reward model orders {reward['accuracy']:.1%} of {reward.get('held_out', '?')} held-out pairs as they are labelled."
        )
    return "\n\n".join(said)


def _provenance(subject: Subject) -> str:
    said = []
    for stage in subject.history:
        source = getattr(stage.spec, "source", None)
        if stage.kind in ("prompts", "seed", "preferences") and source:
            hub = PROMPTS.get(str(source))
            named = f"[{hub[0]}](https://huggingface.co/datasets/{hub[0]}) ({hub[1]})" if hub else _own_source(str(source))
            said.append(f"- `{stage.id}`: {named}")
        elif stage.kind in ("contrast", "respond", "score", "judge", "instruct"):
            base = base_of(stage.spec, subject.recipe.base)
            writer = subject.base_name if base == subject.base else without_places(base.model)
            if server := getattr(stage.spec, "server", None):
                writer = f"{without_places(server.model)}, on a server"
            policy = stage.inputs.get("policy")
            said.append(f"- `{stage.id}`: written by {f'`{policy}`, a model of this run' if policy else writer}")
    labelled = {str(getattr(s.spec, "source", "")) for s in subject.history if s.kind in ("preferences", "seed")}
    if not labelled:
        said.append("- No label that a person made took part.")
    else:
        by = "the embedded world's oracle" if labelled == {"micro"} else "people"
        said.append(f"- Labels or rankings by {by} took part: those of the stages preferences and seed.")
    return "\n".join(said)


def _own_source(source: str) -> str:
    return "the embedded world of lite" if source == "micro" else f"a file of the user's, `{without_places(source)}`"


def _limits(subject: Subject) -> str:
    said = [
        "What a model was rewarded for is what it does more of: a reward model or a judge that can be fooled will have been.",
        "Trained and evaluated on prompts of one task; nothing is known of other languages, tasks, or longer dialogues.",
        "It knows dialogues of Human and Assistant turns, no system message and no tools.",
    ]
    if "harm" in subject.recipe.task:
        said.append("Prompts and responses of harmlessness runs may be offensive: models are asked for bad replies too, to learn from.")
    if subject.base.model == "tiny":
        said.append(
            "The base is a toy of one million weights that knows a small closed world: of use to test the method, and for nothing else."
        )
    if subject.base.quantize == "nf4" and subject.stage.kind != "reward":
        said.append("The adapter was trained on 4-bit weights; on 16-bit ones its replies differ a little.")
    return "\n".join(f"- {line}" for line in said)


def _limits_of_pairs(subject: Subject) -> str:
    """What whoever learns from the pairs should know of them; of the models that the run made it says nothing."""
    kinds = [stage.kind for stage in subject.history]
    by = next((kind for kind in reversed(kinds) if kind in LABELLED), None)
    said = [LABELLED[by]] if by else []
    if labelled := {str(stage.spec.source) for stage in subject.history if isinstance(stage.spec, PreferencesSpec)}:
        by = "the embedded world's oracle" if labelled == {"micro"} else "the people whom the source names"
        said.append(f"Labels of `preferences` are the verdicts of {by}, and their taste.")
    if any(kind in WRITERS for kind in kinds):
        said.append("The responses were written by a model, and not checked for truth.")
    said.append("Prompts of one task: Human and Assistant turns, no system message and no tools.")
    if "harm" in subject.recipe.task:
        said.append("Prompts and responses may be offensive: models are asked for bad replies too, to learn from.")
    if "micro" in subject.sources:
        said.append("The prompts are those of the embedded world of lite, small and closed: of use to test a method, and for nothing else.")
    return "\n".join(f"- {line}" for line in said)


def _made_with(subject: Subject) -> str:
    env = read_json(subject.run.folder.env)
    versions = {name: version for name, version in (env.get("packages") or {}).items() if name in PACKAGES and version}
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    recipe = without_places(subject.recipe.to_yaml())
    return (
        f"lite {env.get('lite') or __version__}, Python {env.get('python', '?')}; {packages}.\n\n"
        f"<details><summary>The whole recipe, every knob written out</summary>\n\n```yaml\n{recipe}```\n\n</details>"
    )


def _hub_datasets(subject: Subject) -> list[str]:
    return [PROMPTS[source][0] for source in subject.sources if source in PROMPTS]


def _size(rows: int) -> str:
    """The Hub's name for about so many rows."""
    steps = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
    return next((name for most, name in steps if rows < most), "1M<n<10M")
