"""The whole system on one page: every kind of stage, its knobs, what it reads and what it gives. Torch-free.

A stage of kind ``k`` is the function ``lite.stages.k.k(spec, *, <reads>, out, bench)``; a test holds function and table together.
Inputs are found by type: the latest artifact of that type before the stage, unless ``from:`` names another stage.
A knob marked NO_EFFECT cannot change the result (speed and memory only) and is left out of the stage's fingerprint.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from lite.artifacts import Artifact, Candidates, Evaluation, Examples, Judgements, Pairs, Policy, Prompts, Reward, Round, Seed
from lite.knobs import Spec
from lite.knobs.judging import EvaluateSpec, ScoreSpec
from lite.knobs.ppo import PpoSpec
from lite.knobs.rounds import BestSpec, EftSpec, GateSpec, InstructSpec, JudgeSpec, PairSpec, SeedSpec
from lite.knobs.training import DpoSpec, RewardSpec, SftSpec
from lite.knobs.writing import ContrastSpec, MixSpec, PreferencesSpec, PromptsSpec, RespondSpec


@dataclass(frozen=True)
class Need:
    """One input of a stage. ``many``: all earlier artifacts of the type, as a mapping by stage id. ``optional``: None if there is none.

    ``named``: taken only where ``from`` names it, never because it happens to be the latest; such an input is optional.
    """

    type: type[Artifact]
    many: bool = False
    optional: bool = False
    named: bool = False

    def __post_init__(self) -> None:
        if self.named and not (self.optional or self.many):
            raise ValueError("a named input is optional")


@dataclass(frozen=True)
class Contract:
    kind: str
    spec: type[Spec]
    gives: type[Artifact]
    version: int
    reads: Mapping[str, Need] = field(default_factory=dict)
    uses_base: bool = True
    about: str = ""
    templates: tuple[str, ...] = ()
    """what its prompts are written with; their hashes are part of the stage's identity"""


QUESTIONS = tuple(f"question_{form}" for form in ("harmless", "helpful", "helpful_on_harmless", "outline"))
"""The templates of what a judge of two replies is asked."""

CONTRACTS: Mapping[str, Contract] = {
    c.kind: c
    for c in (
        Contract("prompts", PromptsSpec, Prompts, 1, uses_base=False, about="dialogues that wait for an answer, in three splits"),
        Contract("contrast", ContrastSpec, Pairs, 1, {"prompts": Need(Prompts)}, about="RLCD pairs: one answer under p+, one under p-"),
        Contract(
            "preferences",
            PreferencesSpec,
            Pairs,
            1,
            {"prompts": Need(Prompts)},
            uses_base=False,
            about="pairs that people labelled; in the embedded world the oracle",
        ),
        Contract(
            "mix",
            MixSpec,
            Pairs,
            1,
            {"pairs": Need(Pairs), "human": Need(Pairs, optional=True, named=True)},
            uses_base=False,
            about="a share of labelled pairs in place of as many others",
        ),
        Contract(
            "respond",
            RespondSpec,
            Candidates,
            1,
            {"prompts": Need(Prompts), "policy": Need(Policy, optional=True, named=True)},
            about="several answers of the base, or of a policy that is named, to each plain prompt",
        ),
        Contract(
            "score",
            ScoreSpec,
            Pairs,
            1,
            {"candidates": Need(Candidates, optional=True), "pairs": Need(Pairs, optional=True, named=True)},
            about="soft labels: the base chooses between two responses by the odds of A and B (RLAIF, and Rescore of named pairs)",
            templates=("choice",),
        ),
        Contract("reward", RewardSpec, Reward, 1, {"pairs": Need(Pairs)}, about="a reward adapter and scalar head from preference pairs"),
        Contract(
            "ppo",
            PpoSpec,
            Policy,
            1,
            {"prompts": Need(Prompts), "reward": Need(Reward), "policy": Need(Policy, optional=True, named=True)},
            about="PPO against the reward model: start and reference are the base, or the policy that is named",
        ),
        Contract(
            "seed",
            SeedSpec,
            Seed,
            1,
            {"prompts": Need(Prompts)},
            uses_base=False,
            about="instructions with answers, and answers that people ranked; none of them is held out",
        ),
        Contract(
            "eft",
            EftSpec,
            Examples,
            1,
            {"seed": Need(Seed), "policy": Need(Policy)},
            about="judging to learn: reviews that rank as people do",
        ),
        Contract(
            "instruct",
            InstructSpec,
            Prompts,
            1,
            {"seed": Need(Seed), "prompts": Need(Prompts, many=True), "policy": Need(Policy, optional=True, named=True)},
            about="new prompts, written after examples and filtered",
        ),
        Contract(
            "judge",
            JudgeSpec,
            Judgements,
            1,
            {"candidates": Need(Candidates), "policy": Need(Policy)},
            about="scores from 0 to 5 for every candidate, several times each, with their reasons",
        ),
        Contract(
            "pair",
            PairSpec,
            Pairs,
            1,
            {
                "candidates": Need(Candidates),
                "judgements": Need(Judgements),
                "second": Need(Judgements, optional=True, named=True),
                "anchors": Need(Candidates, optional=True, named=True),
                "anchor_judgements": Need(Judgements, optional=True, named=True),
            },
            uses_base=False,
            about="the best candidate against the worst, by the mean of its judgements",
        ),
        Contract(
            "best",
            BestSpec,
            Examples,
            1,
            {"candidates": Need(Candidates), "judgements": Need(Judgements)},
            uses_base=False,
            about="examples of the candidates that the judge finds perfect, in place of pairs",
        ),
        Contract(
            "gate",
            GateSpec,
            Round,
            1,
            {
                "policy": Need(Policy),
                "before": Need(Policy, optional=True, named=True),
                "baseline": Need(Policy, optional=True, named=True),
                "seed": Need(Seed),
                "prompts": Need(Prompts),
                "pairs": Need(Pairs, optional=True),
                "judgements": Need(Judgements, optional=True),
                "rounds": Need(Round, many=True),
            },
            about="a round's figures beside those of the model before it; a round that made it worse is refused",
            templates=("choice", *QUESTIONS),
        ),
        Contract(
            "sft",
            SftSpec,
            Policy,
            1,
            {
                "pairs": Need(Pairs, optional=True),
                "examples": Need(Examples, many=True),
                "policy": Need(Policy, optional=True, named=True),
            },
            about="supervised training on responses: of the base, or of the policy that is named",
        ),
        Contract(
            "dpo",
            DpoSpec,
            Policy,
            1,
            {
                "pairs": Need(Pairs),
                "policy": Need(Policy, optional=True, named=True),
                "prompts": Need(Prompts, optional=True, named=True),
            },
            about="DPO on preference pairs: start and reference are the base, or the policy that is named",
        ),
        Contract(
            "evaluate",
            EvaluateSpec,
            Evaluation,
            1,
            {
                "prompts": Need(Prompts),
                "pairs": Need(Pairs, many=True),
                "reward": Need(Reward, many=True),
                "policies": Need(Policy, many=True),
                "rounds": Need(Round, many=True),
            },
            about="held-out replies of every model, judged and laid side by side",
            templates=("choice", "pairwise", *QUESTIONS),
        ),
    )
}
