"""The licence that a model inherits: what the base's own card says. Torch-free."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lite.artifacts import Pairs
from lite.export.subject import Subject
from lite.knobs.writing import ContrastSpec, PreferencesSpec, RespondSpec
from lite.sources import reach

LEGAL = ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*", "COPYING*")
"""Files that come along with merged weights: several licences ask for it."""
PROMPTS: Mapping[str, tuple[str, str]] = {
    "hh-rlhf": ("Anthropic/hh-rlhf", "mit"),
    "oasst1": ("OpenAssistant/oasst1", "apache-2.0"),
    "oasst2": ("OpenAssistant/oasst2", "apache-2.0"),
}
"""Sources of rows on the Hub, with the licence that their cards name."""
OURS = {"license": "apache-2.0"}
"""Of the embedded base and its world: this repository's."""
Ask = Callable[[str, str | None], Mapping[str, Any] | None]
"""What a Hub card says, or None where nobody can be asked."""


WRITERS = ("contrast", "respond")
"""Stages in which a model writes what is passed on."""


@dataclass(frozen=True)
class Licence:
    """``id`` is None where the base's card does not say, or could not be read. ``of``: whose it is, if not the base's."""

    id: str | None
    name: str | None = None
    link: str | None = None
    of: str | None = None

    def metadata(self) -> dict[str, str]:
        found = {"license": self.id, "license_name": self.name, "license_link": self.link}
        return {key: value for key, value in found.items() if value}

    def sentence(self, base: str) -> str:
        base = self.of or base
        if self.id is None:
            return f"The licence of {base} could not be read when this was exported. It holds for what is derived from it too: read it before you pass this on."
        named = f"{self.name} ({self.id})" if self.name else self.id
        link = f", {self.link}" if self.link else ""
        return f"{named}{link}: inherited from {base}. Its terms hold for this too."


def licence_of(subject: Subject, folder: Path | None, ask: Ask = reach.card) -> Licence:
    """``folder``: where the base lies, if it is here."""
    if subject.base.model == "tiny":
        return _licence(OURS)
    said = front_matter(folder / "README.md") if folder else {}
    if not said.get("license") and subject.base_on_hub:
        said = ask(subject.base.model, subject.base.revision) or {}
    return _licence(said)


def source_licence(subject: Subject) -> Licence | None:
    """Of pairs that no model of the run wrote: that of where they are from; what a server wrote has its model's, which cannot be read from
    here. None for everything else."""
    if subject.stage.contract.gives is Pairs and (server := server_of(subject)):
        return Licence(None, of=server)
    source = next((str(s.spec.source) for s in subject.history if isinstance(s.spec, PreferencesSpec)), None)
    if source is None or any(kind in WRITERS for kind in subject.kinds) or subject.stage.contract.gives is not Pairs:
        return None
    if source == "micro":
        return Licence(OURS["license"], of="the embedded world of lite")
    dataset, id = PROMPTS.get(source, ("the rows' source", None))
    return Licence(id, of=dataset)


def server_of(subject: Subject) -> str | None:
    """The model behind the address that wrote what the stage came from, by the server's name for it."""
    specs = [stage.spec for stage in subject.history]
    return next((spec.server.model for spec in specs if isinstance(spec, ContrastSpec | RespondSpec) and spec.server), None)


def _licence(said: Mapping[str, Any]) -> Licence:
    id, name, link = (said.get(key) for key in ("license", "license_name", "license_link"))
    first = id[0] if isinstance(id, list) and id else id
    return Licence(str(first) if first else None, str(name) if name else None, str(link) if link else None)


def front_matter(file: Path) -> dict[str, Any]:
    """The metadata at the head of a card; nothing where there is none that can be read."""
    try:
        head, _, rest = file.read_text(encoding="utf-8").partition("---\n")
        found = yaml.safe_load(rest.partition("\n---")[0]) if not head.strip() else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}
