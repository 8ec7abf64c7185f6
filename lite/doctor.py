"""Is this machine fit for lite? Each check is green, amber or red, with a line that says what to do.

Heavy libraries are tried in a process of their own, so that a broken one is a red line and not a crash.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lite import plan
from lite.errors import extra
from lite.runs.env import cache_folder, cores, version_of
from lite.sources import reach

DISTRIBUTION = "lite-align"
GIB = 2**30


class Check(NamedTuple):
    name: str
    level: Literal["green", "amber", "red"]
    found: str
    fix: str = ""


PROBE = """
import json, sys, warnings
warnings.filterwarnings("ignore")
found = {}
import torch
found["torch"] = torch.__version__
if torch.cuda.is_available():
    p = torch.cuda.get_device_properties(0)
    found["gpu"] = {"name": p.name, "memory": p.total_memory, "bf16": torch.cuda.is_bf16_supported(including_emulation=False)}
try:
    import bitsandbytes as bnb
    device = "cuda" if "gpu" in found else "cpu"
    torch.manual_seed(0)
    dense = torch.nn.Linear(64, 64, bias=False)
    quantised = bnb.nn.Linear4bit(64, 64, bias=False, compute_dtype=torch.float32, quant_type="nf4")
    quantised.load_state_dict(dense.state_dict())
    quantised, x = quantised.to(device), torch.randn(8, 64)
    exact, got = dense(x), quantised(x.to(device)).float().cpu()
    found["nf4_error"] = float((got - exact).norm() / exact.norm())
except Exception as e:
    found["nf4_failure"] = f"{type(e).__name__}: {e}"[:200]
