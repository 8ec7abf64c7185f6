"""Text to ids and back: prompt + response is what the model reads, whatever the tokenizer does with spaces."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lite.model.encoding import Row, common_prefix, decode, encode, encode_row
from lite.text.dialogue import STOP

from .conftest import byte_level_tokenizer, metaspace_tokenizer

TOKENIZERS = {"byte level": byte_level_tokenizer(), "metaspace": metaspace_tokenizer()}
PROMPT = "\n\nHuman: Name three fruits.\n\nAssistant:"
RESPONSES = [
    " apples",
    " 1. apples\n2. pears",
    "\n1. apples",
    " Hello , there .",
    " naïve 你好 😀!",
    "  two spaces",
    "x",
    " thanks" + STOP,
    "\n\nHuman:",
]


@pytest.fixture(params=TOKENIZERS)
def tok(request) -> PreTrainedTokenizerFast:
    return TOKENIZERS[request.param]


@pytest.mark.parametrize("response", RESPONSES)
def test_prompt_and_response_are_the_text_encoded_as_one(tok, response):
    row = encode_row(tok, PROMPT, response)
    assert row.prompt + row.response == encode(tok, PROMPT + response)
    assert row.prompt == encode(tok, PROMPT)  # nothing of these responses melts into the colon
    assert row.prompt[0] == tok.bos_token_id
    assert tok.eos_token_id not in row.prompt + row.response
    assert len(row) == len(row.prompt) + len(row.response)


@pytest.mark.parametrize("response", RESPONSES)
def test_a_response_comes_back_to_the_letter(tok, response):
    row = encode_row(tok, PROMPT, response)
    assert decode(tok, row.response, after=row.prompt[-1]) == response


def test_without_the_token_before_the_leading_space_would_be_lost():
    """What ``after`` is for."""
    tok = TOKENIZERS["metaspace"]
    row = encode_row(tok, PROMPT, " apples")
    assert tok.decode(row.response) == "apples"


def test_end_tokens_are_not_text(tok):
    row = encode_row(tok, PROMPT, " apples")
    assert decode(tok, [*row.response, tok.eos_token_id], after=row.prompt[-1]) == " apples"


def test_decoding_does_not_tidy_up_spaces():
    """A tokenizer may ask for " ." to become ".": then the text would not be what its ids say, and its beginning would be cut."""
    words = Tokenizer(models.WordLevel({"<unk>": 0, "Assistant": 1, ".": 2, "well": 3}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    tok = PreTrainedTokenizerFast(tokenizer_object=words, clean_up_tokenization_spaces=True)
    assert tok.decode([1, 2, 3]) == "Assistant. well"
    assert decode(tok, [2, 3], after=1) == " . well"


def test_a_response_that_melts_into_the_prompt_takes_the_joint_token_with_it(tok):
    row = encode_row(tok, "\n\nHuman: Hello th", "ere, how are")
    assert row.prompt + row.response == encode(tok, "\n\nHuman: Hello there, how are")
    assert len(row.prompt) < len(encode(tok, "\n\nHuman: Hello th"))


def test_an_empty_response_is_a_mistake(tok):
    with pytest.raises(ValueError, match="an empty response"):
        encode_row(tok, PROMPT, "")


# -- truncation -------------------------------------------------------------------------------------------------------------------


def test_truncation_cuts_the_prompts_beginning_behind_bos_and_keeps_the_response(tok):
    whole = encode_row(tok, PROMPT, " apples" + STOP)
    for room in range(len(whole.response) + 1, len(whole) + 3):
        row = encode_row(tok, PROMPT, " apples" + STOP, max_tokens=room)
        assert row.response == whole.response
        assert len(row) == min(room, len(whole))
        assert row.prompt[0] == tok.bos_token_id
        kept = row.prompt[1:]
        assert kept == whole.prompt[len(whole.prompt) - len(kept) :]


def test_of_a_response_that_is_too_long_alone_the_end_is_kept_and_a_prompt_is_left(tok):
    whole = encode_row(tok, PROMPT, " apples" * 20 + STOP)
    row = encode_row(tok, PROMPT, " apples" * 20 + STOP, max_tokens=12)
    assert row == Row((tok.bos_token_id,), whole.response[-11:])


def test_without_a_bos_the_prompts_end_is_kept():
    tok = byte_level_tokenizer()
    tok.backend_tokenizer.post_processor = None
    whole = encode_row(tok, PROMPT, " apples")
    assert whole.prompt[0] != tok.bos_token_id
    row = encode_row(tok, PROMPT, " apples", max_tokens=len(whole.response) + 2)
    assert row == Row(whole.prompt[-2:], whole.response)
    assert encode_row(tok, PROMPT, " apples" * 9, max_tokens=5).prompt == whole.prompt[-1:]


def test_a_limit_without_room_for_both_is_a_mistake(tok):
    with pytest.raises(ValueError, match="max_tokens"):
        encode_row(tok, PROMPT, " apples", max_tokens=1)


def test_common_prefix():
    assert common_prefix((1, 2, 3), (1, 2, 4, 5)) == 2
    assert common_prefix((1, 2), (1, 2, 3)) == 2
    assert common_prefix((), (1,)) == common_prefix((2,), (1,)) == 0
