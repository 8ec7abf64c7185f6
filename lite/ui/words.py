"""How times, sizes and shares are written on the page."""

from datetime import UTC, datetime

from lite.runs.progress import duration


def ago(then: datetime | None, now: datetime | None = None) -> str:
    """``3 min ago``, ``yesterday``, or the date."""
    if then is None:
        return ""
    seconds = ((now or datetime.now(UTC)) - then).total_seconds()
    if seconds < 60:
        return "just now"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min ago"
    if seconds < 24 * 3600:
        return f"{seconds / 3600:.0f} h ago"
    if seconds < 48 * 3600:
        return "yesterday"
    return then.strftime("%-d %b %Y")


def length(seconds: float | None) -> str:
    return "" if seconds is None else "under 1s" if seconds < 1 else duration(seconds)


def share(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:.{digits}%}"


def plural(n: int, one: str, many: str | None = None) -> str:
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"


def gib(n: float) -> str:
    """Bytes as GiB, or smaller units."""
    return f"{n / 2**30:.1f} GiB" if n >= 2**29 else f"{n / 2**20:.1f} MiB" if n >= 2**19 else f"{n / 2**10:.0f} KiB"
