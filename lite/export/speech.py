"""How another program is to speak with a model of ours: chat template, stop string, decoding; for transformers, vLLM and Ollama.

Exported models that babble were nearly always exported without these: a base that was trained on dialogues knows no chat format but
this one, and ends a reply with the next human tag instead of a token.
"""

import json
from collections.abc import Mapping
from typing import Any

from lite.knobs.judging import EvaluateSpec
from lite.text.dialogue import STOP, Turn, cue, render

OPEN = {"user": render([Turn("human", "")]), "assistant": render([Turn("assistant", "")])}
"""The tag of a speaker with the space behind it, by the name that chat APIs give the speaker."""


def chat_template(*, begins: bool, lead: str = "") -> str:
    """Jinja for ``tokenizer.apply_chat_template``: the same text as ``dialogue.prompt``, of turns without white space at their ends.

    begins: whether the tokenizer puts its begin-of-text token before every text; templates have to write it themselves.
    A system message is refused, since the model has never seen one.
    """
    says = "".join(
        f"{{% {word} message['role'] == '{role}' %}}{{{{ {_quoted(tag)} + (message['content'] | trim) }}}}"
        for word, (role, tag) in zip(("if", "elif"), OPEN.items(), strict=True)
    )
    refusal = "{% else %}{{ raise_exception('only user and assistant messages: this model has never seen another role') }}{% endif %}"
    opening = _quoted(_opening(lead))
    return (
        ("{{ bos_token }}" if begins else "")
        + "{% for message in messages %}"
        + says
        + refusal
        + "{% endfor %}{% if add_generation_prompt %}{{ "
        + opening
        + " }}{% endif %}"
    )


def generation_config(config: Mapping[str, Any], own: Mapping[str, Any], decoding: EvaluateSpec) -> dict[str, Any]:
    """generation_config.json: the base's ``own`` or the ids of its ``config``, our decoding, and the string that ends a reply."""
    ids = {name: config[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id") if config.get(name) is not None}
    drawn = {"do_sample": True, "temperature": decoding.temperature, "top_p": decoding.top_p, "top_k": 0}
    greedy = {"do_sample": False}
    kept = {name: value for name, value in (own or ids).items() if name not in drawn and not name.startswith(("max_", "_"))}
    how = drawn if decoding.temperature else greedy
    return {**kept, **how, "max_new_tokens": decoding.max_new_tokens, "stop_strings": [STOP]}


def modelfile(*, positions: int, decoding: EvaluateSpec, lead: str = "", source: str = ".") -> str:
    """Ollama's Modelfile. Its quoted values know no escapes, so the stop string stands there with its line breaks."""
    says = "".join(
        f'{{{{ {word} eq .Role "{role}" }}}}{{{{ {_quoted(tag)} }}}}{{{{ .Content }}}}'
        for word, (role, tag) in zip(("if", "else if"), OPEN.items(), strict=True)
    )
    template = f"{{{{ range .Messages }}}}{says}{{{{ end }}}}{{{{ end }}}}{{{{ {_quoted(_opening(lead))} }}}}"
    return (
        f"FROM {source}\n"
        f'TEMPLATE """{template}"""\n'
        f'PARAMETER stop "{STOP}"\n'
        f"PARAMETER temperature {decoding.temperature:g}\n"
        f"PARAMETER top_p {decoding.top_p:g}\n"
        f"PARAMETER top_k 0\n"
        f"PARAMETER repeat_penalty 1\n"
        f"PARAMETER num_predict {decoding.max_new_tokens}\n"
        f"PARAMETER num_ctx {positions}\n"
    )


def _opening(lead: str) -> str:
    return cue() + (f" {lead}" if lead else "")


def _quoted(text: str) -> str:
    """A string literal of Jinja and of Go's templates alike."""
    return json.dumps(text, ensure_ascii=False)
