"""The GPU script, run on the CPU with a toy shape: every part measures something, and a stranger gets sentences, never a traceback."""

import importlib.util
import json

import pytest
import torch

from benchmarks import gpu, gpu_options, gpu_parts
from benchmarks.gpu_base import config_of, random_base
from lite.fit import sizes
from lite.fit.shape import Shape, from_config
from lite.knobs import BaseSpec
from lite.model.bank import AdapterBank

CPU = torch.device("cpu")


def run(capsys, *argv: str) -> tuple[int, str, str]:
    code = gpu.main(argv)
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return code, said.out, said.err


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    assert gpu.main(["--cpu", "--rollouts", "2", "--rows", "2", "--tokens", "8", "4", "--out", str(out)]) == 0
    assert "| generation, 2 rows |" in (out / "toy-cpu-small.md").read_text()
    return json.loads((out / "toy-cpu-small.json").read_text())


def test_every_part_of_the_loop_is_measured_on_the_cpu(facts):
    parts = facts["parts"]
    assert parts["generation"]["tokens_per_second"]["2"]["ours"] > 0 and parts["generation"]["tokens_per_second"]["2"]["bound"] > 0
    assert parts["pairs"]["tokens_per_second"]["shared"] > 0
    assert parts["reward"]["tokens_per_second"] > 0 and parts["reward"]["pairs_per_step"] == 16
    assert parts["ppo"]["seconds"] >= parts["ppo"]["seconds_update"] > 0 and parts["old_ppo"]["seconds"] > 0
    assert not [name for name, part in parts.items() if "failed" in part]


def test_what_is_not_measured_is_called_so(facts):
    assert {"unsloth", "trl_defaults"} <= {name for name, part in facts["parts"].items() if "not_measured" in part}
    assert facts["gpu"] is None and facts["shortfalls"] == []
    assert facts["parts"]["ppo"]["peak_gib"] == "not measured"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_a_sentence_says_so(capsys):
    code, out, err = run(capsys, "--model", "7b", "--card", "8")
    assert (code, out) == (3, "") and "no GPU" in err and "--cpu" in err


def test_what_cannot_be_done_is_refused_before_anything_is_made(capsys, monkeypatch):
    monkeypatch.setattr("benchmarks.gpu_base.random_base", lambda *_: pytest.fail("a base was made"))
    code, _, err = run(capsys, "--cpu", "--model", "30b", "--card", "16", "--tokens", "192", "300")
    assert code == 3 and "does not fit a card with 16 GiB" in err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--model", "nonsense"], "--model: no shape called 'nonsense'; there are small, 7b, 30b"),
        (["--only", "gen"], "--only: invalid choice: 'gen' (choose from"),
        (["--tokens", "0", "0"], "--tokens: a whole number from 1 on is needed (got '0')"),
        (["--rows", "8", "-5"], "--rows: a whole number from 1 on is needed (got '-5')"),
        (["--rollouts", "-3"], "--rollouts: a whole number"),
        (["--steps", "0"], "--steps: a whole number"),
        (["--card", "nan"], "--card: "),
        (["--out", __file__], "is no folder"),
    ],
)
def test_a_mistyped_command_is_refused_before_the_machine_is_looked_at(capsys, monkeypatch, argv, said):
    monkeypatch.setattr(gpu, "check_machine", lambda *_: pytest.fail("the machine was looked at"))
    with pytest.raises(SystemExit) as ended:
        gpu.main(argv)
    assert ended.value.code == 2 and said in capsys.readouterr().err


def test_the_choices_are_the_parts_that_there_are():
    assert tuple(gpu_parts.PARTS) == gpu_options.PARTS
    assert all(config_of(name) for name in gpu_options.NAMES)


def test_numbers_of_rows_that_do_not_fit_are_left_out_by_name_and_the_others_measured(capsys, tmp_path):
    asked = ("--cpu", "--card", "1", "--only", "generation", "--tokens", "8", "4", "--out", str(tmp_path))
    code, out, _ = run(capsys, *asked, "--rows", "2", "100000")
    assert code == 0 and "| generation, 2 rows | " in out
    assert "| generation, 100000 rows | not measured: does not fit: about " in out
    code, out, _ = run(capsys, *asked, "--rows", "100000")
    assert code == 0 and "| generation | not measured: no number of rows fits: 100000 does not fit" in out
    assert {path.name for path in tmp_path.iterdir()} == {"toy-cpu-small.json", "toy-cpu-small.md"}


