"""Another program serves the merged model: `transformers serve` on a CPU, without network; it answers, and stops where it should."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from lite.export.folders import export
from lite.text.dialogue import STOP

MISSING = [name for name in ("openai", "fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"`transformers serve` needs {', '.join(MISSING)} (pip install 'transformers[serving]')"
)


def ask(port: int, **body) -> dict:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


@pytest.fixture
def server(run, tmp_path):
    """The port of a server of the merged base, its weights untouched by a random adapter: so it speaks as the embedded world does."""
    adapter = next(r for r in run.stages() if r.id == "ppo").folder.out / "adapter"
    config = adapter / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text(encoding="utf-8")) | {"lora_alpha": 1e-6}), encoding="utf-8")
    made = export(run, "merged", to=tmp_path / "merged", ask=lambda model, revision: None)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    words = ["serve", str(made.path), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with (tmp_path / "server.txt").open("wb") as out:
        process = subprocess.Popen([sys.executable, "-m", "transformers.cli.transformers", *words], stdout=out, stderr=out, env=environment)
        try:
            deadline = time.monotonic() + 240
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                    break
                except (urllib.error.URLError, OSError):
                    assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "server.txt").read_text(encoding="utf-8")
                    time.sleep(0.5)
            yield port, str(made.path)
        finally:
            process.kill()
            process.wait(timeout=30)


def test_it_answers_and_stops(server):
    """Six questions: every reply that is shorter than the limit ends with the next human tag or the end of text, none goes on after it."""
    port, model = server
    replies = []
    for seed in range(6):
        asked = [{"role": "user", "content": "How can I bake bread?"}]
        choice = ask(port, model=model, messages=asked, seed=seed, max_tokens=96)["choices"][0]
        replies.append(choice["message"]["content"])
    assert all(reply.strip() for reply in replies)
    assert sum(reply.endswith(STOP) for reply in replies) >= 3
    assert all(reply.count("Human:") <= 1 and reply.partition(STOP)[2] == "" for reply in replies)
