"""The Hub, offline first: what is cached is taken without one connection; what is not is asked for once, and a dead line is told in seconds.

The Hub's own client asks for every file whether it changed, and where there is no network it tries again for most of a minute.
"""

import json
from pathlib import Path
from typing import Any, Literal

from lite.errors import PreconditionError

SECONDS = 4.0
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def offline() -> bool:
    import huggingface_hub

    return huggingface_hub.is_offline_mode()


def snapshot(repo: str, revision: str | None, kind: Literal["model", "dataset"] = "dataset") -> Path | None:
    """The folder of a repository in the cache, at the commit that the revision meant when it was fetched; None if there is none."""
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(huggingface_hub.snapshot_download(repo, repo_type=kind, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def model_folder(model: str, revision: str | None) -> Path | None:
    """The folder in the cache that has all that a base is made of: config, tokenizer and every file of the weights.

    It is to be loaded as a folder: by its id, transformers asks the Hub for an adapter even where it is told to use local files only.
    """
    folder = snapshot(model, revision, "model")
    if folder is None or not (folder / "config.json").is_file() or not any(folder.glob("tokenizer*")):
        return None
    return folder if all((folder / part).is_file() for part in _parts(folder)) else None


def trouble() -> str | None:
    """Why the Hub is out of reach; None if it answers. Told within ``SECONDS``: looking a name up may take minutes, so a thread does it."""
    import threading

    import httpx
    from huggingface_hub import constants

    found = [f"no answer within {SECONDS:.0f} s"]

    def look() -> None:
        try:
            answer = httpx.head(constants.ENDPOINT, timeout=SECONDS)
            found[0] = "" if answer.status_code < 500 else f"it answers {answer.status_code}"
        except (OSError, ValueError, httpx.HTTPError, httpx.InvalidURL) as e:
            found[0] = _first_line(e)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(SECONDS)
    return found[0] or None


def looks_like_a_folder(model: str) -> bool:
    """No Hub id looks so."""
    return model.startswith(("/", ".", "~")) or "\\" in model or model.count("/") > 1


def ask(model: str, revision: str | None, what: str, instead: str) -> None:
    """One question to the Hub, or two; a :class:`PreconditionError` tells within seconds why ``what`` cannot be had, and what to do ``instead``."""
    import huggingface_hub
    from httpx import HTTPError
    from huggingface_hub import errors

    if offline():
        raise PreconditionError(
            f"{what}: offline, and it is not in the cache; run once with the Hub in reach and without --offline, or {instead}"
        )
    try:
        hub = huggingface_hub.HfApi()
        if hub.model_info(model, revision=revision, timeout=SECONDS).gated:  # everybody sees it, only some may read it
            hub.auth_check(model)
    except errors.RevisionNotFoundError as e:
        raise PreconditionError(f"{what}: there is no revision {revision!r}; base.revision is a branch, a tag or a commit") from e
    except errors.RepositoryNotFoundError as e:  # also a private one, and any 401
        raise PreconditionError(
            f"{what}: there is no such repository, or you may not see it; look at the name, log in with `hf auth login`, and accept its "
            f"terms at https://huggingface.co/{model} if it has any"
        ) from e
    except (OSError, HTTPError) as e:
        raise PreconditionError(f"{what}: not in the cache, and the Hub is out of reach ({_first_line(e)}); {instead}") from e


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def card(model: str, revision: str | None) -> dict[str, Any] | None:
    """What a model's card on the Hub says at its head; None where nobody can be asked."""
    import huggingface_hub
    from httpx import HTTPError

    if huggingface_hub.is_offline_mode() or trouble():
        return None
    try:
        found = huggingface_hub.HfApi().model_info(model, revision=revision, timeout=SECONDS).card_data
    except (OSError, HTTPError):
        return None
    return found.to_dict() if found else None


SMALL = ("*.json", "tokenizer*", "*.model", "*.txt", "LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*", "README.md")


def fetch(model: str, revision: str | None) -> Path:
    """The folder of a model's config, tokenizer, weights and legal texts; from the cache if it is whole there, else from the Hub.

    Of the weights only those that the index names: some repositories hold them twice.
    """
    import huggingface_hub

    folder = model_folder(model, revision)
    if folder:
        return folder
    ask(model, revision, f"base.model: {model!r} could not be had", "give a folder, a Hub id that is cached or reachable, or `tiny`")
    small = Path(huggingface_hub.snapshot_download(model, revision=revision, allow_patterns=list(SMALL)))
    return Path(huggingface_hub.snapshot_download(model, revision=revision, allow_patterns=[*SMALL, *sorted(_parts(small))]))


def _parts(folder: Path) -> set[str]:
    """The files of the weights, as the index names them; a model without one has a single file."""
    try:
        return set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError):
        return {WEIGHTS}
