import io

import pytest

from lite.runs.progress import Counter, Screen, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("seconds", "text"), [(0.26, "0.3s"), (59.6, "1m00s"), (12, "12s"), (75, "1m15s"), (3725, "1h02m")])
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_rate_and_time_left():
    counter = Counter(10, lambda _: None)
    assert counter.left is None
    counter.advance(5, loss=0.25)
    assert counter.left == pytest.approx(counter.seconds, rel=0.5)
    assert counter.figures_text() == "loss 0.25"


def test_a_pipe_gets_plain_lines_and_no_carriage_return():
    out = io.StringIO()
    screen = Screen(stream=out)
    screen.PLAIN_SECONDS = 0  # type: ignore[misc]
    with screen.progress("ppo", 2, "steps", "updates", lambda _: None) as bar:
        bar.advance(1, reward=0.5)
        screen.say("a word")
        bar.advance()
    assert "\r" not in out.getvalue()
    assert "\x1b" not in out.getvalue()
    lines = out.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("ppo: updates 1/2 steps (")
    assert "reward 0.5" in lines[0]


def test_a_pipe_is_not_flooded():
    out = io.StringIO()
    with Screen(stream=out).progress("ppo", 10_000, "steps", "", lambda _: None) as bar:
        for _ in range(10_000):
            bar.advance()
    assert out.getvalue() == ""


def test_quiet_says_nothing():
    out = Terminal()
    screen = Screen(quiet=True, stream=out)
    screen.say("x")
    with screen.progress("ppo", 1, "steps", "", lambda _: None) as bar:
        bar.advance()
    assert out.getvalue() == ""


def test_a_terminal_gets_bars_that_may_be_nested(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    screen = Screen(stream=out)
    seen = []
    with (
        screen.progress("ppo", 2, "steps", "all", seen.append) as outer,
        screen.progress("ppo", 3, "rows", "decoding", seen.append) as inner,
    ):
        inner.advance(3)
        outer.advance(1, kl=0.1)
        screen.say("[1/2] a word with [brackets]")
    assert "[1/2] a word with [brackets]" in out.getvalue()
    assert seen == [inner, outer]
    assert screen._bars is None
