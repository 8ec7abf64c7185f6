"""What all commands share: how they speak, how an error of lite ends them, and their common options."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from lite.errors import LiteError, Stopped
from lite.runs.signals import INTERRUPTED, STOPPED

Runs = Annotated[Path, typer.Option("--runs", help="the folder of the runs", envvar="LITE_RUNS")]
Json = Annotated[bool, typer.Option("--json", help="one JSON object on standard output")]
Which = Annotated[str, typer.Argument(metavar="RUN", help="a run's name, its beginning or end, its folder, or `latest`")]
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
