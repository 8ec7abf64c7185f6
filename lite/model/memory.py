"""How much goes through the model at once, and what to do when the card's memory runs out.

The knobs for it (``micro_tokens``, ``batch_rows``, ``rollout_rows``) change no result, so they may shrink while a stage runs: the work is
done again in pieces half as large. What was learnt is kept for as long as the base stays loaded, later stages included.
"""

import gc
import logging
from collections.abc import Callable
from itertools import count
from typing import TypeVar

import torch

from lite.errors import PreconditionError

TRIES = 5
"""Halvings of one piece of work: after them a thirty-second part was too much, and something else is wrong."""
TRAIN, SCORE, WRITE = "tokens of a training pass", "tokens of a scoring pass", "responses"

log = logging.getLogger(__name__)
Result = TypeVar("Result")


def free_unused() -> None:
    """Give back what nobody holds any more: a model is full of reference cycles, and torch keeps freed blocks of the GPU for itself."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class Budget:
    """The most that proved to fit, by kind of work."""

    def __init__(self) -> None:
        self._limits: dict[str, int] = {}

    def limit(self, work: str, asked: int) -> int:
        return min(asked, self._limits.get(work, asked))

    def spend(self, work: str, asked: int, attempt: Callable[[int], Result], *, undo: Callable[[], None] | None = None) -> Result:
        """What ``attempt(limit)`` gives: with the limit that was asked for or has proved to fit, halved whenever memory runs out.

        ``asked`` is no more than there is to do, or the first halvings would change nothing. ``undo`` takes away what a failed attempt
        leaves behind: gradients of its first micro-batches would count twice. Raises :class:`PreconditionError` after ``TRIES`` halvings.
        """
        for halvings in count():
            limit = self.limit(work, asked)
            try:
                return attempt(limit)
            except torch.OutOfMemoryError as e:
                if halvings == TRIES or limit <= 1:
                    raise PreconditionError(
                        f"out of memory with {limit} {work} at once, where {asked} were asked for; is something else on the card? "
                        "If not: checkpointing=true, shorter texts or a smaller base; `lite plan RECIPE --card GB` counts every stage"
                    ) from e
            # Only here: inside the except clause the traceback still holds the frames that failed, and their tensors.
            if undo:
                undo()
            free_unused()
            self._limits[work] = limit // 2
            log.warning("out of memory with %d %s at once; goes on with %d", limit, work, limit // 2)
        raise AssertionError("count() never ends")
