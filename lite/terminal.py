"""What all commands share: how they speak, how an error of lite ends them, and their common options."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from lite.errors import LiteError, Stopped
from lite.runs.signals import INTERRUPTED, STOPPED


def card_size(text: str) -> float:
    from lite.fit.cards import size

    try:
        return size(text)
    except ValueError as e:
        raise typer.BadParameter(str(e)) from e


Runs = Annotated[Path, typer.Option("--runs", help="the folder of the runs", envvar="LITE_RUNS")]
Json = Annotated[bool, typer.Option("--json", help="one JSON object on standard output")]
Which = Annotated[str, typer.Argument(metavar="RUN", help="a run's name, its beginning or end, its folder, or `latest`")]
Card = Annotated[
    float | None,
    typer.Option(
        "--card",
        metavar="GB",
        parser=card_size,
        help="whether a card with so much memory (8, 24; a T4 offers 15), or of a name, is enough, how long, what to turn",
    ),
]
RUNS = Path("runs")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextmanager
def told() -> Iterator[None]:
    """An error of lite ends the command with its message and its exit code."""
    try:
        yield
    except LiteError as e:
        say(f"lite: {e}")
        raise typer.Exit(e.exit_code) from e
    except Stopped as e:
        raise typer.Exit(STOPPED) from e
    except KeyboardInterrupt as e:
        raise typer.Exit(INTERRUPTED) from e
