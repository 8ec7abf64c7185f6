"""The page dies by kill -9 in the middle of a run that it began: the run goes on, and whoever looks next sees it (R6)."""

import subprocess
import sys
import time
from pathlib import Path

from lite.runs import read
from lite.ui import watch

ROOT = Path(__file__).parents[2]
PAGE = """
import pathlib, sys, time
from lite.ui import launch
text = "{task: helpful, stages: [prompts: {train: 2000, dev: 2, test: 3}]}"
launch.start(pathlib.Path(sys.argv[1]), text, [], name="small")
print("started", flush=True)
time.sleep(60)
"""


def test_a_run_outlives_the_page_that_began_it(tmp_path):
    page = subprocess.Popen([sys.executable, "-c", PAGE, str(tmp_path / "runs")], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert page.stdout is not None
    assert page.stdout.readline() == "started\n"
    page.kill()
    page.communicate()
    (row,) = watch.rows(tmp_path / "runs")
    assert row.live
    deadline = time.monotonic() + 60
    while (run := read.latest(tmp_path / "runs")).state in ("queued", "running") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert run.state == "done", run.folder.console.read_text()
    assert [event["event"] for event in read.lines(run.folder.events)] == ["run started", "stage started", "stage done", "run done"]