print("PROBE " + json.dumps(found))
"""


def checks(runs: Path) -> Iterator[Check]:
    yield Check("python", "green", f"{platform.python_version()} ({sys.executable})")
    yield Check("platform", "green", f"{platform.platform()}, {cores()} core(s)")
    yield _memory()
    yield _disk(runs)
    yield _cache()
    yield from _packages()
    yield from _compute()
    yield _tiny_base()
    yield _login()
    yield _network()
    yield Check("telemetry", "green", "off: lite sends nothing, and switches off what the libraries would send")


def _memory() -> Check:
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return Check(
            "memory",
            "amber",
            "cannot be read here",
            "see that there are 4 GB for the tiny base, and the size of the 16-bit weights for others",
        )
    found = f"{total / GIB:.1f} GiB, {free / GIB:.1f} GiB unused"
    if total < 3.5 * GIB:
        return Check("memory", "amber", found, "the tiny base wants 4 GB; close other programs")
    return Check("memory", "green", found)


def _disk(runs: Path) -> Check:
    there = next(p for p in (runs.resolve(), *runs.resolve().parents) if p.exists())
    free = shutil.disk_usage(there).free
    found = f"{free / GIB:.1f} GiB free at {there}"
    if not os.access(there, os.W_OK):
        return Check("disk", "red", f"{there} cannot be written", "choose another folder with --runs")
    return (
        Check("disk", "green", found)
        if free > 2 * GIB
        else Check("disk", "amber", found, "free some space, or choose another disk with --runs")
    )


def _cache() -> Check:
    """Where copies of bases are kept that `lite run --cache-4bit` makes, and how much they take."""
    folder = cache_folder()
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return Check("cache", "green", f"{size / GIB:.1f} GiB in {folder}; it may be deleted at any time, $LITE_CACHE moves it")


def _packages() -> Iterator[Check]:
    """The installed versions against the ranges that lite was tested with: those that its own metadata declares."""
    try:
        declared = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        yield Check("lite", "amber", "runs from a checkout that is not installed", "pip install -e .")
        return
    from packaging.requirements import Requirement

    for requirement in map(Requirement, declared):
        is_extra = requirement.marker is not None and not requirement.marker.evaluate({"extra": ""})
        if is_extra and requirement.name != "unsloth":  # of the extras a recipe asks for this one
            continue
        version = version_of(requirement.name)
        fix = f"pip install '{requirement.name}{requirement.specifier}'"
        if version is None and is_extra:
            yield Check(requirement.name, "green", f"not installed; an extra, faster kernels on NVIDIA cards: {extra(requirement.name)}")
        elif version is None:
            yield Check(requirement.name, "red", "not installed", fix)
        elif not requirement.specifier.contains(version.partition("+")[0], prereleases=True):
            yield Check(requirement.name, "amber", f"{version}, tested with {requirement.specifier}", fix)
        else:
            yield Check(requirement.name, "green", version)


def _compute() -> Iterator[Check]:
    """What torch sees, and whether bitsandbytes really quantises and multiplies."""
    found = _probe()
    if "failure" in found:
        yield Check("torch", "red", found["failure"], "install torch again: https://pytorch.org/get-started")
        return
    gpu = found.get("gpu")
    yield from _driver()
    if gpu:
        types = "bf16 and fp16" if gpu["bf16"] else "fp16 (no bf16)"
        yield Check("gpu", "green", f"{gpu['name']}, {gpu['memory'] / GIB:.1f} GiB, {types}")
    else:
        yield Check("gpu", "amber", "none that torch sees", "fine for the tiny base; a 7B base wants a card with 8 GB")
    error = found.get("nf4_error")
    if error is None:
        yield Check(
            "4 bits",
            "red",
            found.get("nf4_failure", "no answer"),
            "pip install --force-reinstall bitsandbytes; base.quantize=none goes without",
        )
    elif not error < 0.2:
        yield Check("4 bits", "red", f"a 4-bit product is off by {error:.0%}", "pip install --force-reinstall bitsandbytes")
    else:
        yield Check("4 bits", "green", f"bitsandbytes quantises and multiplies (error {error:.1%})")


def _driver() -> Iterator[Check]:
    """The driver by the maker's own program, which also works where torch sees nothing."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return
    try:
        asked = [program, "--query-gpu=driver_version,memory.used", "--format=csv,noheader"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError) as e:
        yield Check("driver", "red", f"nvidia-smi fails: {str(e).splitlines()[0]}", "install the driver again, or start the machine anew")
        return
    version, _, used = (done.stdout.splitlines() or ["?, ?"])[0].partition(", ")
    yield Check("driver", "green", f"{version}, {used} of the card in use")


def _login() -> Check:
    """Whether there is a token for gated models; it is never shown, nor tried on the network."""
    from huggingface_hub import get_token

    if get_token():
        return Check("hub login", "green", "a token is there")
    return Check("hub login", "amber", "no token", "fine for open models; `hf auth login` for gated ones such as Llama")


def _network() -> Check:
    """One question to the Hub; none where it is to be left alone."""
    if reach.offline():
        return Check("network", "green", "offline mode is on: only cached models are used, nobody was asked")
    trouble = reach.trouble()
    if trouble is None:
        return Check("network", "green", "the Hub answers; what is cached is taken without asking it")
    fix = "fine for what is cached; else look at the network and HTTPS_PROXY, or set HF_ENDPOINT to a mirror"
    return Check("network", "amber", f"the Hub is out of reach ({trouble})", fix)


def _probe() -> dict[str, Any]:
    try:
        done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=180, check=False)
    except (OSError, subprocess.TimeoutExpired) as e:
        return {"failure": str(e)}
    for line in done.stdout.splitlines():
        if line.startswith("PROBE "):
            return json.loads(line.removeprefix("PROBE "))
    return {"failure": (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]}


def _tiny_base() -> Check:
    folder = plan.tiny_folder()
    missing = [name for name in ("config.json", "model.safetensors", "tokenizer.json") if not (folder / name).is_file()]
    if missing:
        return Check("tiny base", "red", f"{', '.join(missing)} missing in {folder}", "install lite again")
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    return Check("tiny base", "green", f"{size / 1e6:.1f} MB in {folder}")
