"""Sizes and times in words."""

from lite.fit import sizes


def gib(n: int) -> str:
    return f"{n / sizes.GIB:.2f}"


def span(seconds: tuple[float, float]) -> str:
    return "-" if not seconds[1] else f"{_hours(seconds[0])} to {_hours(seconds[1])}"


def _hours(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.{1 if seconds < 36000 else 0}f} h"
