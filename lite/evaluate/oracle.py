"""The embedded world's oracle as a judge: exact where it applies, and silent everywhere else."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from lite.micro.grammar import FAMILIES, read_ask
from lite.micro.world import Grade, grade
from lite.records import Pair, Prompt, Reply
from lite.text.clean import decode_reply
from lite.text.dialogue import Turn, closed, parse


def judge(replies: Sequence[Reply], prompts: Mapping[str, Prompt]) -> list[Reply]:
    """The replies with score (0-5) and success; a reply that never ended is graded 0, whatever it says so far."""
    graded = []
    for reply in replies:
        found = grade(prompts[reply.id].turns, reply.text.strip())
        done = reply.stop != "length"
        graded.append(replace(reply, score=float(found.score) if done else 0.0, success=found.success and done))
    return graded


def read_prompt(prompt: str) -> list[Turn] | None:
    """The turns of a plain prompt of the embedded world; None where the world cannot have asked it."""
    try:
        turns = parse(closed(prompt))
    except ValueError:
        return None
    return turns if turns[-1].role == "human" and read_ask(turns[-1].text) else None


def pair_scores(pairs: Sequence[Pair], task: str) -> list[tuple[int, int] | None] | None:
    """The scores of (chosen, rejected), None for a pair that the world did not ask; None at all where that is most of them, so
    that a stray likeness in real dialogues makes no oracle, and for a task that is not the world's: what it would grade is another."""
    if task not in FAMILIES:
        return None
    asked = [read_prompt(pair.prompt) for pair in pairs]
    if sum(turns is not None for turns in asked) * 2 <= len(pairs):
        return None
    return [(_score(turns, p.chosen), _score(turns, p.rejected)) if turns else None for p, turns in zip(pairs, asked, strict=True)]


def _score(turns: Sequence[Turn], text: str) -> int:
    found: Grade = grade(turns, decode_reply(text))
    return found.score
