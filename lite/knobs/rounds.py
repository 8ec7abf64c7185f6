"""The knobs of the self-rewarding loop (Yuan et al. 2024), stage by stage. Defaults are the paper's."""

from pydantic import Field, field_validator, model_validator

from lite import templates
from lite.errors import RecipeError
from lite.knobs import NO_EFFECT, Spec
from lite.text.judging import check_template


class SeedSpec(Spec):
    source: str = Field(
        default="micro", description="`micro` (the embedded world), `oasst1` or `oasst2` (the Hub), or a .jsonl file of ranked responses"
    )
    revision: str | None = Field(default=None, description="branch, tag or commit of oasst1 or oasst2")
    ift: int = Field(
        default=3200, ge=1, description="instructions with their best response, to learn following them; at most, where people wrote them"
    )
    ranked: int = Field(default=600, ge=1, description="instructions with ranked responses, to learn judging")
    judged: int = Field(default=180, ge=1, description="instructions with ranked responses on which judges are measured, never trained on")
    responses: int = Field(default=4, ge=2, description="most ranked responses per instruction")
    good: float = Field(
        default=0.5, ge=0, le=1, description="embedded world: share of instruction responses that are good; the rest is medium"
    )

    @model_validator(mode="after")
    def knobs_fit_the_source(self) -> "SeedSpec":
        if self.revision and not self.source.startswith("oasst"):
            raise ValueError(f"revision belongs to the sources oasst1 and oasst2, not to {self.source}")
        return self


class JudgingSpec(Spec):
    """How a model is asked for judgements; the same decoding as for candidates."""

    template: str = Field(default="judge_additive", description="the judge's prompt: a built-in template or a .txt file")
    draws: int = Field(default=3, ge=1, description="judgements per response; their mean counts")
    temperature: float = Field(default=0.7, ge=0, description="0 is greedy, and all draws are the same then")
    top_p: float = Field(default=0.9, gt=0, le=1)
    max_new_tokens: int = Field(default=200, ge=8, description="a judgement that has not ended by then cannot be read")
    shared_prefix: bool = Field(default=True, description="prefill the prompt of a response's judgements once", json_schema_extra=NO_EFFECT)
    batch_rows: int = Field(default=64, ge=1, description="judgements decoded at once", json_schema_extra=NO_EFFECT)

    @field_validator("template")
    @classmethod
    def can_judge(cls, name: str) -> str:
        try:
            check_template(templates.load(name))
        except RecipeError as e:
            raise ValueError(e.problems[0]) from e
        return name


class EftSpec(JudgingSpec):
    draws: int = Field(default=8, ge=1, description="judgements of an instruction's responses, until their order is the people's")
    commonest: float = Field(
        default=0.4, gt=0, le=1, description="largest share that the commonest score may have; the rest of it is dropped"
    )


class JudgeSpec(JudgingSpec):
    adaptive: bool = Field(
        default=False, description="no more judgements where the best and the worst candidate of a prompt can no longer change"
    )
    min_readable: float = Field(default=0.5, ge=0, le=1, description="smaller shares of readable judgements end the run")


class InstructSpec(Spec):
    template: str = Field(
        default="instruct_eight", description="the writer's prompt: a built-in template or a .txt file; its last line leads"
    )
    prompts: int = Field(default=5000, ge=1, description="new prompts wanted")
    seed_shots: int = Field(default=6, ge=1, description="examples from the seed in the writer's prompt")
    own_shots: int = Field(default=2, ge=0, description="examples that were kept before, as soon as there are so many")
    temperature: float = Field(default=0.6, ge=0)
    top_p: float = Field(default=0.9, gt=0, le=1)
    max_new_tokens: int = Field(default=200, ge=4, description="a prompt that has not ended by then is dropped")
    min_words: int = Field(default=4, ge=1, description="shorter prompts are dropped")
    max_words: int = Field(default=150, ge=1, description="longer prompts are dropped")
    alike: float = Field(default=0.7, gt=0, le=1, description="ROUGE-L F1 above which a prompt is too much like a seed or an earlier one")
    not_text: bool = Field(default=True, description="drop prompts about images, files, maps and other things that are no text")
    per_pass: int = Field(default=128, ge=1, description="prompts drawn before those that were kept can be examples")
    most_drawn: int = Field(default=8, ge=1, description="gives up after so many draws per prompt wanted")
    batch_rows: int = Field(default=64, ge=1, description="prompts decoded at once", json_schema_extra=NO_EFFECT)

    @field_validator("template")
    @classmethod
    def can_ask(cls, name: str) -> str:
        try:
            slots = templates.load(name).slots
        except RecipeError as e:
            raise ValueError(e.problems[0]) from e
        if slots != {"examples"}:
            raise ValueError(f"a writer's template has the one slot {{examples}}; {name!r} has {', '.join(sorted(slots)) or 'none'}")
        return name


class PairSpec(Spec):
    rho: float = Field(
        default=0.0, ge=0, lt=0.5, description="length control: how near to the best score counts as best, as a share of the range"
    )
    min_gap: float = Field(default=0.0, ge=0, le=5, description="points that chosen and rejected are apart at least")
    most_ties: float = Field(default=0.95, gt=0, le=1, description="a larger share of prompts whose candidates all tie ends the run")
    min_pairs: int = Field(default=8, ge=1, description="fewer pairs end the run")


class BestSpec(Spec):
    at_least: float = Field(default=5.0, ge=0, le=5, description="mean score that a response must have")


class AnsweringSpec(Spec):
    """How models are compared by what they write on held-out prompts."""

    judging: JudgingSpec = JudgingSpec()
    prompts: int = Field(default=253, ge=1, description="dev prompts that every model answers")
    temperature: float = Field(default=0.7, ge=0)
    top_p: float = Field(default=0.9, gt=0, le=1)
    max_new_tokens: int = Field(default=300, ge=1)
    batch_rows: int = Field(default=64, ge=1, description="responses decoded at once", json_schema_extra=NO_EFFECT)


class CompareSpec(AnsweringSpec):
    every: int = Field(default=200, ge=1, description="steps between two adapters that are compared; the last one always is")


class GateSpec(AnsweringSpec):
    judge_drop: float = Field(default=0.1, ge=0, description="most that the judge's pairwise accuracy may fall below the model before")
    min_readable: float = Field(default=0.8, ge=0, le=1, description="smallest share of the model's judgements that can be read")
    longer: float = Field(default=1.6, gt=1, description="most that replies may be longer than those of the model before, as a factor")
    min_ended: float = Field(default=0.8, ge=0, le=1, description="smallest share of replies that end by themselves")
    min_win_rate: float = Field(
        default=0.4, ge=0, le=1, description="least win rate of the model's replies against those of the model before; a tie is one half"
    )
    min_change: float = Field(
        default=1e-4,
        ge=0,
        description="least change of the adapter's weights in its training, as a share of their norm: less is a stalled one",
    )
    both_orders: bool = Field(
        default=False,
        description="let the untouched base choose between the replies of two models too, in both orders: a choice that turns is a tie",
    )
    refuse: bool = Field(default=True, description="end the run where a gate is shut; false: only say so")
