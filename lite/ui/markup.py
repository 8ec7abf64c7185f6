"""HTML that cannot be injected into: every text is escaped on its way in, and only this module makes :class:`Markup`."""

import re
from html import escape, unescape
from typing import TypeAlias

from lite.runs.journal import CONTROL

TAG = re.compile(r"<[^>]*>")
VOID = ("br", "hr", "col")


class Markup(str):
    """Text that is HTML already. ``str`` methods give plain ``str`` again, which is escaped when it is put into a tag."""

    __slots__ = ()


Child: TypeAlias = "Markup | str | int | float | list[Markup] | None"


def text(value: object) -> Markup:
    """Any value as text: terminal control characters are dropped, everything else is shown as it stands."""
    return Markup(escape(CONTROL.sub("", str(value).replace("\r\n", "\n")), quote=True))


def tag(name: str, *children: Child, **attributes: object) -> Markup:
    """``tag("p", "a < b", cls="note")`` -> ``<p class="note">a &lt; b</p>``; attributes that are None or False are left out.

    ``cls`` is the class, an underscore in a name is a dash.
    """
    given = {("class" if key == "cls" else key.replace("_", "-")): value for key, value in attributes.items()}
    head = "".join(
        f' {key}="{text("" if value is True else value)}"' for key, value in given.items() if value is not None and value is not False
    )
    if name in VOID:
        return Markup(f"<{name}{head}>")
    return Markup(f"<{name}{head}>{join(*children)}</{name}>")


def join(*children: Child) -> Markup:
    parts: list[str] = []
    for child in children:
        if isinstance(child, list):
            parts.append(join(*child))
        elif isinstance(child, Markup):
            parts.append(child)
        elif child is not None:
            parts.append(text(child))
    return Markup("".join(parts))


def div(cls: str, *children: Child, **attributes: object) -> Markup:
    return tag("div", *children, cls=cls, **attributes)


def span(cls: str, *children: Child, **attributes: object) -> Markup:
    return tag("span", *children, cls=cls, **attributes)


def link(where: str, *children: Child, cls: str | None = None) -> Markup:
    """A link to another page of ours; ``where`` is a page's name and query, never a scheme."""
    if ":" in where.split("?")[0] or where.startswith("//"):
        raise ValueError(f"not a page of ours: {where}")
    return tag("a", *children, href=where, cls=cls)


def term(word: str, meaning: str) -> Markup:
    """A word of the trade with its meaning as a tooltip, which the keyboard reaches too."""
    return tag("abbr", word, title=meaning, tabindex=0)


def empty(title: str, *what_to_do: Child) -> Markup:
    """What stands where there is nothing yet: what this place is for, and what to do next."""
    return div("empty", tag("h3", title), tag("p", *what_to_do))


def note(kind: str, *children: Child) -> Markup:
    """A box: ``kind`` is info, good, warn or bad."""
    return div(f"note {kind}", *children, role="alert" if kind == "bad" else None)


def problems(lines: list[str], title: str = "This needs mending first") -> Markup:
    return note("bad", tag("strong", title), tag("ul", [tag("li", line) for line in lines]))


def table(header: list[Child], rows: list[list[Child]], cls: str = "") -> Markup:
    """Every cell carries its column's name, so that a narrow screen can show rows as cards."""
    names = [unescape(TAG.sub("", cell)) if isinstance(cell, Markup) else str(cell or "") or None for cell in header]
    body = [tag("tr", [tag("td", cell, data_label=names[i]) for i, cell in enumerate(row)]) for row in rows]
    head = tag("thead", tag("tr", [tag("th", cell) for cell in header])) if any(header) else None
    return div("scroll", tag("table", head, tag("tbody", body), cls=f"plain {cls}".strip()))


def badge(state: str) -> Markup:
    return span(f"badge {state}", state)
