"""Pairs of two makers in one set: a share of labelled ones in place of as many simulated ones (Yang et al. 2023 mix in 20%).

The size stays that of the simulated set, so that what is compared differs in its labels and not in its amount. Both draws are by
hash; a dialogue comes from one of the two.
"""

from pathlib import Path

from lite.artifacts import Pairs
from lite.errors import ArtifactError
from lite.evaluate import diagnostics
from lite.knobs.writing import MixSpec
from lite.records import Pair, write_rows
from lite.runs.publish import write_json
from lite.stages.bench import Bench


def mix(spec: MixSpec, *, pairs: Pairs, human: Pairs | None, out: Path, bench: Bench) -> Pairs:
    if human is None:
        raise ArtifactError(f"{bench.stage}: which pairs are mixed in is to be named: from: {{human: ID}}")
    simulated = pairs.rows()
    wanted = round(spec.share * len(simulated))
    taken = _drawn(human.rows(), wanted, "human", bench)
    if len(taken) < wanted:
        raise ArtifactError(f"{human.path}: {len(taken)} pairs, but a share of {spec.share:g} of {len(simulated)} needs {wanted}")
    prompts = {pair.prompt for pair in taken}
    kept = _drawn([pair for pair in simulated if pair.prompt not in prompts], len(simulated) - wanted, "simulated", bench)
    rows = [*taken, *kept]
    write_rows(out / "pairs.jsonl", rows)
    report = {"pairs": len(rows), "human": len(taken), "simulated": len(kept), "dropped": {}}
    write_json(out / "report.json", report | diagnostics.describe(rows, bench.task.name))
    bench.log(f"{len(rows)} pairs, {len(taken)} of them labelled by people")
    return Pairs(out)


def _drawn(rows: list[Pair], n: int, what: str, bench: Bench) -> list[Pair]:
    return sorted(rows, key=lambda pair: bench.seed_for(what, pair.id))[:n]
