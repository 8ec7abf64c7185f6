"""Rows -> different dialogues, then train, dev and test, with a count of all that was left out.

Two dialogues are the same if they differ only in case and white space. The order of the train prompts is drawn by a hash of each
dialogue, so that more rows, other lengths or a larger ``train`` leave the order of the others as it was.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lite.errors import RecipeError
from lite.sources.files import Row
from lite.sources.rows import REASONS, Asked, SchemaError, Turns, Unreadable, read_row
from lite.tasks import Task
from lite.text.dialogue import Turn, render

MOST_SHOWN = 10


@dataclass
class Pool:
    """The different dialogues of one file in its order, by their key, and what became of its rows."""

    where: str
    dialogues: dict[str, Asked] = field(default_factory=dict)
    read: int = 0
    unreadable: Counter[str] = field(default_factory=Counter)
    too_short: int = 0
    too_long: int = 0
    duplicates: int = 0
    in_held_out: int = 0

    def report(self) -> dict[str, Any]:
        """Every row that was read is in one of the counts."""
        return {
            "read": self.read,
            "unreadable": dict(self.unreadable),
            "too_short": self.too_short,
            "too_long": self.too_long,
            "duplicates": self.duplicates,
            "in_held_out": self.in_held_out,
            "kept": len(self.dialogues),
        }

    def left_out(self) -> str:
        """``3 unreadable (no_speaker: ...), 2 duplicates``, for a reader."""
        reasons = "; ".join(f"{n} {reason}: {REASONS[reason]}" for reason, n in self.unreadable.items())  # type: ignore[index]
        parts = {f"unreadable ({reasons})": self.unreadable.total(), "too short": self.too_short, "too long": self.too_long}
        parts |= {"duplicates": self.duplicates, "in a held-out split": self.in_held_out}
        return ", ".join(f"{n} {what}" for what, n in parts.items() if n) or "none"


def key(turns: Sequence[Turn]) -> str:
    """What two dialogues have in common that count as one."""
    return " ".join(render(turns).split()).casefold()


def gather(rows: Iterable[Row], where: str, task: Task, *, min_words: int | None = None, max_words: int | None = None) -> Pool:
    """The different dialogues of a file. Rows of a wrong form are told all at once, by a :class:`RecipeError`."""
    pool, problems, wrong = Pool(where), [], 0
    for place, values in rows:
        pool.read += 1
        try:
            if isinstance(values, SchemaError):
                raise values
            found = read_row(values, task)
        except SchemaError as e:
            wrong += 1
            problems += [f"{place}: {e}"] if wrong <= MOST_SHOWN else []
            continue
        if isinstance(found, Unreadable):
            pool.unreadable[found.reason] += 1
        elif min_words is not None and found.words < min_words:
            pool.too_short += 1
        elif max_words is not None and found.words > max_words:
            pool.too_long += 1
        elif pool.dialogues.setdefault(key(found.turns), found) is not found:
            pool.duplicates += 1
    if problems:
        raise RecipeError(where, problems + ([f"and {wrong - MOST_SHOWN} more rows"] if wrong > MOST_SHOWN else []))
    return pool


def choose(pools: Mapping[str, Pool], wanted: Mapping[str, int], order: Callable[[str], int]) -> dict[str, list[Asked]]:
    """As many dialogues for train, dev and test as ``wanted``, no dialogue in two of them.

    One file, ``all``: in the order that is drawn, first test, then dev, then train. A file per split: dev and test in the order of
    the file, dev from the beginning of the test split where there is no dev file (Yang et al. 2023: the first 1,000 and the next
    1,000 rows), and train in the order that is drawn, without what any row of the held-out files has.
    """
    if "all" in pools:
        pool = pools["all"]
        keys = sorted(pool.dialogues, key=order)
        need = sum(wanted.values())
        if len(keys) < need:
            raise RecipeError(
                pool.where,
                [f"{len(keys)} different dialogues, but train + dev + test ask for {need}; ask for fewer (left out: {pool.left_out()})"],
            )
        test, dev = wanted["test"], wanted["test"] + wanted["dev"]
        parts = {"train": keys[dev:need], "dev": keys[test:dev], "test": keys[:test]}
        return {split: [pool.dialogues[k] for k in part] for split, part in parts.items()}

    _drop_overlaps(pools)
    test_keys = list(pools["test"].dialogues)
    if "dev" in pools:
        sources = {"train": pools["train"], "dev": pools["dev"], "test": pools["test"]}
        keys = {"dev": list(pools["dev"].dialogues), "test": test_keys}
    else:
        sources = {"train": pools["train"], "dev": pools["test"], "test": pools["test"]}
        keys = {"dev": test_keys[: wanted["dev"]], "test": test_keys[wanted["dev"] :]}
    keys["train"] = sorted(pools["train"].dialogues, key=order)
    short = [
        f"{split}: {len(keys[split])} different dialogues, but {wanted[split]} are asked for; ask for fewer "
        f"(left out of {pool.where}: {pool.left_out()})"
        for split, pool in sources.items()
        if len(keys[split]) < wanted[split]
    ]
    if short:
        raise RecipeError("prompts", short)
    return {split: [pool.dialogues[k] for k in keys[split][: wanted[split]]] for split, pool in sources.items()}


def _drop_overlaps(pools: Mapping[str, Pool]) -> None:
    """Take out of train what dev or test has, and out of test what a dev file has."""
    for split, held_out in (("test", ("dev",)), ("train", ("dev", "test"))):
        pool = pools[split]
        held = {k for other in held_out if other in pools for k in pools[other].dialogues}
        for k in held & pool.dialogues.keys():
            del pool.dialogues[k]
            pool.in_held_out += 1


def go_on_from(train: Iterable[Asked], held_out: Iterable[Asked]) -> int:
    """How many train dialogues begin with a whole held-out one. They ask something else, so they are kept, and told."""
    held = {key(asked.turns) for asked in held_out}
    return sum(any(key(asked.turns[:end]) in held for end in _answers(asked.turns)) for asked in train)


def _answers(turns: Turns) -> list[int]:
    return [i for i, turn in enumerate(turns) if turn.role == "assistant"]


def lengths(chosen: Sequence[Asked]) -> dict[str, int]:
    """Words of a prompt: median, 95th percentile and maximum."""
    words = sorted(asked.words for asked in chosen)
    return {name: words[int(share * (len(words) - 1))] for name, share in (("median", 0.5), ("p95", 0.95), ("max", 1.0))} if words else {}
