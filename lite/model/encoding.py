"""Text to token ids and back, such that prompt ids + response ids are what the model reads."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Row:
    """One prompt and one response, as token ids; the response ends with its end tokens."""

    prompt: tuple[int, ...]
    response: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.response)


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """A prompt's ids, with the begin-of-text token where the tokenizer has one."""
    return tuple(tokenizer(text)["input_ids"])  # type: ignore[arg-type]


def encode_row(tokenizer: PreTrainedTokenizerBase, prompt: str, response: str, *, max_tokens: int | None = None) -> Row:
    """Encode ``prompt + response`` as one text and split it where the prompt ends.

    Encoding the two apart would put a stray space before the response with SentencePiece tokenizers. Where both together are
    longer than ``max_tokens`` the beginning of the prompt is cut, behind its begin-of-text token (without one, models of the Llama
    family are not themselves): the response is what a reward is about. Of a response that is longer alone the end is kept, and
    one token of the prompt before it.
    """
    if max_tokens is not None and max_tokens < 2:
        raise ValueError(f"max_tokens must leave room for prompt and response, not {max_tokens}")
    alone, both = encode(tokenizer, prompt), encode(tokenizer, prompt + response)
    n = common_prefix(alone, both)
    if n == len(both):
        raise ValueError("an empty response has no tokens")
    head, tail = both[:n], both[n:]
    if max_tokens is not None and len(both) > max_tokens:
        tail = tail[-(max_tokens - 1) :]
        head = _last_of(tokenizer, head, max_tokens - len(tail))
    return Row(head, tail)


def encode_targets(tokenizer: PreTrainedTokenizerBase, prompt: str, responses: Sequence[str], *, max_tokens: int) -> list[Row] | None:
    """Responses to one prompt that are to be learnt, or unlearnt, whole: all with the same prompt ids, none longer than ``max_tokens``.

    What does not fit is cut off the prompt's beginning; None where a response leaves no room for one token of the prompt.
    """
    rows = [encode_row(tokenizer, prompt, response) for response in responses]
    head = min((row.prompt for row in rows), key=len)  # each is a beginning of the prompt's ids
    tails = [row.prompt[len(head) :] + row.response for row in rows]
    room = max_tokens - max(map(len, tails))
    if room < 1:
        return None
    return [Row(head if len(head) <= room else _last_of(tokenizer, head, room), tail) for tail in tails]


def _last_of(tokenizer: PreTrainedTokenizerBase, prompt: tuple[int, ...], n: int) -> tuple[int, ...]:
    """The last ``n`` ids of a prompt, the first of them its begin-of-text token where it has one."""
    begin = prompt[:1] if prompt[:1] == (tokenizer.bos_token_id,) else ()
    return begin + prompt[len(prompt) - (n - len(begin)) :]


def decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], *, after: int) -> str:
    """The text of response ids that follow the token ``after``: a leading space survives in every tokenizer."""

    def text(these: list[int]) -> str:
        return str(tokenizer.decode(these, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    return text([after, *ids])[len(text([after])) :]


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many leading ids two sequences share."""
    n = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        n += 1
    return n
