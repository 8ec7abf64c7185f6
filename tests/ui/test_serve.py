"""The page as it is served: who gets in, what is open, what the pages answer (S1, S2, S13, S14)."""

import json
import os
import re
import secrets
import socket
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gradio_client
import pytest

from lite.errors import LockError, PreconditionError, RecipeError
from lite.ui import serve
from lite.ui.serve import Door


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A finished run, by fake stages."""
    from tests.conftest import FakeRuns

    fakes = FakeRuns(tmp_path_factory.mktemp("served") / "runs")
    fakes.go()
    return fakes.folder


CALL_ALL = """
import inspect, sys
from pathlib import Path
import gradio as gr
from lite.ui.app import build
from lite.ui.site import Site
NAMES = ("look first back_one on_one choose end go_on save give_adapter give_replies give_rows tell take_back beside stages").split()
called = 0
for block in build(Site(Path(sys.argv[1]), Path(sys.argv[2]))).fns.values():
    if getattr(block.fn, "__name__", "") not in NAMES:
        continue
    for name in ("../../etc", "/etc/passwd", "nobody", "", "a\\0b", None, 7, ["x"], {"a": 1}):
        called += 1
        try:
            answer = block.fn(*[name] * len(block.inputs))
            answer = list(answer) if inspect.isgenerator(answer) else answer
        except (gr.Error, TypeError, AttributeError, ValueError):  # of a wrong type: Gradio's "Error" and nothing more
            continue
        assert "root:" not in str(answer)
print(called)
"""
"""In a process of its own: Gradio leaves loops behind for a page that is built and not served."""
SERVER = """
import sys
from pathlib import Path
from lite.ui.serve import Door, serve
serve(Path(sys.argv[1]), Door(login=("me", "a long password") if sys.argv[2:] else None))
"""


def start_page(runs: Path, *words: str) -> tuple[subprocess.Popen[str], str]:
    """The page in a process of its own, and its address."""
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(runs), *words], stderr=subprocess.PIPE, text=True)
    assert process.stderr
    told = next((line for line in process.stderr if line.startswith("lite is at")), "")
    assert told, "the page did not come up"
    return process, told.split()[3]


def end_page(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def served(runs: Path, *words: str) -> Iterator[str]:
    process, address = start_page(runs, *words)
    try:
        yield address
    finally:
        end_page(process)


@pytest.fixture(scope="module")
def page(runs):
    """The page's process, how much of a processor it took to come up, and its address."""
    process, address = start_page(runs)
    yield process, processor_seconds(process.pid), address
    end_page(process)


@pytest.fixture(scope="module")
def closed(page):
    """The page on loopback without a login."""
    return page[2]


@pytest.fixture(scope="module")
def opened(runs, tmp_path_factory):
    """The page with a login, as it is with --listen."""
    with served(tmp_path_factory.mktemp("other"), "login") as address:
        yield address


def status(address: str, path: str, *, method: str = "GET", data: bytes | None = None, **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(
        address.rstrip("/") + path, data=data, method=method, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as e:
        with e:
            return e.code, e.read().decode("utf-8", "replace")


def test_it_listens_on_loopback_only(closed):
    """S1."""
    port = int(closed.rstrip("/").rsplit(":", 1)[1])
    assert closed.startswith("http://127.0.0.1:")
    other = next((a[4][0] for a in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET) if not a[4][0].startswith("127.")), None)
    if other is None:
        pytest.skip("this machine has no other address")  # there is no door to knock at from outside
    with socket.socket() as probe:
        probe.settimeout(2)
        assert probe.connect_ex((other, port)) != 0


@pytest.mark.parametrize("door", [Door(listen=True), Door(share=True)])
def test_nobody_else_gets_in_without_a_login(door):
    """S1: a page that others can reach and that has no login is never served; one that is made has 192 bits."""
    with pytest.raises(RecipeError, match="login"):
        serve.options(door)
    name, password = serve.make_login()
    assert name and len(password) >= 32 and serve.make_login()[1] != password


@pytest.mark.parametrize("text", ["", "justaname", "me:short", ":nobodyknowswho"])
def test_a_weak_login_file_is_refused(tmp_path, text):
    (tmp_path / "login").write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError):
        serve.read_login(tmp_path / "login")


