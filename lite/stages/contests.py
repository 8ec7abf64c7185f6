"""Scores of given responses by whoever scores in a run: its reward model, its judge, or the base by the odds of two letters."""

import math
from collections.abc import Sequence
from statistics import fmean

from lite.artifacts import Policy, Reward
from lite.evaluate import questions
from lite.evaluate.rewardbench import Contest, Scores
from lite.knobs.rounds import JudgingSpec
from lite.model.bank import AdapterBank
from lite.model.choice import encode_choice, letter_logprobs
from lite.model.encoding import encode_row
from lite.model.forward import reward_rows
from lite.stages.bench import Bench
from lite.stages.reviews import Court, Question, scores_of
from lite.templates import load
from lite.text.choosing import choice_prompt, preference
from lite.text.dialogue import STOP, closed

MICRO_TOKENS = 4096
ROLE = "reward"


def by_reward(bank: AdapterBank, reward: Reward, contests: Sequence[Contest]) -> Scores:
    """The rewards of chosen and rejected, read as in training: with the string that ends a response."""
    bank.load(ROLE, reward.adapter)
    bank.head(ROLE).load(reward.head)
    texts = [(c.prompt, response) for c in contests for response in (c.chosen, c.rejected)]
    once = list(dict.fromkeys(texts))  # the same text twice is the same score to the bit, and so a tie
    rows = [encode_row(bank.base.tokenizer, prompt, response + STOP) for prompt, response in once]
    rewards = dict(zip(once, reward_rows(bank, rows, role=ROLE, micro_tokens=MICRO_TOKENS).tolist(), strict=True))
    found = [x if math.isfinite(x := rewards[text]) else None for text in texts]
    bank.drop(ROLE)
    return list(zip(found[::2], found[1::2], strict=True))


def by_judge(bank: AdapterBank, policy: Policy, contests: Sequence[Contest], spec: JudgingSpec, bench: Bench) -> Scores:
    """The means of a self-rewarding model's judgements of each response."""
    asked = [Question(c.id, k, c.prompt, response) for c in contests for k, response in enumerate((c.chosen, c.rejected))]
    court = Court(spec, bench, bank, policy, name="contests")
    with bench.progress(len(asked) * spec.draws, "judgements", "contests: judging") as bar:
        told = scores_of(court.judge(asked, range(spec.draws), bar))
    court.close()
    means = {place: fmean(read) for place, scores in told.items() if (read := [s for s in scores if s is not None])}
    return [(means.get((c.id, 0)), means.get((c.id, 1))) for c in contests]


def by_letters(bank: AdapterBank, contests: Sequence[Contest], bench: Bench) -> Scores:
    """The base's choice between the two, the mean of both orders: (probability of chosen, probability of rejected)."""
    frame, question = load("choice"), questions.forms_of(bench.task)[0].question
    shown = [(c, *pair) for c in contests for pair in ((c.chosen, c.rejected), (c.rejected, c.chosen))]
    prompts = [choice_prompt(frame, question, dialogue=closed(c.prompt), a=a, b=b) for c, a, b in shown]
    once = list(dict.fromkeys(prompts))
    asked = [encode_choice(bank.base.tokenizer, prompt) for prompt in once]
    odds = dict(zip(once, letter_logprobs(bank, asked, micro_tokens=MICRO_TOKENS), strict=True))
    found = [odds[prompt] for prompt in prompts]
    chosen = [(preference(*one, "A") + preference(*other, "B")) / 2 for one, other in zip(found[::2], found[1::2], strict=True)]
    return [(p, 1 - p) for p in chosen]
