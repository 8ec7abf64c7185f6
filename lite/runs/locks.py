"""One run per GPU: a lock of the system, which lets go of it however the holder dies. The file says who holds it."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lite.errors import LockError, Stopped
from lite.runs.journal import now, try_lock
from lite.runs.read import read_json

POLL_SECONDS = 0.5


def folder() -> Path:
    """One for all runs of a user, wherever their folders are."""
    return Path(os.environ.get("LITE_LOCKS") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lite" / "locks")


def gpu_name() -> str:
    """The GPU that a run would use: the first that CUDA may see."""
    return "gpu-" + (os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip().replace("/", "-") or "0")


@contextmanager
def held(
    name: str, *, queue: bool, say: Callable[[str], None], stop_asked: Callable[[], bool] = lambda: False
) -> Iterator[Callable[[str], None]]:
    """Hold the lock of ``name``; the block is given the means to write down the run that holds it.

    A second process waits if ``queue``, else a :class:`LockError` names the holder.
    """
    folder().mkdir(parents=True, exist_ok=True)
    file = folder() / f"{name}.json"
    with file.open("a+", encoding="utf-8") as f:
        told = None
        while not try_lock(f.fileno()):
            holder = read_json(file).get("run") or "another run"
            if not queue:
                raise LockError(f"{name} is in use by {holder}; wait for it (--queue), stop it (`lite stop`), or take base.device=cpu")
            if told != holder:
                say(f"waiting for {holder}, which uses {name}")
                told = holder
            if stop_asked():
                raise Stopped
            time.sleep(POLL_SECONDS)

        def tell(run: str) -> None:
            f.truncate(0)
            f.write(f'{{"run": "{run}", "pid": {os.getpid()}, "since": "{now()}"}}\n')
            f.flush()

        yield tell