def test_a_login_file(tmp_path):
    (tmp_path / "login").write_text("me:with:colons and more\nignored\n", encoding="utf-8")
    assert serve.read_login(tmp_path / "login") == ("me", "with:colons and more")


@pytest.mark.parametrize("path", ["/", "/new", "/run", "/pairs", "/rate", "/chat", "/export", "/machine"])
def test_every_page_is_there(closed, path):
    code, body = status(closed, path)
    assert code == 200 and "gradio" in body


def call(address: str, name: str, *given: object, outputs: int | None = None) -> object:
    """What a handler answers to whoever speaks to the queue past the page."""
    known = json.loads(status(address, "/config")[1])["dependencies"]
    found = next(d for d in known if re.fullmatch(rf"{name}(_\d+)?", d["api_name"] or "") and outputs in (None, len(d["outputs"])))
    session = secrets.token_hex(5)
    body = json.dumps({"data": list(given), "fn_index": found["id"], "session_hash": session}).encode()
    assert status(address, "/gradio_api/queue/join", method="POST", data=body, Content_Type="application/json")[0] == 200
    told = status(address, f"/gradio_api/queue/data?session_hash={session}")[1]
    events = [json.loads(line.removeprefix("data: ")) for line in told.splitlines() if line.startswith("data: ")]
    return next(event["output"] for event in events if event["msg"] == "process_completed")


def test_handlers_answer_past_the_page_with_what_the_page_would_show(closed, runs):
    """S13: private is not a boundary."""
    run = next(p.name for p in runs.iterdir() if (p / "run.json").is_file())
    assert run in str(call(closed, "look", "", "all", None, outputs=2))
    assert run not in str(call(closed, "look", "no such", "all", None, outputs=2))
    assert run in str(call(closed, "look", run, None, None, outputs=12))
    assert run not in str(call(closed, "look", f"../runs/{run}", None, None, outputs=12))


def test_a_client_is_offered_nothing(closed):
    """S13: no handler is an interface for programs; the command line is."""
    client = gradio_client.Client(closed, verbose=False)
    assert client.view_api(return_format="dict", print_info=False) == {"named_endpoints": {}, "unnamed_endpoints": {}}


def test_a_client_needs_the_login(opened):
    with pytest.raises(ValueError, match="Please login"):
        gradio_client.Client(opened, verbose=False)
    gradio_client.Client(opened, auth=("me", "a long password"), verbose=False)


def test_the_page_comes_up_within_six_seconds_of_work(page):
    """Counted in seconds of a processor, since this one may be busy."""
    assert page[1] < 6


def test_hosts_origins_and_headers_of_the_served_page(closed):
    """S3, S4: the guard is in front of the real page."""
    address = closed
    assert status(address, "/", Host="evil.example")[0] == 400
    assert status(address, "/config", Host="evil.example")[0] == 400
    assert status(address, "/gradio_api/upload", method="POST", data=b"x", Origin="http://evil.example")[0] == 403
    with urllib.request.urlopen(address, timeout=20) as answer:
        assert "img-src 'self'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/openapi.json", "/docs", "/redoc", "/runs", "/gradio_api/runs", "/monitoring/summary"])
def test_what_is_not_needed_is_not_there(closed, path):
    """S2."""
    assert status(closed, path)[0] in (403, 404)


@pytest.mark.parametrize("path", ["/config", "/gradio_api/info", "/gradio_api/queue/data?session_hash=x", "/gradio_api/file=/etc/passwd"])
def test_without_a_login_nothing_is_told(opened, path):
    """S2."""
    code, body = status(opened, path)
    assert code == 401 and "small" not in body


