"""The shape of a base, from its ``config.json`` alone: no weights, no torch.

Where the config lies: in a model's folder, in the Hub's cache on this disk, or in ``known_models.yaml``, which holds the few figures
of well-known bases that are needed here. Nothing is asked of the network, so a base may be :class:`Unknown`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

from lite.knobs import BaseSpec
from lite.plan import tiny_folder
from lite.yamltext import near

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "olmo2", "olmo3")


class Linear(NamedTuple):
    inputs: int
    outputs: int
    bias: bool

    @property
    def weights(self) -> int:
        return self.inputs * self.outputs


@dataclass(frozen=True, kw_only=True)
class Shape:
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    vocab: int
    tied: bool
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: Literal["none", "head", "row"] = "none"  # one norm weight per head dimension (Qwen3), or per row of q and k (OLMo)

    @property
    def q_width(self) -> int:
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        return self.kv_heads * self.head_dim

    @property
    def linears(self) -> tuple[Linear, ...]:
        """The seven linear layers of one decoder layer: q, k, v, o, gate, up, down."""
        h, q, kv, m = self.hidden, self.q_width, self.kv_width, self.mlp
        attention = (Linear(h, q, self.qkv_bias), Linear(h, kv, self.qkv_bias), Linear(h, kv, self.qkv_bias), Linear(q, h, self.o_bias))
        return (*attention, Linear(h, m, self.mlp_bias), Linear(h, m, self.mlp_bias), Linear(m, h, self.mlp_bias))

    @property
    def linear_weights(self) -> int:
        """Weights of all decoder layers that are held in 4 bits."""
        return self.layers * sum(linear.weights for linear in self.linears)

    @property
    def embedding_weights(self) -> int:
        """Weights of the embedding and, unless it is tied to it, of the output head."""
        return self.vocab * self.hidden * (1 if self.tied else 2)

    @property
    def small_weights(self) -> int:
        """Norms and biases."""
        biases = sum(linear.outputs for linear in self.linears if linear.bias)
        qk = {"none": 0, "head": 2 * self.head_dim, "row": self.q_width + self.kv_width}[self.qk_norm]
        return self.layers * (2 * self.hidden + qk + biases) + self.hidden

    @property
    def parameters(self) -> int:
        return self.linear_weights + self.embedding_weights + self.small_weights

    @property
    def normed_width(self) -> int:
        """How many numbers of a token pass through the norms of one layer."""
        return 2 * self.hidden + (self.q_width + self.kv_width if self.qk_norm != "none" else 0)


class Unknown(NamedTuple):
    """No estimate can be made, why, and what can be done about it."""

    reason: str
    advice: str = ""


def from_config(config: Mapping[str, Any]) -> Shape | Unknown:
    """The shape that a Hugging Face ``config.json`` describes."""
    family = config.get("model_type")
    if family not in FAMILIES:
        return Unknown(f"no estimate for models of type {family!r}; there is one for {', '.join(FAMILIES)}")
    if config.get("quantization_config"):
        return Unknown("the model is stored quantised already; the estimate is for 16-bit checkpoints")
    try:
        hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
        biased = bool(config.get("attention_bias", False)) and family != "mistral"
        return Shape(
            hidden=hidden,
            layers=int(config["num_hidden_layers"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or (128 if family == "qwen3" else hidden // heads)),
            mlp=int(config["intermediate_size"]),
            vocab=int(config["vocab_size"]),
            tied=bool(config.get("tie_word_embeddings", False)),
            qkv_bias=biased or family == "qwen2",
            o_bias=biased and family != "qwen2",
            mlp_bias=bool(config.get("mlp_bias", False)) and family == "llama",
            qk_norm="row" if family in ("olmo2", "olmo3") else "head" if family == "qwen3" else "none",
        )
    except (KeyError, TypeError, ValueError) as e:
        return Unknown(f"its config.json cannot be made sense of ({type(e).__name__}: {e})")


def shape_of(base: BaseSpec) -> Shape | Unknown:
    """The shape of a recipe's base, as far as it can be told without the network."""
    folder = tiny_folder() if base.model == "tiny" else Path(base.model).expanduser()
    file = folder / "config.json" if folder.is_dir() else cached_config(base.model, base.revision)
    if file is not None:
        try:
            config = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as e:
            return Unknown(f"{file} cannot be read ({type(e).__name__})")
        return from_config(config) if isinstance(config, dict) else Unknown(f"{file} is no mapping")
    known = known_models().get(base.model)
    return known or _stranger(base)


def _stranger(base: BaseSpec) -> Unknown:
    fetch = f"`hf download {base.model} config.json{f' --revision {base.revision}' if base.revision else ''}` fetches its config alone"
    return Unknown(
        f"not known until the config of {base.model} can be read: it is neither in the Hub's cache nor well known here",
        f"{fetch}{near(base.model, ['tiny', *known_models()])}",
    )


def hub_cache() -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE  # reads HF_HOME and its like; 0.05 s

    return Path(HF_HUB_CACHE)


def cached_config(model: str, revision: str | None) -> Path | None:
    """The config of a Hub id in the cache: ``models--org--name/snapshots/<commit>/config.json``."""
    folder = hub_cache() / f"models--{model.replace('/', '--')}"
    wanted = revision or "main"
    try:
        commit = (folder / "refs" / wanted).read_text(encoding="utf-8").strip()
    except OSError:
        commit = wanted
    file = folder / "snapshots" / commit / "config.json"
    return file if file.is_file() else None


@cache
def known_models() -> Mapping[str, Shape]:
    """Shapes of well-known bases by Hub id, the largest first within a family."""
    table = yaml.safe_load((Path(__file__).parent / "known_models.yaml").read_text(encoding="utf-8"))
    found = {name: from_config({"model_type": family} | config) for family, models in table.items() for name, config in models.items()}
    return {name: shape for name, shape in found.items() if isinstance(shape, Shape)}
