import pytest

from lite.evaluate import pictures

Image = pytest.importorskip("PIL.Image")
REPORT = {
    "models": {"base": {"success": 0.25, "success_interval": [0.2, 0.3]}, "ppo": {"success": 1.0, "success_interval": [0.9, 1.0]}},
    "diagnostics": {"pair_sets": {"rlaif": {"polarity": {"mean": 0.25}, "labels": None}}},
}


def bar(path, row: int) -> int:
    """How many pixels of a row have the colour of its bar."""
    picture = Image.open(path).convert("RGB")
    y = pictures.TOP + pictures.ROW * row + 1
    return sum(picture.getpixel((x, y)) == (0x48, 0x78, 0xA8) for x in range(picture.width))


def test_bars_are_as_long_as_their_figures(tmp_path):
    assert pictures.draw(REPORT, tmp_path) == ["pictures/success.png", "pictures/certainty.png"]
    whole = bar(tmp_path / "pictures/success.png", 1)
    assert whole > 400
    assert bar(tmp_path / "pictures/success.png", 0) == pytest.approx(whole / 4, abs=2)
    assert bar(tmp_path / "pictures/certainty.png", 0) == pytest.approx(whole / 2, abs=2)


def test_every_model_of_the_rounds_has_a_bar_as_a_judge(tmp_path):
    models = {
        name: {"judge": {"pairwise": share, "pairwise_error": error}} for name, share, error in (("m1", 0.5, 0.01), ("m2", 1.0, None))
    }
    rounds = {"r1.gate": {"model": "m2", "before": "m1", "models": models}}
    assert pictures.draw({"models": {}, "diagnostics": {"rounds": rounds}}, tmp_path) == ["pictures/judges.png"]
    assert bar(tmp_path / "pictures/judges.png", 0) == pytest.approx(bar(tmp_path / "pictures/judges.png", 1) / 2, abs=8)


def test_without_pillow_or_figures_there_are_no_pictures(tmp_path, monkeypatch):
    assert pictures.draw({"models": {"base": {}}, "diagnostics": {}}, tmp_path) == []
    monkeypatch.setattr(pictures, "AVAILABLE", False)
    assert pictures.draw(REPORT, tmp_path) == []
    assert not list(tmp_path.iterdir())
