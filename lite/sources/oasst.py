"""OpenAssistant's message trees from the Hub: English first turns and their ranked responses (Köpf et al. 2023).

A row is one message; a tree's first prompt has no parent. A rank is the people's consensus among the replies to one message, 0 the
best; where a message has one reply, or too few people looked, there is none.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from lite.sources import hub
from lite.sources.ranked import Question, ranked
from lite.text.dialogue import has_tag

REPOS = {"oasst1": "OpenAssistant/oasst1", "oasst2": "OpenAssistant/oasst2"}
FILES = "data/*"
SPLITS = ("train", "validation")
COLUMNS = ("message_id", "parent_id", "role", "lang", "text", "rank", "deleted")
LANGUAGE = "en"


class Loaded(NamedTuple):
    """``rows`` are all messages of both splits, in the order of the files."""

    repo: str
    commit: str
    rows: list[Mapping[str, Any]]


def load(name: str, revision: str | None) -> Loaded:
    """The messages of ``oasst1`` or ``oasst2``; a :class:`PreconditionError` if they cannot be had."""
    repo = REPOS[name]
    what = f"dataset {repo} (revision {revision or 'main'}) cannot be had"
    folder = hub.fetch(repo, FILES, revision, what, copy="seed.source=FILE.jsonl and prompts.source=FILE.jsonl with rows of your own")
    tables = hub.read_tables(folder, "data", SPLITS, what)
    return Loaded(repo, folder.name, [row for split in SPLITS for row in tables[split].select_columns(list(COLUMNS))])


def questions(rows: Iterable[Mapping[str, Any]], *, most: int) -> list[Question]:
    """The first turns that have a response of rank 0, with ``most`` of their ranked responses, in the order of the first turns.

    Deleted messages and texts that would read as two turns are left out.
    """
    usable = [row for row in rows if row["lang"] == LANGUAGE and not row["deleted"] and row["text"].strip() and not has_tag(row["text"])]
    replies: dict[str, list[tuple[str, int]]] = {}
    for row in usable:
        if row["parent_id"] is not None and row["role"] == "assistant" and row["rank"] is not None:
            replies.setdefault(row["parent_id"], []).append((row["text"].strip(), int(row["rank"])))
    first = [row for row in usable if row["parent_id"] is None and row["role"] == "prompter"]
    found = [ranked(row["text"].strip(), replies[row["message_id"]], most=most) for row in first if row["message_id"] in replies]
    return [question for question in found if min(question.ranks) == 0]
