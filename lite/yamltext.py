"""YAML as recipes use it: plain values only, no key twice, no aliases, 1e-3 is a number; a mistake is told with its line."""

import difflib
import re
from collections.abc import Hashable, Iterable
from typing import Any

import yaml

from lite.errors import RecipeError

MAX_BYTES = 1_000_000
SECRETS = re.compile(r"""[^\s'"/]*:[^\s'"]*@|(?<=[\w/])[?#][^\s'"]+""")
"""Where an address holds a key: before the host, or behind the path."""


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader without aliases (an alias of aliases is a bomb) and without doubled keys."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(None, None, "aliases (*name) are not read here; write the value out", self.peek_event().start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen and isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(None, None, f"the key {key.value!r} stands here a second time", key.start_mark)
            if isinstance(key, yaml.ScalarNode):
                seen.add(key.value)
        return super().construct_mapping(node, deep)


# PyYAML follows YAML 1.1, where 1e-3 is a string; YAML 1.2 and everyone who writes a learning rate take it for a number.
Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789"))


def parse(text: str, where: str) -> Any:
    """The value of a YAML text; a :class:`RecipeError` tells the line of what cannot be read."""
    if len(text.encode()) > MAX_BYTES:
        raise RecipeError(where, [f"larger than {MAX_BYTES:,} bytes, which no recipe is"])
    try:
        return yaml.load(text, Loader=Loader)  # noqa: S506  Loader is a SafeLoader
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise RecipeError(where, [f"{place}{e.problem or 'not YAML'}"]) from e
    except yaml.YAMLError as e:
        raise RecipeError(where, [f"not YAML: {' '.join(str(e).split())}"]) from e
    except RecursionError as e:
        raise RecipeError(where, ["nested too deeply"]) from e
    except (ValueError, OverflowError, TypeError) as e:  # e.g. the date 2024-99-99
        raise RecipeError(where, [f"a value cannot be read: {e}"]) from e


def near(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` or nothing: for messages that name what there is themselves."""
    found = difflib.get_close_matches(name, list(known), 1, cutoff=0.6)
    return f"; did you mean {found[0]!r}?" if found else ""


def hint(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` or, where nothing is near, what there is."""
    known = list(known)
    if meant := near(name, known):
        return meant
    return f" (there are: {', '.join(known[:12])}{', ...' if len(known) > 12 else ''})" if known else ""


def shown(value: Any) -> str:
    """What was there, short enough for one line, and without a key."""
    text = SECRETS.sub("...", repr(value))
    return text if len(text) <= 60 else text[:57] + "..."
