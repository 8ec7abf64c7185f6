"""The commands for what comes after a run: export. None of them imports torch before it knows what to do."""

from pathlib import Path
from typing import Annotated

import typer

from lite import tables
from lite.errors import RecipeError
from lite.runs import read
from lite.runs.publish import dumps
from lite.terminal import RUNS, Json, Runs, say, told

Which = Annotated[str, typer.Argument(metavar="RUN", help="a run's folder, name, or `latest`")]


def export(
    run: Which,
    what: Annotated[str, typer.Option(metavar="[adapter|merged|ollama|dataset|job]", help="what to take out")] = "adapter",
    stage: Annotated[str | None, typer.Option(metavar="ID", help="of which stage (default: the latest that fits)")] = None,
    to: Annotated[Path | None, typer.Option(metavar="DIR", help="a new folder (default: one inside the run)")] = None,
    push: Annotated[str | None, typer.Option(metavar="REPO", help="also put it on the Hugging Face Hub, as you/name")] = None,
    public: Annotated[bool, typer.Option("--public", help="let everybody see a repository that --push makes")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="ask the Hub nothing")] = False,
    runs: Runs = RUNS,
    as_json: Json = False,
) -> None:
    """Take a model, an adapter, or preference pairs out of a run, for other programs."""
    with told():
        if push and offline:
            raise RecipeError("lite export", ["--push needs the Hub, and --offline forbids it"])
        found = read.find(runs, run)

        from lite import engine
        from lite.export import hub
        from lite.export.subject import choose

        engine.prepare_environment(offline=offline)
        subject = choose(found, what, stage)  # a mistake is told before torch is imported
        if push:
            hub.check(subject, what, push)

        from lite.export import folders

        shown = 0

        def done(written: int, total: int) -> None:
            nonlocal shown
            if not as_json and 10 * written // total > shown:
                shown = 10 * written // total
                say(f"{tables.bytes_text(written)} of {tables.bytes_text(total)}")

        made = folders.export(found, what, stage=stage, to=to, done=done)
        address = hub.push(made, push, private=not public) if push else None
        if as_json:
            print(dumps({"folder": str(made.path), "stage": made.subject.stage.id, "files": made.files(), "pushed": address}))
            return
        print(made.path)
        say(f"{made.what} of {made.subject.stage.id}: {len(made.files())} files, {tables.bytes_text(sum(made.files().values()))}")
        if made.licence.id is None:
            say(f"the licence of {made.subject.base_name} could not be read; look it up before you pass this on")
        if address:
            say(f"pushed: {address}")


def register(app: typer.Typer) -> None:
    for verb in (export,):
        app.command(verb.__name__)(verb)