def test_without_a_login_nothing_is_called(opened):
    body = json.dumps({"data": [], "fn_index": 0, "session_hash": "x"}).encode()
    for path in ("/gradio_api/queue/join", "/gradio_api/run/predict", "/gradio_api/upload"):
        assert status(opened, path, method="POST", data=body, Content_Type="application/json")[0] in (401, 404)


def test_passwords_cannot_be_tried_out(opened):
    """S5."""
    codes = [
        status(opened, "/login", method="POST", data=b"username=me&password=wrong%d" % i, Content_Type="application/x-www-form-urlencoded")[
            0
        ]
        for i in range(8)
    ]
    assert codes[:4] == [400] * 4 and codes[-2:] == [429] * 2


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=../../etc/passwd",
        "/gradio_api/file={runs}/../x",
        "/gradio_api/file={run}/run.json",
    ],
)
def test_no_file_is_handed_out(closed, runs, path):
    """S6: not even those of a run; only what an export wrote for this purpose."""
    run = next(p for p in runs.iterdir() if (p / "run.json").is_file())
    assert status(closed, path.format(runs=runs, run=run))[0] in (400, 403, 404)


def test_handlers_check_what_they_are_given(runs, tmp_path):
    """S13: called past the page with names of runs that are none, they refuse or do nothing, and no file appears."""
    before = sorted(runs.rglob("*"))
    done = subprocess.run([sys.executable, "-c", CALL_ALL, str(runs), str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 12 * 9
    assert sorted(runs.rglob("*")) == before


def test_an_explicit_port_that_is_taken_is_told(closed):
    """R17."""
    port = int(closed.rstrip("/").rsplit(":", 1)[1])
    with pytest.raises(PreconditionError, match=str(port)):
        serve.free_port(Door(port=port))
    assert serve.free_port(Door()) != port


def test_a_second_page_for_the_same_runs_is_told_where_the_first_is(tmp_path):
    fcntl = pytest.importorskip("fcntl")
    with (tmp_path / ".ui").open("a+") as held:
        held.write("http://127.0.0.1:7860/")
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(LockError, match="7860"):
            serve.serve(tmp_path, Door())


def test_no_torch_in_the_process_of_the_page(page, closed):
    """Not even after every page was looked at and run's handlers were called."""
    for path in ("/", "/new", "/run", "/pairs", "/rate", "/chat", "/export", "/machine"):
        status(closed, path)
    call(closed, "look", "", "all", None, outputs=2)
    assert "torch" not in Path(f"/proc/{page[0].pid}/maps").read_text(encoding="utf-8")


def test_no_module_of_the_page_imports_torch():
    code = "import sys, lite.ui.serve; bad = {'torch', 'transformers', 'peft', 'trl', 'datasets'} & set(sys.modules); assert not bad, bad"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_telemetry_is_off():
    code = "import os, lite.ui.serve; assert os.environ['GRADIO_ANALYTICS_ENABLED'] == 'False' and os.environ['HF_HUB_DISABLE_TELEMETRY'] in ('1', 'True')"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("name", "least"), [("gradio", (6, 7)), ("torch", (2, 6))])
def test_the_libraries_are_new_enough(name, least):
    """S16: below, they have known holes."""
    root = Path(__file__).parents[2]
    wanted = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    found = next(re.fullmatch(rf"{name}>=([\d.]+).*", text) for text in wanted if re.match(rf"{name}\W", text))
    assert found and tuple(map(int, found[1].split("."))) >= least


def test_the_page_asks_for_no_secret():
    """S14: there is no field for a token, so none can be kept."""
    sources = "".join(p.read_text(encoding="utf-8") for p in (Path(serve.__file__).parent / "pages").glob("*.py"))
    assert "BrowserState" not in sources and 'type="password"' not in sources
    assert "gr.Markdown" not in sources and "gr.Chatbot" not in sources and "gr.File(" not in sources  # texts go through markup
