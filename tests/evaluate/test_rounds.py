"""The rounds as tables."""

from typing import Any

from lite.evaluate.rounds import figures_of, render

JUDGE = {"pairwise": 0.8, "pairwise_error": 0.02, "best_of_five": None, "exact": 0.5, "spearman": 0.6, "kendall": 0.5, "ties": 0.1, "readable": 0.97, "prompts": 4,
         "responses": 12, "histogram": {"0": 1, "1": 0, "2": 2, "3": 4, "4": 8, "5": 1}, "single": {"pairwise": 0.7, "pairwise_error": None}, "greedy": {"pairwise": 0.9, "pairwise_error": 0.01}}  # fmt: skip


def figures(success: float) -> dict[str, Any]:
    return {"judge": JUDGE, "success": success, "score": 3.0, "tokens": 17.0, "stop_rate": 0.95}


def report(model: str, before: str | None, models: dict[str, float]) -> dict[str, Any]:
    versus = {"first": model, "win": 0.5, "tie": 0.3, "loss": 0.2, "win_rate": 0.65, "interval": [0.6, 0.7], "compared": 100}
    return {
        "model": model,
        "before": before,
        "models": {name: figures(s) for name, s in models.items()},
        "comparisons": [versus | {"second": other} for other in models if other != model] + [None],
        "compared_by": "oracle",
        "both_orders": [],
        "tie_rule": "half",
        "adapter_change": 0.2,
        "judging": {"candidates": 100, "readable": 0.98, "saved": 7},
        "pairs": {"prompts": 25, "pairs": 20, "tie_rate": 0.1, "gap": 2.0},
        "gates": [{"sign": "length", "open": False, "says": "too long"}],
    }


REPORTS = {
    "m1-gate": report("m1", "baseline", {"m1": 0.35, "baseline": 0.5}),
    "r1.gate": report("r1.dpo", "m1", {"r1.dpo": 0.6, "m1": 0.36, "baseline": 0.51}),
    "r2.gate": report("r2.dpo", "r1.dpo", {"r2.dpo": 0.7, "r1.dpo": 0.61, "baseline": 0.52}),
}


def test_models_stand_in_the_order_in_which_they_were_made():
    assert list(figures_of(REPORTS)) == ["baseline", "m1", "r1.dpo", "r2.dpo"]
    assert figures_of(REPORTS)["r1.dpo"]["success"] == 0.6  # of two measurements the first


def test_the_page_has_every_table_and_says_what_cannot_be_compared():
    page = render(REPORTS)
    for part in ("| as a judge |", "| on dev prompts |", "| head to head |", "Tie rule: half", "cannot be compared", "| r2.dpo v r1.dpo |"):
        assert part in page, part
    assert "| r1.gate | 100 | 0.980 | 7 | 25 | 20 | 0.100 | 2.000 | 0.200 |" in page
    assert "- r2.gate, length: **shut** (too long)" in page
    assert "| m1 | 0.800 ± 0.020 | - | 0.500 |" in page
    assert "| 0.700 | 0.900 ± 0.010 |" in page
    assert "▁▁▂▄█▁ (1/0/2/4/8/1)" in page


def test_choices_in_both_orders_are_told_apart_from_scores():
    choice = {"judge": "base", "first": "m2", "second": "m1", "win": 0.4, "tie": 0.5, "loss": 0.1, "win_rate": 0.65, "interval": [0.6, 0.7]}
    page = render({"r1.gate": report("m2", "m1", {"m2": 0.5, "m1": 0.4}) | {"both_orders": [choice | {"contradicts_itself": 0.31}]}})
    assert "| m2 v m1 | 0.500 | 0.300 | 0.200 | 0.650 (0.600-0.700) |" in page
    assert "| m2 v m1, the base choosing in both orders | 0.400 | 0.500 | 0.100 | 0.650 (0.600-0.700) |" in page
    assert "turned 31% of its choices with the order at most, which are ties" in page
    assert "with the order" not in render(REPORTS)
