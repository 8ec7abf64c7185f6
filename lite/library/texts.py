"""Texts that a program gives, as a list that can be gone through twice."""

from collections.abc import Iterable

from lite.errors import RecipeError

SHOWN = 5


def texts(given: Iterable[str], what: str, *, none: bool = False) -> list[str]:
    """The texts of an argument. A :class:`RecipeError` where it is one string, holds something else, or, unless ``none``, nothing."""
    if isinstance(given, str):
        raise RecipeError(what, ["one string, where a list of texts is needed: put it in brackets, [text]"])
    if not isinstance(given, Iterable):
        raise RecipeError(what, [f"a list of texts is needed (got {type(given).__name__})"])
    found = list(given)
    if not found and not none:
        raise RecipeError(what, ["nothing in it: one text is needed at least"])
    wrong = [i for i, text in enumerate(found) if not isinstance(text, str) or not text]
    if wrong:
        told = [f"[{i}]: a text is needed (got {found[i]!r:.60})" for i in wrong[:SHOWN]]
        raise RecipeError(what, [*told, *([f"and {len(wrong) - SHOWN} more"] if len(wrong) > SHOWN else [])])
    return found
