"""Which run a name from a browser means, and which folders a recipe from a browser may name. Everything else is refused."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lite.errors import RecipeError
from lite.runs import read
from lite.runs.layout import RUN_NAME
from lite.yamltext import parse


def open_run(runs: Path, name: object) -> read.Run | None:
    """The run of exactly this name in the folder of runs; None for anything else, links that lead out of it included."""
    if not isinstance(name, str) or not RUN_NAME.fullmatch(name):
        return None
    folder = runs.resolve() / name
    if folder.resolve() != folder or not (folder / "run.json").is_file():
        return None
    return read.open_run(folder)


def inside(path: Path, roots: Sequence[Path]) -> bool:
    """Whether a path, its links followed, lies in one of the folders."""
    try:
        whole = path.expanduser().resolve()
    except (OSError, RuntimeError, ValueError):
        return False
    return any(whole.is_relative_to(root.resolve()) for root in roots)


def check_recipe(text: str, overrides: Sequence[str], roots: Sequence[Path]) -> None:
    """A :class:`RecipeError` if a recipe names a place outside the folders; nothing is opened, and nothing told of what is there."""
    values = [*_texts(parse(text, "recipe"), "")]
    for override in overrides:
        key, _, value = override.partition("=")
        values += _texts(parse(value, override), key)
    outside = [f"{place}: {value!r} is outside the folders that this page may use ({', '.join(map(str, roots))})"
               for place, value in values if not _harmless(value, roots)]  # fmt: skip
    if outside:
        raise RecipeError("recipe", outside)


def _harmless(value: str, roots: Sequence[Path]) -> bool:
    if "\0" in value or value.startswith("\\\\") or "://" in value:
        return False
    path = Path(value.replace("\\", "/"))
    named = "\\" in value or "/" in value or value.startswith(("~", "."))
    try:
        there = named or path.is_symlink() or path.is_dir()
    except OSError:  # too long for a name, so none
        return True
    return not there or (inside(path, roots) and not _leads_out(path.expanduser(), roots))


def _leads_out(folder: Path, roots: Sequence[Path]) -> bool:
    """Whether a folder holds a link to a place outside: what was unpacked there may have brought it."""
    try:
        return folder.is_dir() and any(entry.is_symlink() and not inside(entry, roots) for entry in folder.iterdir())
    except OSError:
        return True


def _texts(value: Any, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield place or "recipe", value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(inner, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from _texts(inner, f"{place}[{i}]")
