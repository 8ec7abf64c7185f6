"""Claim: the page is up within 6 s and loads no torch; a reload, a second tab and a page that was started anew show a live run within 2 s;
a click is answered within 1 s while all cores are busy; three open tabs take the page at most a quarter of a core.

How: a run on the embedded base, with one thread, is started from the page's own code and watched in a headless Chromium on the same
machine. Times are those of the browser, from the click or the reload to the moment when the new content is there; the worst one counts.
What a step of the run takes is told too, in seconds of a processor, in turns without a tab and with three; it has no limit, because the
browser that draws the tabs shares the machine's caches with the run. Needs playwright and a Chromium (see .ci/run).
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from urllib.request import urlopen

from benchmarks.report import publish, table
from lite.runs import read
from lite.ui import launch

RECIPE = """
base: {model: tiny, device: cpu}
seed: 17
task: helpful
stages:
  - prompts: {train: 40, dev: 4, test: 4}
  - contrast: {max_new_tokens: 40}
  - reward: {batch_pairs: 8}
  - ppo: {steps: 2000, rollouts: 8, minibatch: 4, epochs: 1, max_new_tokens: 24, dev_prompts: 1, save_every: 1000}
"""
SERVER = "import sys; from pathlib import Path; from lite.ui.serve import Door, serve; serve(Path(sys.argv[1]), Door())"
RUNNING = "li.stage.running >> text=of 2000 steps"
UP, AGAIN, CLICK, SHARE = 6.0, 2.0, 1.0, 0.25
TIMES, CLICKS, TURNS, TURN_SECONDS = 5, 12, 3, 8.0


class Page:
    """The page in a process of its own. ``seconds``: from its start to its first answer."""

    def __init__(self, runs: Path):
        began = time.monotonic()
        self.process = subprocess.Popen([sys.executable, "-c", SERVER, str(runs)], stderr=subprocess.PIPE, text=True)
        assert self.process.stderr
        self.address = next(line for line in self.process.stderr if line.startswith("lite is at")).split()[3]
        with urlopen(self.address) as answer:
            assert answer.status == 200
        self.seconds = time.monotonic() - began

    @property
    def torch(self) -> bool:
        return "libtorch" in Path(f"/proc/{self.process.pid}/maps").read_text(encoding="utf-8")

    @property
    def mib(self) -> float:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text(encoding="utf-8").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def timed(work: Callable[[], Any]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def live_run(runs: Path) -> read.Run:
    """A run that has made its first steps."""
    os.environ["OMP_NUM_THREADS"] = "1"
    run = launch.start(runs, RECIPE, name="watched")
    while steps(run) < 3:
        time.sleep(0.2)
        assert read.open_run(run.folder.path).state == "running", "the run ended early"
    return run


def steps(run: read.Run) -> int:
    return sum("seconds_rollout" in line for line in read.lines(run.folder.path / "stages" / "04-ppo" / "metrics.jsonl"))


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def shown(tab: Any, address: str, run: read.Run) -> None:
    tab.goto(f"{address}run?name={run.name}", wait_until="commit")
    tab.locator(RUNNING).wait_for()


def reload(tab: Any) -> None:
    tab.reload(wait_until="commit")
    tab.locator(RUNNING).wait_for()


def second_tab(browser: Any, address: str, run: read.Run) -> float:
    tab = browser.new_page()
    seconds = timed(lambda: shown(tab, address, run))
    tab.close()
    return seconds


@contextmanager
def busy() -> Iterator[None]:
    """A process at full speed for every core, each in a session of its own as runs are."""
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for each in spinning:
            each.kill()
            each.wait()


def clicks(tab: Any, address: str, run: read.Run) -> list[float]:
    """Leafing through pairs."""
    tab.goto(f"{address}pairs?run={run.name}")

    def at(n: int) -> None:
        tab.locator(".facts .strong", has_text=f"{n} of ").wait_for()

    def on(n: int) -> None:
        tab.get_by_role("button", name="Next").click()
        at(n)

    at(1)
    return [timed(lambda n=n: on(n)) for n in range(2, 2 + CLICKS)]


def cost(browser: Any, page: Page, run: read.Run) -> dict[str, list[float]]:
    """Seconds of a processor for a step of the run, and the share of a core that the page takes, without a tab and with three."""
    pid = int(read.open_run(run.folder.path).facts["pid"])
    found: dict[str, list[float]] = {"step, no tab": [], "step, 3 tabs": [], "share, no tab": [], "share, 3 tabs": []}
    for turn in range(2 * TURNS):
        name, tabs = ("3 tabs", 3) if turn % 2 else ("no tab", 0)
        opened = [browser.new_page() for _ in range(tabs)]
        for tab in opened:
            shown(tab, page.address, run)
        before = steps(run), processor_seconds(pid), processor_seconds(page.process.pid)
        time.sleep(TURN_SECONDS)
        after = steps(run), processor_seconds(pid), processor_seconds(page.process.pid)
        found[f"step, {name}"].append((after[1] - before[1]) / max(1, after[0] - before[0]))
        found[f"share, {name}"].append((after[2] - before[2]) / TURN_SECONDS)
        for tab in opened:
            tab.close()
    return found


def measure(browser: Any, runs: Path) -> dict[str, Any]:
    page = Page(runs)
    run = live_run(runs)
    try:
        found: dict[str, Any] = {"up": [page.seconds]}
        tab = browser.new_page()
        found["first tab"] = [timed(lambda: shown(tab, page.address, run))]
        found["reload"] = [timed(lambda: reload(tab)) for _ in range(TIMES)]
        found["second tab"] = [second_tab(browser, page.address, run) for _ in range(TIMES)]
        tab.close()
        found |= cost(browser, page, run)
        found["torch"], found["mib"] = page.torch, page.mib
        page.end()
        page = Page(runs)
        found["up"].append(page.seconds)
        tab = browser.new_page()
        found["page started anew"] = [timed(lambda: shown(tab, page.address, run))]
        with busy():
            found["click"] = clicks(tab, page.address, run)
        return found
    finally:
        page.end()
        launch.stop(read.open_run(run.folder.path), now=True)


def tell(found: dict[str, Any]) -> bool:
    """Print and keep what was measured; whether the claim holds."""
    limits = {"up": UP, "reload": AGAIN, "second tab": AGAIN, "page started anew": AGAIN, "click": CLICK}
    rows = [(what, len(found[what]), f"{median(found[what]):.2f}", f"{max(found[what]):.2f}", limits[what]) for what in limits]
    more, share = median(found["step, 3 tabs"]) / median(found["step, no tab"]), median(found["share, 3 tabs"])
    text = (
        f"{table(('what', 'times', 's, median', 's, worst', 'limit'), rows)}\n\nWith three tabs open the page takes {share:.2f} of a core (limit "
        f"{SHARE}; {median(found['share, no tab']):.2f} with none), and a step of the run {more:.3f} of the processor time that it takes with "
        f"none. The page's process holds {found['mib']:.0f} MiB, {'and torch' if found['torch'] else 'no torch'}. Clicks were made while every "
        f"one of {os.cpu_count()} cores had a process at full speed beside the run."
    )
    holds = all(max(found[what]) <= limit for what, limit in limits.items()) and share <= SHARE and not found["torch"]
    claim = "The page is up, finds a live run again and answers in time, without torch, and three tabs take little of a core"
    publish("page", claim=claim, holds=holds, figures=found, text=text)
    return holds


def main() -> int:
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        print("no Chromium here", file=sys.stderr)
        return 3
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as p:
        browser = p.chromium.launch(executable_path=program, args=["--no-sandbox"])
        found = measure(browser, Path(scratch) / "runs")
        browser.close()
    return 0 if tell(found) else 1


if __name__ == "__main__":
    sys.exit(main())
