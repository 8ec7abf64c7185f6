"""lm-eval on the loaded base and adapter: figures before and after, with a local task and without network."""

import importlib.util
import json

import pytest

from lite.errors import PreconditionError, RecipeError
from lite.evaluate import harness
from lite.evaluate.harness import Change, Figure, changes, figures

needs_lm_eval = pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="lm-eval is not installed (the extra [eval])")

RESULTS = {
    "arc": {"alias": "arc", "acc,none": 0.5, "acc_stderr,none": 0.03, "acc_norm,none": 0.6, "acc_norm_stderr,none": "N/A", "sample_len": 9},
    "gsm8k": {"exact_match,strict-match": 0.25, "exact_match_stderr,strict-match": 0.04},
}


def test_figures_are_the_numbers_with_their_errors():
    assert figures(RESULTS) == {
        ("arc", "acc"): Figure(0.5, 0.03),
        ("arc", "acc_norm"): Figure(0.6, None),
        ("gsm8k", "exact_match (strict-match)"): Figure(0.25, 0.04),
    }


def test_a_change_has_the_error_of_both():
    (found,) = changes({("arc", "acc"): Figure(0.5, 0.03)}, {("arc", "acc"): Figure(0.45, 0.04), ("new", "acc"): Figure(1, None)})
    assert found == Change("arc", "acc", Figure(0.5, 0.03), Figure(0.45, 0.04))
    assert found.difference == pytest.approx(-0.05) and found.error == pytest.approx(0.05)


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is not None, reason="lm-eval is installed")
def test_without_the_extra_it_is_said_how_to_get_it():
    with pytest.raises(PreconditionError, match=r"pip install -e '\.\[eval\]' in lite's folder"):
        harness.tasks_of(["arc"], None)


@pytest.fixture
def tasks(tmp_path):
    """One task of choices and one of free answers about the embedded world."""
    rows = [
        {"q": "How can I bake bread?", "choices": ["You need flour and yeast.", "You need a kite."], "gold": 0},
        {"q": "Where can I fly a kite?", "choices": ["Do it at the oven.", "Do it at the beach."], "gold": 1},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    head = f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {tmp_path / 'rows.jsonl'}}}}}\ntest_split: test\n"
    asked = 'doc_to_text: "\\n\\nHuman: {{q}}\\n\\nAssistant:"\n'
    (tmp_path / "choose.yaml").write_text(
        f'task: lite_choose\n{head}output_type: multiple_choice\n{asked}doc_to_choice: "{{{{choices}}}}"\ndoc_to_target: gold\n'
        "metric_list: [{metric: acc}]\n",
        encoding="utf-8",
    )
    (tmp_path / "write.yaml").write_text(
        f'task: lite_write\n{head}output_type: generate_until\n{asked}doc_to_target: "{{{{choices[gold]}}}}"\n'
        'generation_kwargs: {until: ["\\n\\nHuman:"], max_gen_toks: 24, do_sample: false}\nmetric_list: [{metric: exact_match}]\n',
        encoding="utf-8",
    )
    return tmp_path


@needs_lm_eval
def test_base_and_adapter_are_measured_on_one_loaded_model(tasks, tmp_path):
    import torch

    from lite.engine import load_bank
    from lite.knobs import BaseSpec, LoraSpec

    bank = load_bank(BaseSpec(device="cpu"))
    bank.add("after", LoraSpec(r=4), seed=1)  # equal to the base, until it is stirred
    manager = harness.tasks_of(["lite_choose", "lite_write"], tasks)
    found = harness.measure(bank, {"base": None, "ppo": "after"}, ["lite_choose", "lite_write"], manager)
    before, after = (harness.figures(found[name]["results"]) for name in ("base", "ppo"))
    assert before == after and set(before) == {("lite_choose", "acc"), ("lite_write", "exact_match")}
    assert before["lite_choose", "acc"].value == 1.0
    with torch.no_grad():
        for p in bank.parameters("after"):
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(3)) * 2)
    broken = harness.measure(bank, {"base": None, "ppo": "after"}, ["lite_choose"], manager, limit=2)
    assert harness.figures(broken["base"]["results"])["lite_choose", "acc"].value == 1.0
    assert harness.figures(broken["ppo"]["results"])["lite_choose", "acc"].value < 1.0
    with pytest.raises(RecipeError, match="knows no task 'lite_chose'"):
        harness.tasks_of(["lite_chose"], tasks)
