"""A person's way through the page, in a headless browser; skipped where there is none.

The run is a real one on the tiny base. Texts with markup in them are looked at too: no dialog, no request to anywhere else (S11).
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ui.conftest import pair_row, write_lines
from tests.ui.test_markup import ATTACKS
from tests.ui.test_serve import served

api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="no browser here")]
SECONDS = 1000
SMALL = ("prompts.train=40", "prompts.dev=4", "prompts.test=10", "ppo.steps=2", "ppo.rollouts=16", "ppo.minibatch=8", "evaluate.draws=1")


class Watched:
    """A page of the browser that notes what must not happen."""

    def __init__(self, page, address: str):
        self.page, self.address, self.dialogs, self.elsewhere = page, address.rstrip("/"), [], []
        page.set_default_timeout(120 * SECONDS)
        page.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: self._note(request.url))

    def _note(self, url: str) -> None:
        if not url.startswith((self.address, "data:", "blob:", self.address.replace("http", "ws", 1))):
            self.elsewhere.append(url)

    def open(self, path: str):
        self.page.goto(f"{self.address}/{path}")
        return self.page


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with one short, real run on the tiny base."""
    runs = tmp_path_factory.mktemp("browser") / "runs"
    command = [sys.executable, "-m", "lite.cli", "run", "tiny_rlcd_helpful", *SMALL, "--runs", str(runs), "--quiet"]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return runs


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with api.sync_playwright() as p:
        found = p.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def address(folder) -> Iterator[str]:
    with served(folder) as found:
        yield found


@pytest.fixture
def watched(browser, address) -> Iterator[Watched]:
    page = browser.new_page(viewport={"width": 1280, "height": 860})
    found = Watched(page, address)
    yield found
    page.close()
    assert found.dialogs == [] and found.elsewhere == []


def test_start_watch_refresh_stop_and_resume(watched):
    page = watched.open("new")
    page.get_by_text("Ready to start.").wait_for()
    for label, value in (("Training prompts", 40), ("Test prompts", 10), ("PPO steps", 3), ("Replies per test prompt", 1)):
        page.get_by_label(label).fill(str(value))
    page.get_by_label("Name").fill("journey")
    page.wait_for_function("document.querySelector('.command textarea').value.includes('journey')")
    page.get_by_role("button", name="Start", exact=True).click()
    page.wait_for_url("**/run?name=*journey*")
    page.locator("ol.strip").wait_for()
    page.reload()
    page.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_role("button", name="Resume").click()
    page.locator(".run-head .badge.done").wait_for()
    page.get_by_role("tab", name="Results").click()
    assert page.locator(".bar-row").count() == 3


def test_open_pairs_and_rate_three(watched, folder):
    page = watched.open("pairs")
    page.locator(".pair-view").wait_for()
    page.get_by_role("button", name="Flip").click()
    page.get_by_text("flipped by you").wait_for()
    page.get_by_role("button", name="Next").click()
    page.locator(".facts .strong", has_text="2 of").wait_for()
    page = watched.open("rate")
    page.get_by_text("0 of").wait_for()
    for n in (1, 2, 3):
        page.keyboard.press("8")
        page.get_by_text(f"{n} of").first.wait_for()
    page.keyboard.press("u")
    page.get_by_text("2 of").first.wait_for()
    page.get_by_role("button", name="Show the result").click()
    page.get_by_text("4.5 is even").wait_for()


def test_chat_with_base_and_prompted_base_side_by_side(watched):
    page = watched.open("chat")
    page.get_by_placeholder("Ask something").wait_for()
    page.get_by_label("Models").click()
    page.get_by_role("option", name="p_plus").click()
    page.keyboard.press("Escape")
    page.get_by_placeholder("Ask something").fill("<img src=x onerror=alert(1)> How do I repair a bike?")
    page.get_by_role("button", name="Send").click()
    page.get_by_role("button", name="p_plus is best").wait_for()
    replies = page.locator(".bubble.reply").all_inner_texts()
    assert len(replies) == 3 and len(set(replies)) > 1


def test_texts_with_markup_are_shown_as_texts(watched, folder):
    run = sorted(p for p in folder.iterdir() if (p / "report.json").is_file())[0]
    stage = next(p for p in (run / "stages").iterdir() if p.name.endswith("contrast"))
    write_lines(
        stage / "out" / "pairs.jsonl",
        [pair_row(i, chosen=a, rejected=a + "!", prompt=a, p_plus=a, p_minus=a) for i, a in enumerate(ATTACKS)],
    )
    write_lines(stage / "samples.jsonl", [{"prompt": a, "chosen": a} for a in (*ATTACKS, "${alert(1)}", "{{alert(1)}}")])
    page = watched.open(f"pairs?run={run.name}")
    for i in range(len(ATTACKS)):
        page.locator(".facts .strong", has_text=f"{i + 1} of {len(ATTACKS)}").wait_for()
        assert page.locator(".pair-view script, .pair-view img, .pair-view iframe").count() == 0
        if i + 1 < len(ATTACKS):
            page.get_by_role("button", name="Next").click()
    page = watched.open(f"run?name={run.name}")
    page.get_by_role("tab", name="Samples").click()
    page.locator(".sample").first.wait_for()


@pytest.mark.parametrize("path", ["", "new", "run", "pairs", "rate", "chat", "export", "machine"])
def test_no_page_is_wider_than_a_phone(browser, address, path):
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(f"{address}{path}")
    page.locator(".page-title, .run-head").first.wait_for()
    page.wait_for_timeout(1500)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()


def test_votes_are_rows_of_trl(folder):
    """What the votes above left, if there are any, reads as preference pairs."""
    for file in folder.glob("*/votes.jsonl"):
        assert all({"prompt", "chosen", "rejected"} <= json.loads(line).keys() for line in file.read_text(encoding="utf-8").splitlines())
