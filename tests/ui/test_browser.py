"""A person's way through the page, in a headless browser; skipped where there is none.

One real run on the tiny base is started from the page, and the other tests look at what it left. Texts with markup in them are
looked at too: no dialog, no request to anywhere else (S11).
"""

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lite.runs import read
from tests.ui.conftest import pair_row, write_lines
from tests.ui.test_markup import ATTACKS
from tests.ui.test_serve import end_page, start_page

api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="no browser here")]
SECONDS = 1000
PPO_STEPS = 4
CHANGED = {"Training prompts": 24, "Test prompts": 6, "PPO steps": PPO_STEPS, "Replies per test prompt": 1}


class Watched:
    """A page of the browser that notes what must not happen."""

    def __init__(self, browser, address: str, *, width: int = 1280, theme: str = "light"):
        self.page = browser.new_page(viewport={"width": width, "height": 860})
        self.address, self.theme, self.dialogs, self.elsewhere, self.errors = address.rstrip("/"), theme, [], [], []
        self.page.set_default_timeout(300 * SECONDS)  # of a busy machine; nothing here takes a tenth of it
        self.page.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self._note(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _note(self, url: str) -> None:
        if not url.startswith((self.address, "data:", "blob:", self.address.replace("http", "ws", 1))):
            self.elsewhere.append(url)

    def open(self, path: str):
        self.page.goto(f"{self.address}/{path}{'&' if '?' in path else '?'}__theme={self.theme}")
        return self.page

    def close(self) -> None:
        self.page.close()
        assert self.dialogs == [] and self.elsewhere == [] and self.errors == []


class Pages:
    """The page as a process that can be killed and started anew, always on the same folder of runs."""

    def __init__(self, runs: Path):
        self.runs = runs
        self.process, self.address = start_page(runs)

    def kill_and_start_again(self) -> None:
        end_page(self.process)
        self.process, self.address = start_page(self.runs)


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with api.sync_playwright() as p:
        try:
            found = p.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        except api.Error as e:  # the package of some distributions is an empty one
            pytest.skip(f"{BROWSER} does not start: {str(e).splitlines()[0]}")  # nothing to look with; CI installs a real one
        yield found
        found.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> Iterator[Pages]:
    found = Pages(tmp_path_factory.mktemp("browser") / "runs")
    yield found
    end_page(found.process)


@pytest.fixture
def watched(browser, pages) -> Iterator[Watched]:
    found = Watched(browser, pages.address)
    yield found
    found.close()


def steps(run: read.Run) -> list[int]:
    return [line["step"] for line in read.lines(run.folder.path / "stages" / "04-ppo" / "metrics.jsonl") if "reward" in line]


def gone(group: int, seconds: float = 30) -> bool:
    """Whether nothing of a process group is left; its state on disk is written before it ends."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def begin(browser, pages: Pages) -> str:
    """Start a run from the form and follow it to its training; its name."""
    here = Watched(browser, pages.address)
    page = here.open("new")
    page.get_by_text("Ready to start.").wait_for()
    for label, value in CHANGED.items():
        page.get_by_label(label).fill(str(value))
    page.get_by_label("Name").fill("journey")
    page.wait_for_function(f"document.querySelector('.command textarea').value.includes('ppo.steps={PPO_STEPS}')")
    page.wait_for_function("document.querySelector('.command textarea').value.includes('journey')")
    page.get_by_role("button", name="Start", exact=True).click()
    page.wait_for_url("**/run?name=*journey*")
    page.locator("li.stage.running", has_text="ppo").wait_for()
    page.locator("li.stage.running", has_text=f"of {PPO_STEPS} steps").wait_for()
    page.reload()
    page.locator("li.stage.running", has_text="ppo").wait_for()
    name = page.url.partition("name=")[2].partition("&")[0]
    here.close()
    return name


def stop_and_resume(browser, pages: Pages, run: read.Run) -> None:
    """A second tab on a page that was started anew; stopped where nothing is lost, and gone on with to the end."""
    here, there = Watched(browser, pages.address), Watched(browser, pages.address)
    page, other = here.open(f"run?name={run.name}"), there.open("run")
    for each in (page, other):
        each.locator(".run-head .badge.running").wait_for()
    shown = [int(each.locator("li.stage.running .dim").inner_text().split()[0]) for each in (page, other)]
    assert abs(shown[0] - shown[1]) <= 1
    there.close()
    group, before = int(read.open_run(run.folder.path).facts["pid"]), len(steps(run))
    page.get_by_role("button", name="Stop", exact=True).click()
    page.locator(".run-head .badge.stopped").wait_for()
    assert gone(group) and 0 < len(steps(run)) <= min(before + 1, PPO_STEPS - 1)
    page.get_by_role("button", name="Resume").click()
    page.locator(".run-head .badge.running").wait_for()
    page.locator(".run-head .badge.done").wait_for()
    page.get_by_role("tab", name="Results").click()
    assert page.locator(".bar-row").count() == 3
    here.close()


@pytest.fixture(scope="module")
def journey(browser, pages) -> read.Run:
    """A run that was started, left by a page that was killed, found again by another one, stopped, gone on with and finished."""
    run = read.open_run(pages.runs / begin(browser, pages))
    pages.kill_and_start_again()
    stop_and_resume(browser, pages, run)
    return read.open_run(run.folder.path)


def test_a_run_outlives_its_page_and_a_stop_and_loses_nothing(journey):
    """R6, R7 (all tabs tell the same), R8 (a stop that is heard)."""
    assert journey.state == "done" and journey.facts["name"] == "journey"
    assert steps(journey) == list(range(1, PPO_STEPS + 1))


def test_open_pairs_and_rate_three(watched, journey):
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


def test_base_and_aligned_model_reply_side_by_side_and_a_vote_is_kept(watched, journey):
    page = watched.open("chat")
    page.get_by_placeholder("Ask something").wait_for()
    page.get_by_placeholder("Ask something").fill("<img src=x onerror=alert(1)> How do I repair a bike?")
    page.get_by_role("button", name="Send").click()
    page.get_by_role("button", name="ppo is best").wait_for()
    assert page.locator(".pane-name").all_inner_texts() == ["base", "ppo"]
    replies = page.locator(".bubble.reply").all_inner_texts()
    assert len(replies) == 2 and replies[0] != replies[1]
    page.get_by_role("button", name="ppo is best").click()
    page.get_by_text("Kept as a preference pair").wait_for()
    rows = [json.loads(line) for line in journey.folder.votes.read_text(encoding="utf-8").splitlines()]
    assert [(row["chosen_model"], row["rejected_model"]) for row in rows] == [("ppo", "base")]
    assert {"prompt", "chosen", "rejected"} <= rows[0].keys()


def test_a_question_typed_before_the_page_knows_its_run_is_kept(watched, journey):
    held, later = [], []
    watched.page.route("**/queue/join**", lambda route: route.continue_() if later else held.append(route))
    page = watched.open("chat")
    question = page.get_by_placeholder("Ask something")
    question.fill("How do I repair a bike?")
    assert page.get_by_role("button", name="Send").is_disabled()
    question.press("Enter")
    while len(held) < 2:  # what the page asks when it opens, and the question
        page.wait_for_timeout(50)
    later.append(True)
    held[-1].continue_()
    page.get_by_text("your question is kept").wait_for()
    for route in held[:-1]:
        route.continue_()
    page.locator("button:enabled", has_text="Send").wait_for()
    assert question.input_value() == "How do I repair a bike?"
    page.get_by_role("button", name="Send").click()
    page.locator(".bubble.reply").first.wait_for()
    page.wait_for_function("document.querySelector('.ask textarea').value === ''")


def test_texts_with_markup_are_shown_as_texts(watched, journey):
    stage = next(record.folder for record in journey.stages() if record.id == "contrast")
    write_lines(
        stage.out / "pairs.jsonl",
        [pair_row(i, chosen=a, rejected=a + "!", prompt=a, p_plus=a, p_minus=a) for i, a in enumerate(ATTACKS)],
    )
    write_lines(stage.samples, [{"prompt": a, "chosen": a} for a in (*ATTACKS, "${alert(1)}", "{{alert(1)}}")])
    page = watched.open(f"pairs?run={journey.name}")
    for i in range(len(ATTACKS)):
        page.locator(".facts .strong", has_text=f"{i + 1} of {len(ATTACKS)}").wait_for()
        assert page.locator(".pair-view script, .pair-view img, .pair-view iframe").count() == 0
        if i + 1 < len(ATTACKS):
            page.get_by_role("button", name="Next").click()
    page = watched.open(f"run?name={journey.name}")
    page.get_by_role("tab", name="Samples").click()
    page.locator(".sample").first.wait_for()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("path", ["", "new", "run", "pairs", "rate", "chat", "export", "machine"])
def test_no_page_is_wider_than_a_phone(browser, pages, journey, path, theme):
    here = Watched(browser, pages.address, width=390, theme=theme)
    page = here.open(path)
    page.locator(".page-title, .run-head").first.wait_for()
    page.wait_for_timeout(800)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    here.close()
