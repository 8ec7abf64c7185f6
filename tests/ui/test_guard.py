"""The guard in front of every request: hosts (S3), origins (S4), logins (S5)."""

import pytest

from lite.ui.guard import POLICY, Guard, name_of


def guard(**given) -> Guard:
    return Guard(None, **{"hosts": ("127.0.0.1", "localhost", "::1"), **given})


def refused(g: Guard, method: str = "GET", path: str = "/", client: str = "1.1.1.1", **headers: str) -> int | None:
    found = g.refuses(method, path, {"host": "127.0.0.1:7860", **headers}, client)
    return found[0] if found else None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:7860", "localhost:7860", "LOCALHOST", "[::1]:7860"])
def test_known_hosts_pass(host):
    assert refused(guard(), host=host) is None


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:7860", "10.0.0.3", "", "[", "evil.example@127.0.0.1x"]
)
def test_foreign_hosts_do_not(host):
    assert refused(guard(), host=host) == 400


def test_who_listens_answers_to_addresses_but_not_to_foreign_names():
    g = guard(addresses=True)
    assert refused(g, host="192.168.1.20:7860") is None and refused(g, host="evil.example") == 400


def test_a_star_stands_for_names_below():
    g = guard(hosts=("*.gradio.live",))
    assert refused(g, host="abc.gradio.live") is None
    assert refused(g, host="gradio.live.evil.example") == 400 and refused(g, host="evilgradio.live") == 400


@pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1.evil.example", "null", "https://evil.example:7860"])
@pytest.mark.parametrize("path", ["/gradio_api/upload", "/gradio_api/queue/join", "/login"])
def test_other_pages_cannot_post(origin, path):
    assert refused(guard(), "POST", path, origin=origin) == 403


def test_our_own_page_and_programs_can():
    assert refused(guard(), "POST", "/gradio_api/upload", origin="http://127.0.0.1:7860") is None
    assert refused(guard(), "POST", "/gradio_api/upload") is None


def test_five_logins_a_minute_and_address():
    now = [0.0]
    g = guard(clock=lambda: now[0])
    assert [refused(g, "POST", "/login/") for _ in range(7)] == [None] * 5 + [429] * 2
    assert refused(g, "POST", "/login", client="2.2.2.2") is None
    now[0] = 61.0
    assert refused(g, "POST", "/login") is None


def test_nothing_may_be_fetched_from_elsewhere():
    sources = {part.split()[0]: part.split()[1:] for part in POLICY.split("; ")}
    for kind in ("default-src", "img-src", "connect-src", "font-src", "form-action"):
        assert not [s for s in sources[kind] if "http" in s or s == "*"], kind


@pytest.mark.parametrize(("netloc", "name"), [("A.b:80", "a.b"), ("[::1]:80", "::1"), ("x", "x"), ("a:b:c", "a"), ("", "")])
def test_names(netloc, name):
    assert name_of(netloc) == name
