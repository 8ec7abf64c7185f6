"""Which stage reads what: every input of every stage is found by type, or named by ``from``."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from lite.artifacts import Artifact, Policy, Reward
from lite.contracts import CONTRACTS, Need
from lite.knobs import OwnBase, Spec, served
from lite.knobs.judging import EvaluateSpec, ScoreSpec
from lite.knobs.training import DpoSpec, SftSpec
from lite.knobs.writing import MixSpec
from lite.yamltext import hint, shown

Wire = str | tuple[str, ...] | None
"""Where an input comes from: a stage, several (``many``), or nowhere (``optional``)."""


class Entry(Protocol):
    kind: str
    id: str
    source: Any
    spec: Spec | None

    @property
    def aliases(self) -> tuple[str, ...]:
        """Names that stand for stages where this entry is."""
        ...

    def place(self, *path: str | int) -> str: ...


def wire(entries: Sequence[Entry], problems: list[str]) -> list[dict[str, Wire]]:
    """The inputs of every stage, by the names of its contract. What cannot be wired is added to the problems."""
    all_known = all(entry.kind in CONTRACTS for entry in entries)
    earlier: dict[str, type[Artifact]] = {}
    found: list[dict[str, Wire]] = []
    for entry in entries:
        inputs: dict[str, Wire] = {}
        if entry.kind in CONTRACTS:
            contract = CONTRACTS[entry.kind]
            named = _named(entry, contract.reads, earlier, problems)
            for param, need in contract.reads.items():
                inputs[param] = _checked(entry, param, need, named[param], earlier, problems) if param in named else _latest(need, earlier)
                missing = inputs[param] is None and not need.optional and param not in named
                if missing and all_known:  # an unknown kind may be the very stage that is missed here
                    problems.append(f"{entry.place()}: reads {_words(need)} ({param}), and no stage before it gives one{_giver(need)}")
            _against(entry, inputs, problems)
            if all_known:
                _targets(entry, inputs, problems)
                _mixed(entry, inputs, problems)
            _scored(entry, inputs, problems)
            _compared(entry, inputs, problems)
            _adapters(entry, inputs, earlier, problems)
            _served(entry, inputs, problems)
            earlier[entry.id] = contract.gives
        found.append(inputs)
    return found


def _latest(need: Need, earlier: Mapping[str, type[Artifact]]) -> Wire:
    fitting = [] if need.named else [id for id, gives in earlier.items() if issubclass(gives, need.type)]
    if need.many:
        return tuple(fitting)
    return fitting[-1] if fitting else None


def _named(entry: Entry, reads: Mapping[str, Need], earlier: Mapping[str, type[Artifact]], problems: list[str]) -> dict[str, list[str]]:
    """``from`` as ids by input: it is a mapping, or one id, or a list of ids, each of which goes to the input of its type."""
    source = entry.source
    if source is None:
        return {}
    if isinstance(source, str | list):
        named: dict[str, list[str]] = {}
        for id in [source] if isinstance(source, str) else source:
            params = [param for param, need in reads.items() if issubclass(earlier.get(str(id), object), need.type)]
            if params:
                named.setdefault(params[0], []).append(str(id))
            else:
                problems.append(f"{entry.place('from')}: {_why_not(entry, str(id), earlier, f'{entry.kind} reads no such thing')}")
        return named
    if not isinstance(source, dict):
        problems.append(f"{entry.place('from')}: a mapping such as {{reward: some_id}} is needed (got {shown(source)})")
        return {}
    for param in source:
        if param not in reads:
            problems.append(f"{entry.place('from', str(param))}: {entry.kind} has no such input{hint(str(param), reads)}")
    return {param: ids if isinstance(ids, list) else [ids] for param, ids in source.items() if param in reads}


def _checked(
    entry: Entry, param: str, need: Need, ids: list[Any], earlier: Mapping[str, type[Artifact]], problems: list[str]
) -> Wire:  # fmt: skip
    fitting = [id for id in ids if isinstance(id, str) and issubclass(earlier.get(id, object), need.type)]
    for id in ids:
        if id not in fitting:
            problems.append(f"{entry.place('from', param)}: {_why_not(entry, id, earlier, f'{param} is {_words(need)}')}")
    if need.many:
        return tuple(dict.fromkeys(fitting))
    if len(ids) > 1:
        problems.append(f"{entry.place('from', param)}: one stage is needed (got {shown(ids)})")
    return fitting[-1] if fitting else None


def _why_not(entry: Entry, id: Any, earlier: Mapping[str, type[Artifact]], otherwise: str) -> str:
    if not isinstance(id, str) or id not in earlier:
        return f"no stage before this one has the id {shown(id)}{hint(str(id), [*entry.aliases, *earlier])}"
    return f"{id!r} gives {earlier[id].__name__}, but {otherwise}"


def _against(entry: Entry, inputs: Mapping[str, Wire], problems: list[str]) -> None:
    """The models that an evaluation names must be there."""
    if isinstance(entry.spec, EvaluateSpec):
        known = ("base", "p_plus", *(inputs.get("policies") or ()))
        named = {entry.place("against"): entry.spec.against}
        named |= {entry.place("judges", i, "versus"): judge.versus for i, judge in enumerate(entry.spec.judges)}
        for place, names in named.items():
            problems += [f"{place}: no model {name!r} here{hint(name, known)}" for name in names if name not in known]
        rewards, wanted = inputs.get("reward") or (), entry.spec.labels_under
        if wanted is not None and wanted not in rewards:
            problems.append(f"{entry.place('labels_under')}: no reward model {wanted!r} here{hint(wanted, rewards)}")


def _scored(entry: Entry, inputs: Mapping[str, Wire], problems: list[str]) -> None:
    """What a scorer is told to score must be there."""
    if isinstance(entry.spec, ScoreSpec) and inputs.get(entry.spec.what) is None and not any(p.startswith(entry.place()) for p in problems):
        how = (
            "put `- respond` before it" if entry.spec.what == "candidates" else "name the stage that gives them: `from: {pairs: contrast}`"
        )
        problems.append(f"{entry.place()}: scores {entry.spec.what}, and reads none; {how}")


def _compared(entry: Entry, inputs: Mapping[str, Wire], problems: list[str]) -> None:
    """Checkpoints are compared on prompts that the recipe names."""
    if isinstance(entry.spec, DpoSpec) and (entry.spec.compare is None) != (inputs.get("prompts") is None):
        missing = "name the stage whose dev prompts they answer, `from: {prompts: ID}`"
        told = (
            missing if entry.spec.compare else "nothing is compared on the prompts that `from` names; give compare too, or leave them out"
        )
        problems.append(f"{entry.place('compare')}: {told}")


def _targets(entry: Entry, inputs: Mapping[str, Wire], problems: list[str]) -> None:
    """What supervised training learns must be there."""
    if isinstance(entry.spec, SftSpec):
        param = "pairs" if entry.spec.targets == "chosen" else "examples"
        if not inputs.get(param):
            need = CONTRACTS[entry.kind].reads[param]
            problems.append(
                f"{entry.place('targets')}: {entry.spec.targets} needs {_words(need)}, and no stage before it gives any{_giver(need)}"
            )


def _mixed(entry: Entry, inputs: Mapping[str, Wire], problems: list[str]) -> None:
    """What is mixed are two sets of pairs, and the recipe says which of them is the labelled one."""
    if isinstance(entry.spec, MixSpec):
        if inputs.get("human") is None:
            problems.append(f"{entry.place('from')}: name the stage whose pairs are mixed in, `from: {{human: ID}}`")
        elif inputs["human"] == inputs.get("pairs"):
            problems.append(
                f"{entry.place('from')}: {inputs['human']} would be mixed with itself; name both, `from: {{pairs: ID, human: ID}}`"
            )


def _adapters(entry: Entry, inputs: Mapping[str, Wire], earlier: Mapping[str, type[Artifact]], problems: list[str]) -> None:
    """Adapters are made on the run's base and do nothing on another one."""
    if isinstance(entry.spec, OwnBase) and entry.spec.base:
        for param, found in inputs.items():
            ids = (found,) if isinstance(found, str) else found or ()
            problems += [
                f"{entry.place('base')}: {id!r} ({param}) is an adapter of the run's base; leave out one of the two"
                for id in ids
                if earlier[id] in (Policy, Reward)
            ]


def _served(entry: Entry, inputs: Mapping[str, Wire], problems: list[str]) -> None:
    """A server writes with a base: which adapter it has loaded cannot be seen."""
    if entry.spec and served(entry.spec) and (policy := inputs.get("policy")):
        problems.append(
            f"{entry.place('server')}: whether it writes with {policy!r} (policy) cannot be seen from here; leave out one of the two"
        )


def _words(need: Need) -> str:
    return f"a {need.type.__name__}" if need.type is Policy else need.type.__name__


def _giver(need: Need) -> str:
    reads_it = {kind for kind, contract in CONTRACTS.items() if any(n.type is need.type and not n.named for n in contract.reads.values())}
    kinds = [f"`- {kind}`" for kind, contract in CONTRACTS.items() if issubclass(contract.gives, need.type) and kind not in reads_it]
    return f"; put {' or '.join(kinds)} before it" if kinds else ""
