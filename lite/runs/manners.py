"""How the libraries are asked to behave: threads that sleep, no bars, nobody told of us; and offline, where that is wanted.

They read it from the environment when they are imported. In a notebook, or in a program of which lite is a part, some are imported
already: what they have kept of it is set in them, too. What the user set stays.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",  # waiting threads sleep: spinning ones slow a shared machine down twentyfold
    "TOKENIZERS_PARALLELISM": "false",  # its threads and our forks do not go together
    "HF_HUB_DISABLE_TELEMETRY": "1",  # TRL's trainers report home otherwise
    "DO_NOT_TRACK": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
}
QUIET_ENVIRONMENT = {"TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
"""No bars but ours; theirs fill log files with carriage returns."""
OFFLINE, TELEMETRY = "HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"
KEPT_IN = {OFFLINE: ("huggingface_hub.constants", "datasets.config"), TELEMETRY: ("huggingface_hub.constants",)}
"""The modules that keep a variable under its name; the rest of their libraries, and transformers, look it up there at every request."""
TRUE = ("1", "ON", "YES", "TRUE")


def prepare_environment(*, offline: bool, bars: bool = False) -> None:
    """Set what the libraries read, in the environment and in those that have read it; ``bars``: theirs stay as they are."""
    for name, value in (ENVIRONMENT | ({} if bars else QUIET_ENVIRONMENT)).items():
        os.environ.setdefault(name, value)
    if offline:
        os.environ[OFFLINE] = "1"
    for name, modules in KEPT_IN.items():
        if os.environ.get(name, "").upper() in TRUE:
            for module in modules:
                if module in sys.modules:
                    setattr(sys.modules[module], name, True)


@contextmanager
def offline_while(wanted: bool) -> Iterator[None]:
    """Prepared, and where it is wanted the Hub is asked nothing inside the block; after it, what else the process does may ask again."""
    prepare_environment(offline=False)
    if not wanted:
        yield
        return
    from huggingface_hub import constants  # before the block: first imported inside, it would keep "offline" for good

    variable, usual = os.environ.get(OFFLINE), constants.HF_HUB_OFFLINE
    kept = {module: getattr(sys.modules[module], OFFLINE) for module in KEPT_IN[OFFLINE] if module in sys.modules}
    prepare_environment(offline=True)
    try:
        yield
    finally:
        os.environ.pop(OFFLINE, None)
        if variable is not None:
            os.environ[OFFLINE] = variable
        for module in KEPT_IN[OFFLINE]:
            if module in sys.modules:
                setattr(sys.modules[module], OFFLINE, kept.get(module, usual))
