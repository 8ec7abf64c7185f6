"""Which of two letters a model goes on with: the log-probabilities of "A" and "B" as the next token."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from lite.errors import PreconditionError
from lite.model.bank import AdapterBank
from lite.model.encoding import Row, common_prefix, encode
from lite.model.forward import collate, hidden_states, micro_batches
from lite.model.memory import SCORE

LETTERS = ("A", "B")


class Asked(NamedTuple):
    """A prompt as ids, and the two ids of which one comes next."""

    ids: tuple[int, ...]
    letters: tuple[int, int]


class LetterLogProbs(NamedTuple):
    a: float
    b: float


def encode_choice(tokenizer: PreTrainedTokenizerBase, prompt: str) -> Asked:
    """The ids that a prompt shares with both of its answers, and the first id in which these differ.

    A tokenizer may join the letter to what stands before it ("(A" as one token); then the ids end before that, and the joined
    tokens are compared.
    """
    a, b = (encode(tokenizer, prompt + letter) for letter in LETTERS)
    n = common_prefix(a, b)
    if not 0 < n == len(a) - 1 == len(b) - 1:
        raise PreconditionError(
            f"base.model: its tokenizer spells {' or '.join(LETTERS)} with several tokens, so it cannot be asked for a letter"
        )
    return Asked(a[:n], (a[n], b[n]))


@torch.no_grad()
def letter_logprobs(
    bank: AdapterBank,
    prompts: Sequence[Asked],
    *,
    role: str | None = None,
    micro_tokens: int = 4096,
    done: Callable[[int], None] = lambda n: None,
) -> list[LetterLogProbs]:
    """Log-probabilities of both letters after each prompt, in their order. The head runs at the last position alone.

    done: told the number of prompts after every forward pass
    """
    found: dict[int, LetterLogProbs] = {}

    def attempt(tokens: int) -> None:
        todo = [i for i in range(len(prompts)) if i not in found]
        for part in micro_batches([len(prompts[i].ids) for i in todo], tokens=tokens):
            group = [todo[k] for k in part]
            batch = collate(
                [Row(prompts[i].ids[:-1], prompts[i].ids[-1:]) for i in group], pad_id=bank.base.pad_id, device=bank.base.device
            )
            rows = torch.arange(len(group), device=bank.base.device)
            with bank.using(role) as trunk:
                last = hidden_states(trunk, batch)[rows, batch.last]
            logp = torch.nn.functional.linear(last, bank.vocabulary).float().log_softmax(-1)
            letters = logp.gather(1, torch.tensor([prompts[i].letters for i in group], device=logp.device)).tolist()
            found.update({i: LetterLogProbs(a, b) for i, (a, b) in zip(group, letters, strict=True)})
            done(len(group))

    bank.budget.spend(SCORE, min(micro_tokens, len(prompts) * max((len(p.ids) for p in prompts), default=0)), attempt)
    return [found[i] for i in range(len(prompts))]
