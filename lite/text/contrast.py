"""The two prompts of RLCD: p+ encourages an attribute, p- discourages it, and nothing else differs.

Follows Yang et al. 2023, section 3.1 and the authors' code: the phrase stands inside the last speaker tag, and earlier assistant
turns carry the phrase of the OPPOSITE polarity, so that the last reply turns away from the history. One index serves both sides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from lite.chance import random_for
from lite.tasks import Task
from lite.text.dialogue import Turn, cue, render


@dataclass(frozen=True, slots=True)
class Contrast:
    p_plus: str
    p_minus: str
    index: int


def contrast(turns: Sequence[Turn], task: Task, index: int) -> Contrast:
    """Both prompts of one dialogue under the task's phrase pair at ``index``, each ending with the task's response lead."""
    if not 0 <= index < len(task.phrases):
        raise IndexError(f"task {task.name!r} has {len(task.phrases)} phrase pair(s), there is no index {index}")
    pair = task.phrases[index]
    return Contrast(
        p_plus=_directed(turns, earlier=pair.negative, last=pair.positive, lead=task.lead),
        p_minus=_directed(turns, earlier=pair.positive, last=pair.negative, lead=task.lead),
        index=index,
    )


def draw_index(task: Task, *place: str | int) -> int:
    """The phrase pair of one prompt, uniform over the task's pairs; ``place`` addresses the draw, e.g. ``17, "contrast", "p00042"``.

    The attempt is no part of the place: a prompt keeps its phrases when a continuation is rejected.
    """
    return random_for(*place).randrange(len(task.phrases))


def shared_prefix(a: str, b: str) -> str:
    """The longest text that both prompts begin with. In a dialogue of several turns it ends inside the first assistant tag.

    A token may reach across its end, so a cache of keys and values is shared by equal ids, not by this text.
    """
    return "".join(x for x, _ in takewhile(lambda both: both[0] == both[1], zip(a, b, strict=False)))


def _directed(turns: Sequence[Turn], *, earlier: str, last: str, lead: str) -> str:
    return render(turns, direction=lambda _: earlier) + cue(last) + (f" {lead}" if lead else "")
