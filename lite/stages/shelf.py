"""Checkpoints that are compared by what they write: the paper's choice of the adapter that a round keeps.

Yuan et al. 2024, section 3.1.3: a checkpoint every so many steps, its answers to validation prompts compared with those of the one
before, and the best is kept. Here the one that is kept so far is the one to beat, every checkpoint answers under the same seeds, and the
judge is the model that training started from: it scores each answer alone, so that no order can favour one. A tie keeps the earlier one.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from lite.artifacts import Policy, Prompts
from lite.knobs.rounds import CompareSpec
from lite.model.bank import AdapterBank
from lite.model.state import load_weights, save_weights
from lite.runs.ranks import ALONE, Ranks
from lite.stages.answers import answers, head_to_head, scored
from lite.stages.bench import Bench


class Chosen(NamedTuple):
    step: int
    contests: list[dict[str, Any]]  # head to heads: a checkpoint (first) against the one kept so far (second)


class Shelf:
    """Adapters of one training on disk, by step, until one is chosen. A step that is done again after a stop puts down the same weights.

    Of several ranks the first has the shelf: what an earlier process put down lies in its folder alone.
    """

    def __init__(self, spec: CompareSpec, folder: Path, steps: int, ranks: Ranks = ALONE):
        self._spec, self._folder, self._steps, self._ranks = spec, folder, steps, ranks

    def put(self, step: int, weights: Mapping[str, Tensor]) -> None:
        if self._ranks.number == 0 and (step % self._spec.every == 0 or step == self._steps):
            self._folder.mkdir(exist_ok=True)
            save_weights(self._folder / f"{step}.safetensors", weights)

    def choose(self, role: str, judge: Policy | None, prompts: Prompts, bank: AdapterBank, bench: Bench) -> Chosen:
        """Leave the best adapter under ``role``."""
        spec, rows = self._spec, prompts.rows("dev")[: self._spec.prompts]
        steps = self._ranks.first(sorted(int(file.stem) for file in self._folder.glob("*.safetensors")))
        written = []
        with bench.progress(len(steps) * len(rows) * (1 + spec.judging.draws), "texts", "dpo: checkpoints compared") as bar:
            for step in steps:
                bank.restore(role, self._weights(step))
                written += answers(spec, f"step-{step}", role, rows, bank, bench, bar)
            judged = scored(spec, judge, written, bank, bench, bar)
        replies = {step: [r for r in judged if r.model == f"step-{step}"] for step in steps}
        kept, contests = steps[0], []
        for step in steps[1:]:
            met = head_to_head(replies[step], replies[kept])
            contests += [met] if met else []
            if met and met["win"] > met["loss"]:
                kept = step
        bank.restore(role, self._weights(kept))
        return Chosen(kept, contests)

    def _weights(self, step: int) -> dict[str, Tensor]:
        return self._ranks.first(load_weights(self._folder / f"{step}.safetensors") if self._ranks.number == 0 else {})