def test_rows_that_run_out_of_memory_leave_the_others_their_figures(capsys, monkeypatch, tmp_path):
    real = gpu_parts.rollouts.ours

    def ours(bank, prompts, rows, *rest):
        if rows == 3:
            raise torch.OutOfMemoryError("x")
        return real(bank, prompts, rows, *rest)

    monkeypatch.setattr(gpu_parts.rollouts, "ours", ours)
    code, out, _ = run(capsys, "--cpu", "--only", "generation", "--rows", "3", "2", "--tokens", "8", "4", "--out", str(tmp_path))
    assert code == 1 and "| generation, 3 rows | **failed**: out of memory |" in out and "| generation, 2 rows | **" not in out
    speeds = json.loads((tmp_path / "toy-cpu-small.json").read_text())["parts"]["generation"]["tokens_per_second"]
    assert speeds["2"]["ours"] > 0 and gpu.shortfalls({"generation": {"tokens_per_second": {"3": speeds["3"]}}}) == []


def test_a_llama_7b_writes_some_ten_rows_at_a_time_on_8_gb():
    planned = gpu.plan_for(gpu_options.options(["--rows", "8", "16", "32", "64"], None), 8.0)
    assert [list(gpu.too_many(planned.rows, card)) for card in (8.0, 16.0, 24.0)] == [[16, 32, 64], [64], []]


def test_a_missing_library_is_named(capsys, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "bitsandbytes" else real(name, *rest))
    code, _, err = run(capsys, "--cpu")
    assert code == 3 and "bitsandbytes is not installed" in err


@pytest.mark.parametrize(("error", "said"), [(torch.OutOfMemoryError("x"), "out of memory"), (ValueError("no\nway"), "ValueError: no")])
def test_a_part_that_fails_leaves_the_others_their_figures(capsys, monkeypatch, tmp_path, error, said):
    def fail(_job):
        raise error

    monkeypatch.setattr(
        gpu_parts, "PARTS", {"ppo": fail, "pairs": lambda _: {"rows": 2, "tokens_per_second": {"shared": 2.0, "apart": 1.0}}}
    )
    code, out, _ = run(capsys, "--cpu", "--out", str(tmp_path))
    assert code == 1 and f"| ppo | **failed**: {said} |" in out and "| pairs, 2 rows | 2 tokens/s |" in out


def test_figures_that_miss_what_was_set_out_are_told():
    speeds = {"8": {"ours": 3.0, "generate": 2.0, "times": 1.5, "bound": 9.0, "of_bound": 0.3}}
    parts = {"generation": {"tokens_per_second": speeds}, "ppo": {"seconds": 1.0, "peak_over_estimate": 1.3}, "old_ppo": {"seconds": 2.0}}
    assert len(gpu.shortfalls(parts)) == 3
    assert gpu.shortfalls({"ppo": {"seconds": 1.0, "peak_over_estimate": 1.0}, "old_ppo": {"seconds": 2.6}}) == []


@pytest.mark.parametrize("name", ["small", "Qwen/Qwen2.5-0.5B"])
def test_a_random_base_is_one_in_every_byte(name):
    """Quantised as loaded ones are, a tied head once; the shape is cut to two narrow layers."""
    config = config_of(name)
    if name != "small":
        assert config.tie_word_embeddings
        config.update({"hidden_size": 128, "num_hidden_layers": 2, "intermediate_size": 256, "vocab_size": 400, "layer_types": None})
        config.update({"num_attention_heads": 4, "num_key_value_heads": 2, "layer_types": ["full_attention"] * 2})
    shape, spec = from_config({"model_type": config.model_type} | config.to_dict()), BaseSpec(dtype="float32")
    assert isinstance(shape, Shape)
    base = random_base(config, CPU, torch.float32)
    held = {p.data_ptr(): p for p in base.model.parameters()}.values()
    states = [s for m in base.model.modules() if (s := getattr(getattr(m, "weight", None), "quant_state", None))]
    tensors = [*held, *(t for s in states for t in (s.absmax, s.code, s.offset, s.state2.absmax, s.state2.code))]
    assert len(states) == 14
    assert sum(t.numel() * t.element_size() for t in tensors) == sizes.base_weights(shape, spec) + sizes.embeddings(shape, spec)
    AdapterBank(base)  # PEFT takes it
    assert base.model.get_decoder()(input_ids=torch.tensor([[1, 5, 9]])).last_hidden_state.isfinite().all()
