"""The embedded world's oracle as a judge: exact where it applies, and silent everywhere else."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lite.evaluate.intervals import share_interval
from lite.micro.world import Grade, grade, split_of
from lite.records import Pair, Prompt, Reply
from lite.text.clean import decode_reply


def judge(replies: Sequence[Reply], prompts: Mapping[str, Prompt]) -> list[Reply]:
    """The replies with score (0-5) and success; a reply that never ended is graded 0, whatever it says so far."""
    graded = []
    for reply in replies:
        found = grade(prompts[reply.id].turns, reply.text.strip())
        done = reply.stop != "length"
        graded.append(replace(reply, score=float(found.score) if done else 0.0, success=found.success and done))
    return graded


def pair_labels(pairs: Sequence[Pair], prompts: Mapping[str, Prompt]) -> dict[str, Any]:
    """How often the label of a pair is the oracle's: share of the pairs that the oracle does not tie, and the ties.

    Pairs whose prompt a model wrote may ask what the world does not know: they are left out, and counted.
    """
    right = wrong = 0
    known = [pair for pair in pairs if split_of(prompts[pair.id].turns[-1].text)]
    for pair in known:
        better, worse = (_score(prompts[pair.id], text) for text in (pair.chosen, pair.rejected))
        if pair.label < 0.5:
            better, worse = worse, better
        right, wrong = right + (better > worse), wrong + (better < worse)
    decided = right + wrong
    estimate = share_interval(right, decided) if decided else None
    return {
        "accuracy": estimate.mean if estimate else None,
        "interval": [estimate.low, estimate.high] if estimate else None,
        "decided": decided,
        "tied": len(known) - decided,
        "unknown": len(pairs) - len(known),
    }


def reward_accuracy(rewards: Sequence[tuple[float, float]], scores: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """How often the reward model orders two replies as the oracle does, over those that the oracle does not tie."""
    decided = [(r, s) for r, s in zip(rewards, scores, strict=True) if s[0] != s[1]]
    hits = sum(0.5 if r[0] == r[1] else float((r[0] > r[1]) == (s[0] > s[1])) for r, s in decided)
    if not decided:
        return {"oracle_accuracy": None, "oracle_decided": 0}
    estimate = share_interval(hits, len(decided))
    return {"oracle_accuracy": estimate.mean, "oracle_interval": [estimate.low, estimate.high], "oracle_decided": len(decided)}


def _score(prompt: Prompt, text: str) -> int:
    found: Grade = grade(prompt.turns, decode_reply(text))
    return found.score
