"""What TRL's trainers report, by our names."""

FIGURES = {
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "lr",
    "entropy": "entropy",
    "mean_token_accuracy": "token_accuracy",
    "rewards/accuracies": "accuracy",
    "rewards/margins": "margin",
    "rewards/chosen": "chosen_reward",
    "rewards/rejected": "rejected_reward",
    "logps/chosen": "chosen_logp",
    "logps/rejected": "rejected_logp",
}
"""TRL's names of what is reported -> ours."""


def named(figures: dict[str, float]) -> dict[str, float]:
    """The figures that are reported, by our names."""
    return {ours: float(figures[theirs]) for theirs, ours in FIGURES.items() if theirs in figures}
