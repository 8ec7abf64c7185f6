"""Push an exported folder to the Hugging Face Hub. What is secret stays in the environment: the Hub's client finds the login by itself."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lite.errors import PreconditionError, RecipeError
from lite.export.subject import Subject
from lite.recipe import HUB_ID

if TYPE_CHECKING:  # what is pushed was written with torch; whether it may be is told without
    from lite.export.folders import Exported


def push(exported: "Exported", repo: str, *, private: bool = True, api: Any = None) -> str:
    """Make the repository if it is not there, and put the folder into it in one commit; its address.

    api: ``huggingface_hub.HfApi`` or what stands for it
    Raises :class:`RecipeError` for a name that is none or an adapter whose base nobody else has, :class:`PreconditionError` where the
    Hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    check(exported.subject, exported.what, repo)
    api = api or HfApi()
    kind = "dataset" if exported.what in ("dataset", "job") else "model"
    try:
        found = api.create_repo(repo, repo_type=kind, private=private, exist_ok=True)
        with _without_place(exported) as folder:
            api.upload_folder(
                repo_id=getattr(found, "repo_id", repo),
                repo_type=kind,
                folder_path=str(folder),
                commit_message=f"{exported.what} of {exported.subject.stage.id}, run {exported.subject.run.name}",
            )
    except (HfHubHTTPError, HFValidationError, OSError) as e:
        why = (str(e).strip() or type(e).__name__).splitlines()[0]
        raise PreconditionError(f"--push {repo}: {why} (log in with `hf auth login`; the folder is whole in {exported.path})") from e
    return str(found)


@contextmanager
def _without_place(exported: "Exported") -> Iterator[Path]:
    """The folder to send: of a job that names a base's place on this machine, so that it runs here, a copy that does not."""
    if exported.what != "job" or exported.subject.base_on_hub:
        yield exported.path
        return
    from lite.export import jobs

    with tempfile.TemporaryDirectory(prefix="lite-push-") as made:
        copy = Path(shutil.copytree(exported.path, Path(made) / exported.path.name))
        jobs.forget_place(copy, exported.subject)
        yield copy


def check(subject: Subject, what: str, repo: str) -> None:
    """Before anything is written or sent."""
    if "/" not in repo or not HUB_ID.fullmatch(repo):
        raise RecipeError("--push", [f"a repository's id is needed, such as you/name (got {repo!r})"])
    if what == "adapter" and not subject.base_on_hub:
        base = subject.base_name
        raise RecipeError(
            "--push", [f"an adapter without its base is of no use to others, and {base} is not on the Hub: push `--what merged`"]
        )
