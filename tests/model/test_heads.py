"""Scalar heads: arithmetic, files, and files that are not a head of this base."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from lite.errors import ArtifactError
from lite.model.heads import ScalarHead

CPU = torch.device("cpu")


def test_a_head_is_a_weighted_sum_in_fp32_for_any_float_type():
    head = ScalarHead(3, CPU)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0, -2.0, 0.5]]))
        head.bias.fill_(0.25)
    hidden = torch.tensor([[[1.0, 1.0, 2.0], [0.0, 3.0, 0.0]]])
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        out = head(hidden.to(dtype))
        assert out.dtype == torch.float32
        assert out.tolist() == [[0.25, -5.75]]  # 1 - 2 + 1 + .25, -6 + .25


def test_the_gradient_of_bf16_states_reaches_them_and_the_head():
    head, hidden = ScalarHead(4, CPU).randomize(1), torch.ones(2, 4, dtype=torch.bfloat16, requires_grad=True)
    head(hidden).sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.dtype == torch.bfloat16
    assert head.weight.grad is not None
    assert head.weight.grad.tolist() == [[2.0] * 4]


def test_a_head_starts_at_zero_and_its_random_weights_follow_the_seed_and_the_width():
    head = ScalarHead(4095, CPU)
    assert float(head.weight.detach().abs().sum()) == 0
    first = head.randomize(1).weight.detach().clone()
    assert float(first.std()) == pytest.approx(1 / 64, rel=0.05)  # 1 / sqrt(4095 + 1)
    assert torch.equal(head.randomize(1).weight, first)
    assert not torch.equal(head.randomize(2).weight, first)
    assert float(head.bias.detach()) == 0


def test_a_copy_is_exact_and_independent():
    one, two = ScalarHead(8, CPU).randomize(1), ScalarHead(8, CPU)
    with torch.no_grad():
        one.bias.fill_(3.0)
    two.copy_from(one)
    assert torch.equal(one.weight, two.weight)
    assert torch.equal(one.bias, two.bias)
    with torch.no_grad():
        two.weight.add_(1)
    assert not torch.equal(one.weight, two.weight)


def test_save_and_load_are_exact(tmp_path):
    head = ScalarHead(8, CPU).randomize(1)
    with torch.no_grad():
        head.bias.fill_(-0.125)
    head.save(tmp_path / "head.safetensors")
    assert {k: (tuple(v.shape), v.dtype) for k, v in load_file(tmp_path / "head.safetensors").items()} == {
        "weight": ((1, 8), torch.float32),
        "bias": ((1,), torch.float32),
    }
    other = ScalarHead(8, CPU).load(tmp_path / "head.safetensors")
    assert torch.equal(other.weight, head.weight)
    assert torch.equal(other.bias, head.bias)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "no such head"),
        ("half", "cannot be read"),
        ("narrow", r"not the head of this base \(weight \(1, 4\) and bias \(1,\), not weight \(1, 8\) and bias \(1,\)\)"),
        ("other names", r"not the head of this base \(score \(1, 8\), not weight \(1, 8\) and bias \(1,\)\)"),
    ],
)
def test_what_is_not_a_head_of_this_base_is_one_line_about_the_file(tmp_path, kind, message):
    file = tmp_path / "head.safetensors"
    ScalarHead(8, CPU).save(file)
    if kind == "missing":
        file.unlink()
    elif kind == "half":
        file.write_bytes(file.read_bytes()[:50])
    elif kind == "narrow":
        ScalarHead(4, CPU).save(file)
    elif kind == "other names":
        save_file({"score": torch.zeros(1, 8)}, file)
    head = ScalarHead(8, CPU).randomize(1)
    before = head.weight.detach().clone()
    with pytest.raises(ArtifactError, match=message) as caught:
        head.load(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert torch.equal(head.weight, before)


@pytest.mark.parametrize("pool", ["last", "mean"])
def test_how_a_response_is_read_is_stored_with_the_head(tmp_path, pool):
    ScalarHead(4, CPU, pool).save(tmp_path / "head.safetensors")
    assert ScalarHead(4, CPU).load(tmp_path / "head.safetensors").pool == pool


def test_a_head_that_is_read_in_an_unknown_way_is_refused(tmp_path):
    file = tmp_path / "head.safetensors"
    save_file(dict(ScalarHead(4, CPU).state_dict()), file, metadata={"pool": "max"})
    with pytest.raises(ArtifactError, match="read by 'max'"):
        ScalarHead(4, CPU).load(file)
