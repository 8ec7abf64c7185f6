"""The knobs of those who judge: RLAIF's scorer, the judges of replies head to head, and the evaluation that asks them."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from lite.knobs import NAMES_STAGES, NO_EFFECT, OwnBase, Spec, with_preset
from lite.knobs.addresses import Address

SCORE_PRESETS: Mapping[str, dict[str, Any]] = {
    # RLAIF as Yang et al. 2023 run it: one order, no examples, the odds as they are.
    "paper": {},
    # Both orders against position bias, examples, and odds kept from certainty (Bai et al. 2022, section 4.1).
    "improved": {"order": "both", "shots": 2, "clamp": 0.4},
}


class ScoreSpec(OwnBase):
    preset: Literal["paper", "improved"] = Field(default="paper", description="defaults of order, shots and clamp")
    what: Literal["candidates", "pairs"] = Field(
        default="candidates",
        description="candidates: two answers to a plain prompt, under a principle at random (RLAIF); "
        "pairs: named pairs scored again, under the principle of their own index (Rescore)",
    )
    by: Literal["base", "length"] = Field(default="base", description="length: a control that prefers the response with more words")
    order: Literal["one", "both"] = Field(default="one", description="one: drawn per pair; both: the mean of the two orders")
    shots: int = Field(default=0, ge=0, description="answered examples of the task before the question")
    clamp: float = Field(default=0.0, ge=0, lt=0.5, description="labels are kept within [clamp, 1 - clamp]")
    probe: int = Field(default=200, ge=0, description="pairs asked in the other order too, for the report alone")
    max_tokens: int = Field(default=2048, ge=16, description="a longer question is not asked: its pair is dropped, and counted")
    micro_tokens: int = Field(default=4096, ge=64, description="tokens per forward pass", json_schema_extra=NO_EFFECT)

    @model_validator(mode="before")
    @classmethod
    def fill_from_preset(cls, given: Any) -> Any:
        return with_preset(SCORE_PRESETS, "paper", given)


class EndpointSpec(Spec):
    """A chat model behind an OpenAI-compatible address. The key stays in the environment."""

    base_url: Address = Field(description="up to the part before /chat/completions, e.g. http://127.0.0.1:8000/v1")
    model: str = Field(description="the model's name on that server")
    key_env: str | None = Field(default=None, description="the environment variable that holds the key", json_schema_extra=NO_EFFECT)
    temperature: float | None = Field(default=0.0, ge=0, description="none: not sent, for models that take no temperature")
    max_tokens: int = Field(default=1024, ge=1, description="new tokens per answer")
    limit_name: Literal["max_tokens", "max_completion_tokens"] = Field(default="max_tokens", description="what the server calls it")
    timeout: float = Field(default=120.0, gt=0, description="seconds until a question is asked again", json_schema_extra=NO_EFFECT)
    attempts: int = Field(default=6, ge=1, description="requests per question", json_schema_extra=NO_EFFECT)
    concurrency: int = Field(default=4, ge=1, description="questions under way at once", json_schema_extra=NO_EFFECT)
    price_prompt: float | None = Field(default=None, ge=0, description="per million tokens", json_schema_extra=NO_EFFECT)
    price_completion: float | None = Field(default=None, ge=0, description="per million tokens", json_schema_extra=NO_EFFECT)
    cache: str | None = Field(
        default=None, description="a file of answers to share between runs; none: one of the stage's own", json_schema_extra=NO_EFFECT
    )


class PairwiseJudge(Spec):
    kind: Literal["base", "reward", "length", "oracle", "endpoint"] = Field(
        description="base: the untouched base by the odds of A and B; reward: the last reward model; length: a control that prefers "
        "more words; oracle: the embedded world's; endpoint: a chat model"
    )
    forms: tuple[str, ...] = Field(default=(), description="questions that base and endpoint are asked; none: those that fit the task")
    order: Literal["drawn", "both"] = Field(
        default="drawn", description="drawn: one order by chance (Yang et al. 2023); both: a judge that contradicts itself says tie"
    )
    versus: tuple[str, ...] = Field(default=("base",), min_length=1, description="the models that every other one is compared with")
    prompts: int | None = Field(default=None, ge=1, description="test prompts that are compared; none: all")
    readable: float = Field(default=0.5, ge=0, le=1, description="share of the verdicts that must be readable")
    endpoint: EndpointSpec | None = Field(default=None, description="where the endpoint is")

    @model_validator(mode="before")
    @classmethod
    def a_kind_alone(cls, given: Any) -> Any:
        return {"kind": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def endpoint_where_one_is_asked(self) -> "PairwiseJudge":
        if (self.kind == "endpoint") != (self.endpoint is not None):
            raise ValueError("`kind: endpoint` and `endpoint: {base_url: ..., model: ...}` go together")
        return self


class EvaluateSpec(Spec):
    against: tuple[str, ...] = Field(
        default=("base",),
        description="other models on the same prompts: base, p_plus, or the id of a stage that gives a policy",
        json_schema_extra=NAMES_STAGES,
    )
    draws: int = Field(default=3, ge=1, description="replies per prompt; each draw is one evaluation of the whole test split")
    prompts: int | None = Field(default=None, ge=1, description="test prompts used; none: all")
    temperature: float = Field(default=1.0, ge=0)
    top_p: float = Field(default=0.9, gt=0, le=1)
    max_new_tokens: int = Field(default=300, ge=1)
    judges: tuple[PairwiseJudge, ...] = Field(
        default=(), description="who compares replies head to head: base, reward, length, oracle, or {kind: endpoint, endpoint: ...}"
    )
    labels_under: str | None = Field(
        default=None,
        description="a stage that gives a reward model, such as one trained on human pairs: how often the labels of all pairs agree with it",
        json_schema_extra=NAMES_STAGES,
    )
    side_by_side: int = Field(default=8, ge=0, description="prompts whose replies the report shows")
    batch_rows: int = Field(default=64, ge=1, description="responses decoded at once", json_schema_extra=NO_EFFECT)

    @field_validator("against")
    @classmethod
    def named_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) != len(names):
            raise ValueError("a model is named twice")
        return names
