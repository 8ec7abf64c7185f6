"""The knobs of the stages that gather prompts and write or fetch responses and pairs."""

from typing import Literal

from pydantic import Field, model_validator

from lite.knobs import NO_EFFECT, BaseSpec, OwnBase, Spec
from lite.knobs.addresses import Address


class ServerSpec(Spec):
    """A base model behind an OpenAI-compatible address, asked to go on with texts (``/completions``). The key stays in the environment."""

    base_url: Address = Field(description="up to the part before /completions, e.g. http://127.0.0.1:8000/v1", json_schema_extra=NO_EFFECT)
    model: str = Field(description="the model's name on that server; an untouched base, as the stage's own would be")
    key_env: str | None = Field(default=None, description="the environment variable that holds the key", json_schema_extra=NO_EFFECT)
    timeout: float = Field(default=600.0, gt=0, description="seconds until a text is asked for again", json_schema_extra=NO_EFFECT)
    tries: int = Field(default=6, ge=1, description="requests per text", json_schema_extra=NO_EFFECT)
    concurrency: int = Field(default=64, ge=1, description="texts under way at once", json_schema_extra=NO_EFFECT)


def _one_writer(base: BaseSpec | None, server: ServerSpec | None) -> None:
    if base and server:
        raise ValueError("base and server exclude each other: one of them writes")


class PromptsSpec(Spec):
    source: str = Field(
        default="micro",
        description="`micro` (the embedded world), `hh-rlhf`, `oasst1` or `oasst2` (the Hub), a .jsonl, .csv or .txt file, "
        "or a folder with train and test files",
    )
    subset: Literal["harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled"] | None = Field(
        default=None, description="part of hh-rlhf; none: harmless-base or helpful-base, whichever the task is"
    )
    revision: str | None = Field(default=None, description="branch, tag or commit of a source on the Hub")
    train: int = Field(default=600, ge=1, description="prompts for pairs and rollouts")
    dev: int = Field(default=100, ge=0, description="prompts for choices such as the best checkpoint")
    test: int = Field(default=300, ge=1, description="prompts of the final evaluation, touched once")
    min_words: int | None = Field(
        default=None, ge=1, description="shorter prompts are left out, and counted; words of the premise, else of all turns"
    )
    max_words: int | None = Field(
        default=None, ge=1, description="longer prompts are left out, and counted; PPO leaves out by tokens besides"
    )

    @model_validator(mode="after")
    def knobs_fit_the_source(self) -> "PromptsSpec":
        if self.source != "hh-rlhf" and self.subset:
            raise ValueError(f"subset belongs to the source hh-rlhf, not to {self.source}")
        if self.source not in ("hh-rlhf", "oasst1", "oasst2") and self.revision:
            raise ValueError(f"revision belongs to the sources hh-rlhf, oasst1 and oasst2, not to {self.source}")
        if self.source == "micro" and (self.min_words or self.max_words):
            raise ValueError("min_words and max_words do not act on the embedded world (source: micro)")
        if self.min_words and self.max_words and self.min_words > self.max_words:
            raise ValueError(f"min_words ({self.min_words}) is larger than max_words ({self.max_words})")
        return self


class ContrastSpec(OwnBase):
    temperature: float = Field(default=1.0, ge=0, description="0 is greedy")
    top_p: float = Field(default=1.0, gt=0, le=1)
    server: ServerSpec | None = Field(
        default=None, description="an OpenAI-compatible server (vLLM ...) that writes in place of a base loaded here: its {base_url, model}"
    )
    max_new_tokens: int = Field(default=300, ge=1, description="a response that has not ended by then is rejected")
    attempts: int = Field(default=5, ge=1, description="draws per side before the pair is dropped")
    shared_prefix: bool = Field(default=True, description="prefill what p+ and p- share once", json_schema_extra=NO_EFFECT)
    batch_rows: int = Field(default=64, ge=1, description="responses decoded at once", json_schema_extra=NO_EFFECT)

    @model_validator(mode="after")
    def one_writer(self) -> "ContrastSpec":
        _one_writer(self.base, self.server)
        return self


class PreferencesSpec(Spec):
    source: str = Field(
        default="micro",
        description="`micro` (the embedded world's oracle), `hh-rlhf` (people, from the Hub), a .jsonl or .csv file of labelled pairs, "
        "or a folder with a train file",
    )
    subset: Literal["harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled"] | None = Field(
        default=None, description="part of hh-rlhf; none: harmless-base or helpful-base, whichever the task is"
    )
    revision: str | None = Field(default=None, description="branch, tag or commit of hh-rlhf")
    pairs: int = Field(default=600, ge=2, description="pairs wanted; of the embedded world: train prompts asked, ties are dropped")
    max_words: int | None = Field(default=None, ge=1, description="pairs with a longer prompt are left out, and counted")

    @model_validator(mode="after")
    def knobs_fit_the_source(self) -> "PreferencesSpec":
        if self.source != "hh-rlhf" and (self.subset or self.revision):
            raise ValueError(f"subset and revision belong to the source hh-rlhf, not to {self.source}")
        if self.source == "micro" and self.max_words:
            raise ValueError("max_words does not act on the embedded world (source: micro)")
        return self


class MixSpec(Spec):
    share: float = Field(default=0.2, gt=0, lt=1, description="share of the result that the pairs named by `from: {human: ID}` make up")


class RespondSpec(OwnBase):
    n: int = Field(default=2, ge=1, description="candidates per prompt; two for RLAIF, four for self-rewarding")
    split: Literal["train", "dev", "test"] = Field(default="train", description="which prompts are answered")
    temperature: float = Field(default=1.0, ge=0, description="0 is greedy")
    top_p: float = Field(default=1.0, gt=0, le=1)
    server: ServerSpec | None = Field(
        default=None, description="an OpenAI-compatible server (vLLM ...) that writes in place of a base loaded here: its {base_url, model}"
    )
    max_new_tokens: int = Field(default=300, ge=1, description="a response that has not ended by then is rejected")
    attempts: int = Field(default=5, ge=1, description="draws before a candidate is left out")
    shared_prefix: bool = Field(default=True, description="prefill the prompt once for its candidates", json_schema_extra=NO_EFFECT)
    batch_rows: int = Field(default=64, ge=1, description="responses decoded at once", json_schema_extra=NO_EFFECT)

    @model_validator(mode="after")
    def one_writer(self) -> "RespondSpec":
        _one_writer(self.base, self.server)
        return self
