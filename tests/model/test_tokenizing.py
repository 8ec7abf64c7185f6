"""The chat template is the dialogue, id by id: for tokenizers with and without a begin-of-text token, of both families."""

import pytest
from jinja2 import TemplateError

from lite.export.speech import chat_template
from lite.model.encoding import encode
from lite.model.tokenizing import begins_with_bos, load_tokenizer
from lite.plan import tiny_folder
from lite.text.dialogue import Turn, prompt, render

from .conftest import metaspace_tokenizer

DIALOGUES = [
    [Turn("human", "Hello there")],
    [Turn("human", "Name three fruits."), Turn("assistant", "1. apples\n2. pears\n3. plums"), Turn("human", "Thanks! “So” many?")],
]


@pytest.fixture(params=["tiny", "pico", "metaspace"])
def tokenizer(request, pico_base):
    folders = {"tiny": tiny_folder(), "pico": pico_base}
    return load_tokenizer(folders[request.param]) if request.param in folders else metaspace_tokenizer()


def messages(turns):
    return [{"role": "user" if turn.role == "human" else "assistant", "content": f" {turn.text}\n"} for turn in turns]


@pytest.mark.parametrize("turns", DIALOGUES, ids=["one turn", "three"])
@pytest.mark.parametrize("lead", ["", 'Here is "an outline":'], ids=["plain", "lead"])
def test_the_template_gives_the_ids_that_a_prompt_has(tokenizer, turns, lead):
    template = chat_template(begins=begins_with_bos(tokenizer), lead=lead)
    found = tokenizer.apply_chat_template(messages(turns), chat_template=template, add_generation_prompt=True, return_dict=True)
    assert tuple(found["input_ids"]) == encode(tokenizer, prompt(turns, lead=lead))
    text = tokenizer.apply_chat_template(messages(turns), chat_template=template, tokenize=False)
    assert text.removeprefix(tokenizer.bos_token or "") == render(turns)


def test_a_role_that_was_never_seen_is_refused(tokenizer):
    template = chat_template(begins=True)
    with pytest.raises(TemplateError, match="never seen"):
        tokenizer.apply_chat_template([{"role": "system", "content": "x"}], chat_template=template)
