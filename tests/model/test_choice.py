"""The odds of two letters against arithmetic over the whole vocabulary."""

import pytest
import torch

from lite.errors import PreconditionError
from lite.model.choice import encode_choice, letter_logprobs
from lite.model.encoding import decode, encode

PROMPTS = ["Which is better?\n\n(A) yes\n\n(B) no\n\nThe better one is (", "Hello (", "One of A and B: "]


def test_the_letters_come_right_after_the_prompt(bank):
    tokenizer = bank.base.tokenizer
    for prompt in PROMPTS:
        asked = encode_choice(tokenizer, prompt)
        for id, letter in zip(asked.letters, "AB", strict=True):
            assert (*asked.ids, id) == encode(tokenizer, prompt + letter)
            assert decode(tokenizer, [id], after=asked.ids[-1]).endswith(letter)


def test_the_odds_are_those_of_the_whole_distribution_whatever_the_batch(bank):
    asked = [encode_choice(bank.base.tokenizer, prompt) for prompt in PROMPTS]
    told = []
    together = letter_logprobs(bank, asked, micro_tokens=10000, done=told.append)
    assert sum(told) == 3
    for prompt, found in zip(asked, together, strict=True):
        with torch.no_grad():
            logits = bank.base.model(input_ids=torch.tensor([prompt.ids])).logits[0, -1].float()
        expected = logits.log_softmax(-1)[list(prompt.letters)]
        assert (found.a, found.b) == pytest.approx(tuple(expected.tolist()), abs=1e-4)
    alone = letter_logprobs(bank, asked, micro_tokens=1)
    assert [x for pair in alone for x in pair] == pytest.approx([x for pair in together for x in pair], abs=1e-4)


class Joining:
    """A tokenizer that takes "(A" for one token."""

    def __call__(self, text):
        ids = [1]
        while text:
            n = 2 if text[:2] in ("(A", "(B") else 1
            ids.append(sum(map(ord, text[:n])) * 10 + n)
            text = text[n:]
        return {"input_ids": ids}


def test_a_letter_that_is_joined_to_the_parenthesis_is_compared_with_it():
    asked = encode_choice(Joining(), "x (")  # type: ignore[arg-type]
    assert len(asked.ids) == 3
    assert asked.letters == ((ord("(") + ord("A")) * 10 + 2, (ord("(") + ord("B")) * 10 + 2)


def test_a_tokenizer_that_spells_a_letter_with_two_tokens_is_refused():
    class Spelling:
        def __call__(self, text):
            return {"input_ids": [1, *(i for c in text for i in ((ord(c), 0) if c in "AB" else (ord(c),)))]}

    with pytest.raises(PreconditionError, match="several tokens"):
        encode_choice(Spelling(), "x (")  # type: ignore[arg-type]
