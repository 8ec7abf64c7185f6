"""Templates are DATA: text files with declared slots, ``{dialogue}`` or ``{response}``, filled in one pass.

The corpus of the embedded base and the pipeline fill the very same files, and a file's hash is part of a stage's
identity. Text that is filled in may hold braces: it is never read as a slot.
"""

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from lite.errors import RecipeError

SLOT = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True, slots=True)
class Template:
    name: str
    text: str

    @property
    def slots(self) -> frozenset[str]:
        return frozenset(SLOT.findall(self.text))

    @property
    def hash(self) -> str:
        """Sixteen hex digits of the text: part of the identity of whatever the template made."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]

    def render(self, **values: str) -> str:
        """The text with every slot filled; the names must be exactly the slots."""
        if values.keys() != self.slots:
            raise ValueError(f"template {self.name!r} has the slots {sorted(self.slots)}, got {sorted(values)}")
        return SLOT.sub(lambda found: values[found[1]], self.text)


@cache
def load(name: str) -> Template:
    """The template of a built-in name (``choice``) or of a text file (``my/judge.txt``)."""
    path = Path(name)
    if path.suffix != ".txt":
        path = Path(str(resources.files(__name__) / f"{name}.txt"))
    if not path.is_file():
        raise RecipeError("template", [f"no template {name!r} (there are: {', '.join(names())}); a file of your own ends in .txt"])
    return Template(name, path.read_text(encoding="utf-8"))


def names() -> list[str]:
    """The built-in templates."""
    return sorted(p.name.removesuffix(".txt") for p in resources.files(__name__).iterdir() if p.name.endswith(".txt"))
