"""Responses of a role, drawn by shard: what ``generate`` gives, kept in the stage's journal as it comes."""

from collections.abc import Sequence

from lite.model.bank import AdapterBank
from lite.model.generate import Decoding, Generated, generate
from lite.stages.bench import Bench, Progress

BATCHES = 4
"""Batches in a shard: enough to sort them by length, and a minute or two of work at most."""


def draw(
    bench: Bench,
    name: str,
    bank: AdapterBank,
    role: str | None,
    prompts: Sequence[Sequence[int]],
    *,
    keys: Sequence[str],
    seeds: Sequence[int],
    decoding: Decoding,
    rows: int,
    groups: Sequence[int] | None = None,
    bar: Progress | None = None,
) -> list[Generated]:
    """One response per prompt, in their order; the other arguments are those of ``generate`` and of ``Bench.by_shard``."""

    def make(which: list[int]) -> list[Generated]:
        left = len(which)

        def done(n: int, tokens: int) -> None:
            nonlocal left
            left -= n
            if bar:
                bar.advance(n, tokens=tokens)
            if left:  # after the last batch the shard is kept first
                bench.pause_inside()

        return generate(
            bank,
            role,
            [prompts[i] for i in which],
            seeds=[seeds[i] for i in which],
            decoding=decoding,
            rows=rows,
            groups=[groups[i] for i in which] if groups is not None else None,
            done=done,
        )

    found = bench.by_shard(name, keys, make, size=BATCHES * rows, groups=groups, bar=bar)
    return [Generated(tuple(ids), text, stop) for ids, text, stop in found]
