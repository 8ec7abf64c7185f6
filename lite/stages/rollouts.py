"""PPO's experience of one step: responses of the policy, and everything the update needs to know of them.

All response-shaped tensors are (N, R); column j is the j-th response token, ``keep`` tells the real ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from lite.knobs.ppo import PpoSpec
from lite.model.bank import AdapterBank
from lite.model.encoding import Row
from lite.model.forward import Scores, collate, hidden_states, micro_batches, refine, response_logprobs, response_values, score_rows
from lite.model.generate import Decoding, Generated, generate
from lite.model.memory import TRAIN
from lite.objectives.masks import row_sums, standardize
from lite.objectives.ppo import KL, gae, kl_k1, shape_rewards
from lite.objectives.scores import Moments
from lite.runs.ranks import ALONE, Ranks
from lite.text.clean import decode_reply
from lite.text.dialogue import STOP

POLICY, VALUE, REWARD, REFERENCE = "policy", "value", "reward", "reference"
Ids: TypeAlias = tuple[int, ...]
Groups = list[list[list[int]]]
"""Minibatches of micro-batches of row numbers."""


@dataclass(frozen=True)
class Setting:
    """What responses are held to. The ppo stage's: an adapter rewards, the next human turn ends.

    ``rewards``: told prompts and replies, gives a number for each; None: the bank's reward role.
    ``stop``: the string that ends a response; None: the end-of-text token does.
    """

    rewards: Callable[[Sequence[Ids], Sequence[str]], Sequence[float]] | None = None
    stop: str | None = STOP

    def reply(self, text: str) -> str:
        """What a response says, without what ends it."""
        if self.stop == STOP:
            return decode_reply(text)
        return (text.partition(self.stop)[0] if self.stop else text).strip()

    def finished(self, response: Generated) -> bool:
        """Whether it ends as it should, and something stands before its end."""
        return response.stop == ("turn" if self.stop else "eos") and bool(self.reply(response.text))


STAGE = Setting()


class Rollouts(NamedTuple):
    rows: list[Row]
    texts: list[str]
    finished: Tensor  # (N,) bool: ends as it should, and something stands before its end
    keep: Tensor  # (N, R) bool
    logp: Tensor  # (N, R) under the policy that wrote them
    entropy: Tensor  # (N, R)
    reference: Tensor  # (N, R) log-probs under the reference
    values: Tensor  # (N, R)
    rewards: Tensor  # (N,) of the reward model, raw


class Advantages(NamedTuple):
    advantages: Tensor  # (N, R)
    returns: Tensor  # (N, R)
    scores: Tensor  # (N,) rewards after normalisation and the price of a wrong ending
    kl: Tensor  # (N,) KL to the reference per response, in nats (k1: unbiased)


def write(
    spec: PpoSpec, bank: AdapterBank, prompts: Sequence[Ids], seeds: Sequence[int], setting: Setting = STAGE, ranks: Ranks = ALONE
) -> list[Generated]:
    """One response of the policy per prompt, from the whole distribution at the recipe's temperature."""
    decoding = Decoding(spec.max_new_tokens, spec.temperature, stop=setting.stop)
    own = ranks.mine(prompts)
    written = generate(bank, POLICY, own, seeds=ranks.mine(seeds), decoding=decoding, rows=spec.rollout_rows) if own else []
    return ranks.dealt(written)


