"""Where a server is: an address and nothing else, so that no key comes into a recipe, a plan, a report or a tracker."""

from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator


def problems(url: str) -> list[str]:
    """What is wrong with an address; its text, which may hold a key, is not in it."""
    try:
        parts = urlsplit(url)
    except ValueError:  # brackets that hold no IPv6 address
        parts = SplitResult("", "", "", "", "")
    found = []
    if parts.scheme not in ("http", "https") or not parts.hostname or not _port_is_right(parts):
        found.append("no address; write http://HOST:PORT/v1 or https://HOST/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        found.append("leave out everything but the address; a key goes into an environment variable that key_env names")
    return found


def _port_is_right(parts: SplitResult) -> bool:
    try:
        return parts.port is None or parts.port > 0
    except ValueError:
        return False


def _checked(url: str) -> str:
    if found := problems(url):
        raise ValueError("; ".join(found))
    return url


Address = Annotated[str, AfterValidator(_checked)]
