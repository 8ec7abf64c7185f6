"""Which process a run was started by, told so that no other one is ever taken for it: number, begin, boot of the machine, machine."""

import os
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BOOT = Path("/proc/sys/kernel/random/boot_id")


def identity(pid: int | None = None) -> dict[str, Any]:
    """What run.json keeps of a process (none given: this one)."""
    pid = pid or os.getpid()
    return {"pid": pid, "begun": begun(pid), "boot": boot(), "host": socket.gethostname()}


def lives(told: Mapping[str, Any]) -> bool:
    """Whether the process that ``identity`` told of still runs on this machine; after a reboot, or where its number was given to another one, not."""
    pid = told.get("pid")
    if not isinstance(pid, int) or told.get("host") != socket.gethostname() or told.get("boot") != boot():
        return False
    since = begun(pid)
    return since is not None and since == told.get("begun")


def boot() -> str:
    try:
        return BOOT.read_text(encoding="ascii").strip()
    except OSError:  # not Linux: the begin of the process, a date there, tells as much
        return ""


def begun(pid: int) -> str | None:
    """When a process began, in ticks since boot on Linux; None if there is no such process, or only its remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return _begun_by_ps(pid) if not Path("/proc/self").exists() else None
    return None if fields[0] in "ZX" else fields[19]


def _begun_by_ps(pid: int) -> str | None:
    try:
        told = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return told.stdout.strip() or None
