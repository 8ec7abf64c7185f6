"""Losses of the preference model.

Follows Yang et al. 2023 (RLCD) and Ouyang et al. 2022 §3.5, with labels that may be soft: RLCD labels hard, RLAIF and Rescore give the
probability that the judge read. DPO's terms are TRL's, but for what a soft label adds.
"""

import torch
from torch import Tensor

from lite.objectives.masks import wide


def bradley_terry(chosen: Tensor, rejected: Tensor, label: Tensor) -> Tensor:
    """Binary cross-entropy on the reward difference, one loss per pair.

        d = chosen - rejected
        loss = -label * log sigmoid(d) - (1 - label) * log sigmoid(-d)          (label 1: Ouyang et al. 2022, eq. 1)

    chosen, rejected: (B,) rewards     label: (B,) in [0, 1], the probability that ``chosen`` is preferred     returns: (B,) fp32
    """
    difference = wide(chosen) - wide(rejected)
    return torch.nn.functional.binary_cross_entropy_with_logits(difference, label.to(difference.dtype), reduction="none")


def preference_probability(chosen: Tensor, rejected: Tensor) -> Tensor:
    """The model's probability that ``chosen`` is preferred: sigmoid(chosen - rejected), (B,) fp32."""
    return torch.sigmoid(wide(chosen) - wide(rejected))


def center_penalty(chosen: Tensor, rejected: Tensor) -> Tensor:
    """(chosen + rejected)^2, (B,): keeps rewards near 0, which the difference alone leaves free (Eisenstein et al. 2023, eq. 2).

    Not part of ``bradley_terry``: the caller adds it with a small coefficient (0.01), or not at all.
    """
    return (wide(chosen) + wide(rejected)) ** 2


def other_order(margin: Tensor, label: Tensor) -> Tensor:
    """What a soft label adds to DPO's loss -log sigmoid(margin) of the pair as it stands.

        -label * log sigmoid(m) - (1 - label) * log sigmoid(-m) = -log sigmoid(m) + (1 - label) * m

    since -log sigmoid(-m) = -log sigmoid(m) + m. In Wang et al. 2024 (CREAM) the label is the consistency of two
    judges' rankings, and the rest of it belongs to the pair in the opposite order.

    margin: (B,) beta times the difference of the log-ratios     label: (B,) in [0, 1]     returns: (B,)
    """
    return (1 - label.to(margin.dtype)) * margin
