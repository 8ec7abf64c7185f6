"""The method, not only the plumbing: a short RLCD run moves the embedded base, and its adapter is one that anybody can load."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lite.artifacts import Prompts
from lite.micro import BASE_DIR
from lite.micro.world import grade
from lite.text.clean import decode_reply
from lite.text.dialogue import prompt

ROOT = Path(__file__).parent.parent
SHORT = ("prompts.train=160", "prompts.dev=40", "prompts.test=100", "ppo.steps=6", "evaluate.draws=2")
GAIN = 0.15
"""100 prompts have a standard deviation of about 0.05; a short run gains 0.4 and more."""

PLAIN_PEFT = """
import json, sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base, adapter, prompts = sys.argv[1], sys.argv[2], json.load(sys.stdin)
torch.set_num_threads(1)
torch.manual_seed(0)
tokenizer = AutoTokenizer.from_pretrained(base, padding_side="left")
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter).eval()
inputs = tokenizer(prompts, return_tensors="pt", padding=True)
inputs.pop("token_type_ids", None)

def replies():
    ids = model.generate(**inputs, do_sample=True, top_k=0, max_new_tokens=64, pad_token_id=tokenizer.pad_token_id)
    return tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1]:], skip_special_tokens=True)

aligned = replies()
with model.disable_adapter():
    plain = replies()
assert "lite" not in sys.modules
print(json.dumps({"aligned": aligned, "plain": plain}))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> dict:
    command = [sys.executable, "-m", "lite.cli", "run", "recipes/tiny_rlcd_harmless.yaml", *SHORT, "--json", "--offline"]
    command += ["--runs", str(tmp_path_factory.mktemp("runs"))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_ppo_aligns_the_base(run):
    models = run["report"]["models"]
    assert models["ppo"]["success"] > models["base"]["success"] + GAIN
    assert models["ppo"]["kl_to_base"] > 0.5
    assert run["report"]["reward"]["oracle_accuracy"] > 0.75
    assert run["report"]["diagnostics"]["pairs"]["labels"]["accuracy"] > 0.75


def test_the_adapter_aligns_in_another_program(run):
    folder = Path(run["run"])
    rows = Prompts(folder / "stages/01-prompts/out").rows("test")[:100]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PLAIN_PEFT, str(BASE_DIR), str(folder / "stages/04-ppo/out/adapter")],
        input=json.dumps([prompt(row.turns) for row in rows]),
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.strip().splitlines()[-1])
    success = {
        name: sum(grade(row.turns, decode_reply(text)).success for row, text in zip(rows, texts, strict=True))
        for name, texts in said.items()
    }
    assert success["aligned"] > success["plain"] + 100 * GAIN
