"""Anthropic/hh-rlhf from the Hub, or from its cache: the files of one subset, read by `datasets`.

Two calls in place of ``load_dataset("Anthropic/hh-rlhf", data_dir=...)``: the subset's files are fetched at one commit, then
`datasets` reads them from their folder. The one call (datasets 4.8.5) does not find its own cache again when it is offline and
has a ``data_dir``, takes any revision that is cached when the Hub cannot be reached, and tries for 24 seconds before it says so.
"""

import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lite.errors import PreconditionError, RecipeError
from lite.sources.files import Row
from lite.sources.reach import snapshot
from lite.tasks import Task

REPO = "Anthropic/hh-rlhf"
SUBSET_OF_TASK = {"harmless": "harmless-base", "helpful": "helpful-base"}


class Loaded(NamedTuple):
    rows: Mapping[str, Iterator[Row]]  # by split: train, test
    commit: str


def subset_for(task: Task) -> str:
    """The subset that Yang et al. 2023 took for a task."""
    if task.name in SUBSET_OF_TASK:
        return SUBSET_OF_TASK[task.name]
    if task.ask:
        advice = "give a file of premises of your own, one a line, as prompts.source (those of Yang et al. 2023 were never released)"
    else:
        advice = "name the part of it that fits with prompts.subset, such as helpful-base"
    raise RecipeError("prompts.source", [f"hh-rlhf has no prompts that belong to the task {task.name}; {advice}"])


def load(subset: str, revision: str | None) -> Loaded:
    """The rows of a subset and the commit that they are of; a :class:`PreconditionError` if they cannot be had."""
    what = f"dataset {REPO} ({subset}, revision {revision or 'main'}) cannot be had"
    folder = _fetch(subset, revision, what)
    rows = {split: ((f"row {n}", row) for n, row in enumerate(table, 1)) for split, table in _read(folder, subset, what).items()}
    return Loaded(rows, folder.name)


def _fetch(subset: str, revision: str | None, what: str) -> Path:
    """The folder of the repository at one commit, with the files of the subset in it. No `datasets` yet: it takes seconds to import."""
    import huggingface_hub
    from httpx import HTTPError
    from huggingface_hub import errors
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    offline = huggingface_hub.is_offline_mode()
    try:
        here = snapshot(REPO, revision)
        if here and any((here / subset).glob("*")):
            return here  # what is cached is taken without asking whether it changed
        return Path(
            huggingface_hub.snapshot_download(
                REPO, repo_type="dataset", revision=revision, allow_patterns=f"{subset}/*", local_files_only=offline
            )
        )
    except errors.LocalEntryNotFoundError as e:
        why = "offline" if offline else f"the Hub is out of reach ({_first_line(e.__cause__ or e)})"
        copy = "prompts.source=FOLDER with train.jsonl.gz and test.jsonl.gz"
        raise PreconditionError(
            f"{what}: {why}, and it is not in the cache; run once with the Hub in reach and without --offline, or give a local copy: {copy}"
        ) from e
    except errors.RevisionNotFoundError as e:
        raise PreconditionError(f"{what}: there is no such revision; prompts.revision is a branch, a tag or a commit") from e
    except errors.RepositoryNotFoundError as e:  # also a gated one, and any 401
        raise PreconditionError(f"{what}: {_first_line(e)}; log in with `hf auth login`, and accept its terms if it has any") from e
    except (OSError, ValueError, HTTPError) as e:
        raise PreconditionError(f"{what}: {_first_line(e)}") from e


def _read(folder: Path, subset: str, what: str) -> dict[str, Any]:
    import datasets
    from datasets.exceptions import DatasetsError

    datasets.disable_progress_bars()
    try:
        found: Any = datasets.load_dataset(str(folder), data_dir=subset)
        return {split: found[split] for split in ("train", "test")}
    except KeyError as e:
        raise PreconditionError(f"{what}: the {e.args[0]} split is not in {folder / subset}; delete {folder} to fetch it anew") from e
    except (OSError, ValueError, EOFError, zlib.error, DatasetsError) as e:
        raise PreconditionError(f"{what}: {folder / subset} cannot be read: {_first_line(e)}; delete {folder} to fetch it anew") from e


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