def look(
    spec: PpoSpec,
    bank: AdapterBank,
    prompts: Sequence[Ids],
    written: Sequence[Generated],
    plan: Groups,
    setting: Setting = STAGE,
    ranks: Ranks = ALONE,
) -> Rollouts:
    """Score finished responses: reference, value and reward in one mixed pass; the policy in the very passes of the first epoch.

    ``plan`` is the division of the first epoch: old log-probs come from the same rows in the same micro-batches through the
    same kernels as in training, so that the first minibatch's ratios are exactly 1. Those of the decoding steps would not do: other
    shapes, other last bits (``benchmarks.rollouts``). They would save one of 13 passes over a step's tokens (one of 17 with checkpointing),
    counting a forward pass as one: 1 to write, 3 to score, this one, and 2 epochs of two roles at 2 (3).
    """
    rows = [Row(tuple(p), g.ids) for p, g in zip(prompts, written, strict=True)]
    device = bank.base.device
    keep = torch.arange(max(len(r.response) for r in rows))[None] < torch.tensor([len(r.response) for r in rows])[:, None]
    separate = VALUE if spec.value == "separate" else None
    own = ranks.mine(range(len(rows)))
    scored = score_rows(
        bank,
        [rows[i] for i in own],
        reward=None if setting.rewards else REWARD,
        value=separate,
        temperature=spec.temperature,
        micro_tokens=spec.micro_tokens,
        reference=REFERENCE if REFERENCE in bank.names else None,
    )
    if ranks.count > 1:
        scored = _of_all(scored, own, keep.shape, ranks)
    logp, entropy, joint = (torch.zeros(keep.shape, device=device) for _ in range(3))

    groups = [part for minibatch in plan for part in shared_out(minibatch, ranks)]

    def remember(tokens: int) -> None:
        for group in refine(groups, [len(r) for r in rows], tokens=tokens):
            batch = collate([rows[i] for i in group], pad_id=bank.base.pad_id, device=device)
            index, span = torch.tensor(group, device=device), batch.keep.shape[1]
            with bank.using(POLICY, training=True) as trunk:  # with a graph, dropped at once: without one, other kernels may run
                hidden = hidden_states(trunk, batch).detach()
            found = response_logprobs(hidden, bank.vocabulary, batch, temperature=spec.temperature, entropy=True)
            logp[index, :span], entropy[index, :span] = found.logp, found.entropy
            if not separate:
                joint[index, :span] = response_values(hidden, bank.head(VALUE), batch).detach()

    bank.budget.spend(TRAIN, widest(groups, rows), remember)
    ranks.add([logp, entropy, joint])
    rewards = scored.rewards
    if setting.rewards:
        rewards = torch.tensor(setting.rewards(prompts, [setting.reply(g.text) for g in written]), device=device)
    return Rollouts(
        rows=rows,
        texts=[g.text for g in written],
        finished=torch.tensor([setting.finished(g) for g in written], device=device),
        keep=keep.to(device),
        logp=logp,
        entropy=entropy,
        reference=scored.reference,
        values=scored.values if separate else joint,
        rewards=rewards,
    )


def _of_all(scored: Scores, own: Sequence[int], shape: torch.Size, ranks: Ranks) -> Scores:
    """Everybody's scores, each in its rows; (N, R) even where a rank's own responses are shorter."""
    whole = Scores(scored.reference.new_zeros(shape), scored.values.new_zeros(shape), scored.rewards.new_zeros(shape[0]))
    for to, given in zip(whole[:2], scored[:2], strict=True):
        to[own, : given.shape[1]] = given
    whole.rewards[own] = scored.rewards
    ranks.add(whole)
    return whole


def shared_out(minibatch: Sequence[Sequence[int]], ranks: Ranks) -> list[list[int]]:
    """My part of each micro-batch; the same in scoring and in training."""
    return [part for group in minibatch if (part := ranks.mine(group))]


def widest(groups: Sequence[Sequence[int]], rows: Sequence[Row]) -> int:
    """Tokens of the largest micro-batch, padding included; 0 if there is none."""
    return max((len(group) * max(len(rows[i]) for i in group) for group in groups), default=0)


def appraise(spec: PpoSpec, rollouts: Rollouts, *, kl_coef: float, moments: Moments | None) -> Advantages:
    """From rewards to advantages: normalise, price a wrong ending, add the KL, whiten, estimate. Pure arithmetic."""
    rewards = moments.normalize(rollouts.rewards, center=True, scale=True) if moments else rollouts.rewards
    scores = torch.where(rollouts.finished, rewards, torch.full_like(rewards, spec.no_stop_reward))
    per_token = KL[spec.kl_estimator](rollouts.logp, rollouts.reference)
    shaped = shape_rewards(scores, per_token, rollouts.keep, kl_coef=kl_coef)
    if spec.whiten_rewards:
        shaped = standardize(shaped, rollouts.keep, center=False)
    advantages, returns = gae(shaped, rollouts.values, rollouts.keep, gamma=spec.gamma, lam=spec.lam)
    if spec.whiten_advantages:
        advantages = standardize(advantages, rollouts.keep, center=True)
    return Advantages(advantages, returns, scores, row_sums(kl_k1(rollouts.logp, rollouts.reference), rollouts.keep))


def divide(spec: PpoSpec, lengths: Sequence[int], order: Sequence[int]) -> Groups:
    """Minibatches along ``order``, each in micro-batches of rows of like length."""
    minibatches = [list(order[k : k + spec.minibatch]) for k in range(0, len(order), spec.minibatch)]
    return [[[m[j] for j in group] for group in micro_batches([lengths[i] for i in m], tokens=spec.micro_tokens)] for m in minibatches]
