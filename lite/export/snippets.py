"""The lines of code that a card shows: how what was exported is loaded and asked."""

import json
from collections.abc import Mapping
from typing import Any

from lite.export.subject import Subject
from lite.text.dialogue import STOP, Turn, prompt

ASKED = prompt([Turn("human", "How do I bake bread?")]) + " With flour and yeast." + STOP
READ_BY_OLLAMA = ("LlamaForCausalLM", "Qwen2ForCausalLM", "Olmo3ForCausalLM", "MixtralForCausalLM", "Ministral3ForCausalLM")
"""Architectures that Ollama imports from safetensors (convert/convert.go at 01cf744); others go through llama.cpp's converter."""
STOPS = (
    f"A reply ends with the start of the next human turn, {STOP!r}: a string of several tokens, none of which ends a reply by itself. It is in "
    "`generation_config.json` as a stop string, so that `transformers serve` ends there without being told. transformers looks for it with the "
    "tokenizer, which `generate` and pipelines have to be given: `model.generate(**ids, tokenizer=tokenizer)`, "
    "`pipe(asked, tokenizer=pipe.tokenizer)`. Without it they end with `There are one or more stop strings [...] but we could not locate a "
    "tokenizer`. Programs that do not read it there (vLLM, llama.cpp) have to be told, as `stop` of a request."
)


def load_adapter(subject: Subject) -> str:
    revision = f', revision="{subject.base.revision}"' if subject.base.revision else ""
    return f'''{_imports(subject)}from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

here = "."  # this folder, or this repository's id
tokenizer = AutoTokenizer.from_pretrained(here)
base = AutoModelForCausalLM.from_pretrained({_base_word(subject)}, dtype="auto"{revision})
model = PeftModel.from_pretrained(base, here).eval()
asked = [{{"role": "user", "content": "How do I bake bread?"}}]
ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
reply = model.generate(**ids, max_new_tokens={subject.decoding.max_new_tokens}, stop_strings=[{json.dumps(STOP)}], tokenizer=tokenizer)
print(tokenizer.decode(reply[0, ids["input_ids"].shape[1]:], skip_special_tokens=True).removesuffix({json.dumps(STOP)}))
'''


def load_classifier(subject: Subject, bias: float) -> str:
    return f"""{_imports(subject)}import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

here = "."  # this folder, or this repository's id
tokenizer = AutoTokenizer.from_pretrained(here)
base = AutoModelForSequenceClassification.from_pretrained({_base_word(subject)}, num_labels=1, dtype="auto")
model = PeftModel.from_pretrained(base, here).eval()
text = {json.dumps(ASKED)}  # the stop string belongs to it
with torch.no_grad():
    print(float(model(**tokenizer(text, return_tensors="pt")).logits) + {bias!r})
"""


def base_notes(subject: Subject) -> tuple[str, ...]:
    """Which base it is, where no hub has it."""
    if subject.base_on_hub:
        return ()
    if subject.base.model == "tiny":
        return ("The base is the embedded tiny base of lite: the folder `lite/micro/base` of the package, wherever lite is installed.",)
    return (
        f"The base is a folder, `{subject.base_name}`, of whoever exported this; no hub has it. Put the place where you have it into "
        f"the lines below, for `{subject.base_word}`.",
    )


def _imports(subject: Subject) -> str:
    return "from pathlib import Path\n\nimport lite\n" if subject.base.model == "tiny" else ""


def _base_word(subject: Subject) -> str:
    return 'Path(lite.__file__).parent / "micro/base"' if subject.base.model == "tiny" else json.dumps(subject.base_word)


def load_merged() -> str:
    return f"""from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

here = "."  # this folder, or this repository's id
tokenizer = AutoTokenizer.from_pretrained(here)
model = AutoModelForCausalLM.from_pretrained(here, dtype="auto").eval()
asked = [{{"role": "user", "content": "How do I bake bread?"}}]
ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
reply = model.generate(**ids, tokenizer=tokenizer)  # the tokenizer finds the stop string
print(tokenizer.decode(reply[0, ids["input_ids"].shape[1]:], skip_special_tokens=True).removesuffix({json.dumps(STOP)}))

pipe = pipeline("text-generation", here)  # or so
said = pipe(asked, tokenizer=pipe.tokenizer)[0]["generated_text"][-1]["content"]
print(said.removesuffix({json.dumps(STOP)}))
"""


def load_ollama(config: Mapping[str, Any]) -> str:
    architecture = (config.get("architectures") or ["?"])[0]
    if architecture in READ_BY_OLLAMA:
        return "ollama create my-model -f Modelfile\nollama run my-model\n"
    return (
        f"# Ollama does not read {architecture} from safetensors: convert it first, with llama.cpp's converter\n"
        "python llama.cpp/convert_hf_to_gguf.py . --outfile model.gguf\n"
        "sed -i 's/^FROM .*/FROM .\\/model.gguf/' Modelfile\n"
        "ollama create my-model -f Modelfile\nollama run my-model\n"
    )
