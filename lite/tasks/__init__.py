"""Tasks are DATA: one YAML file each, with the phrases, principles and question forms of one attribute.

A task file names the attribute that is aligned, the pairs of stage directions that encourage and discourage it
(Yang et al. 2023, section 3.1), and what a judge is asked. ``load(name)`` takes a built-in name or a path.
"""

from functools import cache
from importlib import resources
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from lite.errors import RecipeError
from lite.yamltext import parse


class Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Phrases(Data):
    """One axis: the stage directions of both sides and the principle that judges the same thing."""

    positive: str = Field(min_length=3, description="stage direction that encourages the attribute")
    negative: str = Field(min_length=3, description="stage direction that discourages it, as alike in form as possible")
    principle: str = Field(min_length=3, description="the question of RLAIF and Rescore on the same axis")

    @field_validator("positive", "negative")
    @classmethod
    def fits_inside_a_tag(cls, phrase: str) -> str:
        if any(c in phrase for c in "()\n:"):
            raise ValueError("a stage direction stands inside 'Assistant (...):', so it has no parentheses, colon or line break")
        return phrase


class Example(Data):
    """One answered choice for scorers that are shown some: better on every axis of the task."""

    human: str = Field(min_length=1, description="a human turn")
    better: str = Field(min_length=1)
    worse: str = Field(min_length=1)


class Task(Data):
    name: str
    about: str = Field(description="one sentence for a reader who chooses a task")
    lead: str = Field(default="", description="every response begins with this text, e.g. an outline's first line")
    ask: str = Field(default="", description="makes a human turn of a premise: a text with {premise} in it; none: the task has no premises")
    phrases: tuple[Phrases, ...] = Field(min_length=1)
    question: str = Field(description="what a pairwise judge is asked about two responses")
    examples: tuple[Example, ...] = Field(default=(), description="answered choices for few-shot scoring, in turn; more than enough is cut")

    @field_validator("ask")
    @classmethod
    def has_one_place_for_the_premise(cls, ask: str) -> str:
        if ask and ask.count("{premise}") != 1:
            raise ValueError("{premise} stands in it once")
        return ask


@cache
def load(name: str) -> Task:
    """The task of a built-in name (``helpful``) or of a YAML file (``my/task.yaml``)."""
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = file_of(name)
        if not path.is_file():
            raise RecipeError("task", [f"no built-in task {name!r} (there are: {', '.join(names())}); a file of your own ends in .yaml"])
    try:
        return Task.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError as e:
        raise RecipeError(str(path), ["no such task file"]) from e
    except yaml.YAMLError as e:
        raise RecipeError(str(path), [f"not YAML: {e}"]) from e
    except ValidationError as e:
        raise RecipeError(str(path), [f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in e.errors()]) from e


def is_task(path: Path) -> bool:
    """Whether a file is a task and no recipe: it has ``phrases`` and no ``stages``."""
    try:
        raw = parse(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as e:
        raise RecipeError(str(path), [f"cannot be read: {e}"]) from e
    return isinstance(raw, dict) and "phrases" in raw and not any(key in raw for key in ("stages", "each_round"))


def file_of(name: str) -> Path:
    """The file of a built-in task."""
    return Path(str(resources.files(__name__) / f"{name}.yaml"))


def names() -> list[str]:
    """The built-in tasks."""
    return sorted(p.name.removesuffix(".yaml") for p in resources.files(__name__).iterdir() if p.name.endswith(".yaml"))
