"""The commands for what comes after a run: chat, generate, eval, export. None of them imports torch before it knows what to do."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from lite import recipe, tables, tasks
from lite.errors import RecipeError
from lite.knobs import BaseSpec
from lite.runs import locks, read
from lite.runs.publish import dumps, write_text
from lite.terminal import RUNS, Json, Runs, Which, say, told

Model = Annotated[str | None, typer.Option("--model", metavar="ID", help="base, p_plus, or a stage (default: the newest that was trained)")]
Offline = Annotated[bool, typer.Option("--offline", help="ask the Hub nothing")]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="of the draws")]
Temperature = Annotated[float | None, typer.Option("--temperature", min=0, help="0 always takes the likeliest token")]
TopP = Annotated[float | None, typer.Option("--top-p", min=0.01, max=1, help="leaves out the unlikeliest tokens")]
Longest = Annotated[int | None, typer.Option("--max-new-tokens", min=1, help="longest reply")]
UNTRAINED = "nothing was trained in this run yet: its base answers"


def the_run(runs: Path, name: str, fits: Callable[[read.Run], bool]) -> read.Run:
    """The run of a name. `latest` passes over runs that lack what is asked for, such as one that failed at its start, and says so."""
    found = read.find(runs, name, fits=fits)
    if name == "latest" and (newest := read.latest(runs)) and newest.name != found.name:
        say(f"{found.name}: the newest run with what is asked for (the newest of all is {newest.name}, {newest.state})")
    return found


@contextmanager
def the_card(base: BaseSpec, who: str) -> Iterator[None]:
    """Hold the GPU, if there is one and the base would use it: a run and another model on it would both run out of memory."""
    from lite.fit.cards import this_card

    if base.device == "cpu" or this_card() is None:
        yield
        return
    with locks.held(locks.gpu_name(), queue=False, say=say) as holds:
        holds(who)
        yield


def chat(
    run: Which,
    model: Model = None,
    compare: Annotated[list[str] | None, typer.Option(metavar="ID", help="another model that is asked the same")] = None,
    seed: Seed = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    max_new_tokens: Longest = None,
    offline: Offline = False,
    runs: Runs = RUNS,
) -> None:
    """Talk to a model of a run in the terminal."""
    with told():
        from lite import engine
        from lite.chat.offers import BASE, can_chat, room
        from lite.chat.process import ChatProcess
        from lite.chat.terminal import Sampling, Talk, seats

        found = room(the_run(runs, run, lambda one: can_chat(one, model)))
        asked = seats(found, model, compare or ())
        if model is None and asked[0].offer.name == BASE:
            say(UNTRAINED)
        engine.prepare_environment(offline=offline)
        given = {"seed": seed, "temperature": temperature, "top_p": top_p, "max_new_tokens": max_new_tokens}
        how = Sampling(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
        process = ChatProcess()
        at_terminal = sys.stdin.isatty()
        if at_terminal:
            import readline  # noqa: F401  so that input() can be edited

            say(f"{' and '.join(seat.offer.name for seat in asked)} of {found.base.model}; /help says what there is")

        def write(text: str) -> None:
            sys.stdout.write(text)
            sys.stdout.flush()

        with the_card(found.base, "lite chat"):
            try:
                Talk(found, asked, process, write=write, note=say, how=how).go(lambda: input("> " if at_terminal else ""))
            finally:
                process.stop()


def generate(
    run: Which,
    prompts: Annotated[Path, typer.Option(metavar="FILE", help="questions: .jsonl, .csv, .txt, or a .json list")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="where the replies go")],
    format: Annotated[str, typer.Option(metavar="[jsonl|alpaca_eval|mt_bench]", help="of both files")] = "jsonl",
    model: Model = None,
    limit: Annotated[int | None, typer.Option(min=1, help="only so many questions, from the first")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the file of replies")] = False,
    rows: Annotated[int, typer.Option(min=1, help="replies written at once")] = 64,
    seed: Seed = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    max_new_tokens: Longest = None,
    offline: Offline = False,
    runs: Runs = RUNS,
    as_json: Json = False,
) -> None:
    """Have a model of a run answer a file of questions. What was answered when it is stopped is kept: the same command goes on."""
    with told():
        from lite import engine
        from lite.chat import formats
        from lite.chat.offers import BASE, can_chat, room
        from lite.chat.terminal import seats
        from lite.export.subject import decoding_of

        found = the_run(runs, run, lambda one: can_chat(one, model))
        place = room(found)
        (seat,) = seats(place, model, ())
        if model is None and seat.offer.name == BASE:
            say(UNTRAINED)
        loaded = recipe.load(found.folder.resolved, name=found.recipe)
        questions = formats.read_questions(prompts, format, tasks.load(place.task), limit)
        if out.exists() and not overwrite:
            raise RecipeError("--out", [f"{out} is there already; --overwrite replaces it"])
        if not out.parent.is_dir():
            raise RecipeError("--out", [f"there is no folder {out.parent}"])
        engine.prepare_environment(offline=offline)

        from lite.chat import batch
        from lite.runs.progress import Screen
        from lite.runs.signals import Switch

        usual = decoding_of(loaded)
        drawing = batch.Drawing(
            loaded.seed if seed is None else seed,
            usual.temperature if temperature is None else temperature,
            top_p or usual.top_p,
            max_new_tokens or usual.max_new_tokens,
            rows,
        )
        journal = batch.journal_of(out, place, seat.offer, drawing)
        screen = Screen(quiet=as_json)
        with the_card(place.base, "lite generate"), Switch(screen.say) as switch:
            engine.prepare_base(place.base)
            bank = engine.load_bank(place.base)
            with screen.progress("generate", len(questions), "questions", seat.offer.name, lambda counter: None) as bar:
                answers = batch.answer(bank, place, seat.offer, questions, drawing, journal, done=bar.advance, stop_asked=switch.asked)
        text = formats.written(
            answers, format, model=seat.offer.name, generator=f"{found.recipe}-{seat.offer.name}",
            prompt=lambda question: place.prompt(seat.offer, question.turns), at=time.time(),
        )  # fmt: skip
        write_text(out, text)
        journal.unlink(missing_ok=True)
        print(dumps({"out": str(out), "model": seat.offer.name, "questions": len(answers)}) if as_json else out)


def evaluate(
    run: Which,
    human_sheet: Annotated[bool, typer.Option("--human-sheet", help="write blind pairs for people to rate, with their key")] = False,
    ratings: Annotated[Path | None, typer.Option(metavar="FILE", help="read a sheet that was filled in")] = None,
    first: Annotated[str | None, typer.Option(help="the model that is rated (default: the one trained last)")] = None,
    second: Annotated[str, typer.Option(help="the model that it is held against")] = "base",
    rows: Annotated[int, typer.Option(min=1, help="pairs on the sheet at most; prompts to which both gave the same reply have none")] = 200,
    suite: Annotated[
        str | None,
        typer.Option(metavar="SUITE", help="lm-eval:TASK,TASK (before and after), or reward-bench:FILE.jsonl (who prefers what)"),
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="ID", help="the model of a suite (default: the newest that was trained)")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="of a suite: only so many questions of each task, or pairs")] = None,
    shots: Annotated[int | None, typer.Option(min=0, help="of lm-eval: answered examples (default: as the task has it)")] = None,
    tasks_from: Annotated[Path | None, typer.Option(metavar="DIR", help="of lm-eval: a folder with tasks of your own")] = None,
    offline: Offline = False,
    runs: Runs = RUNS,
    as_json: Json = False,
) -> None:
    """Judge a run: by people (a sheet of blind pairs, and its ratings), on public benchmarks, or its scorers on labelled pairs."""
    with told():
        if sum((human_sheet, ratings is not None, suite is not None)) != 1:
            raise RecipeError("lite eval", ["one of --human-sheet, --ratings FILE and --suite SUITE is needed"])
        from lite.chat.offers import can_chat
        from lite.evaluate import rating

        found = the_run(runs, run, lambda one: can_chat(one, model) if suite else bool(rating.evaluations(one)))
        if suite:
            _suite(found, suite, model, limit, shots, tasks_from, offline, as_json)
        elif ratings:
            read_back = rating.read_ratings(found, ratings)
            print(dumps(read_back) if as_json else rating.text(read_back))
        else:
            task = tasks.load(recipe.load(found.folder.resolved).task)
            made = rating.write_sheet(found, task, first=first, second=second, rows=rows)
            text = f"{made.sheet}\n{made.key} tells which is which: keep it from raters"
            counts = {"pairs": made.pairs, "same_reply": made.same, "no_row": made.left}
            print(dumps({"sheet": str(made.sheet), "key": str(made.key), **counts}) if as_json else text)
            say(made.text())


def _suite(
    run: read.Run, suite: str, model: str | None, limit: int | None, shots: int | None, include: Path | None, offline: bool, as_json: bool
) -> None:  # fmt: skip
    from lite import engine, suites

    name, rest = suites.parse(suite)
    engine.prepare_environment(offline=offline)
    with the_card(recipe.load(run.folder.resolved).base, "lite eval"):
        if name == "lm-eval":
            found = suites.benchmarks(run, rest.split(","), model=model, limit=limit, shots=shots, include=include, say=say)
        else:
            found = suites.pairs(run, Path(rest), model=model, limit=limit, say=say)
    print(dumps(found) if as_json else suites.text(found))
    say(found["kept"])


def export(
    run: Which,
    what: Annotated[str, typer.Option(metavar="[adapter|merged|ollama|dataset|job]", help="what to take out")] = "adapter",
    stage: Annotated[str | None, typer.Option(metavar="ID", help="of which stage (default: the latest that fits)")] = None,
    to: Annotated[Path | None, typer.Option(metavar="DIR", help="a new folder (default: one inside the run)")] = None,
    push: Annotated[str | None, typer.Option(metavar="REPO", help="also put it on the Hugging Face Hub, as you/name")] = None,
    public: Annotated[bool, typer.Option("--public", help="let everybody see a repository that --push makes")] = False,
    offline: Offline = False,
    runs: Runs = RUNS,
    as_json: Json = False,
) -> None:
    """Take a model, an adapter, or preference pairs out of a run, for other programs."""
    with told():
        if push and offline:
            raise RecipeError("lite export", ["--push needs the Hub, and --offline forbids it"])
        from lite import engine
        from lite.export import hub
        from lite.export.subject import choose, gives

        found = the_run(runs, run, lambda one: gives(one, what, stage))

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
                say(f"{_size(written)} of {_size(total)}")

        made = folders.export(found, what, stage=stage, to=to, done=done)
        address = hub.push(made, push, private=not public) if push else None
        if as_json:
            print(dumps({"folder": str(made.path), "stage": made.subject.stage.id, "files": made.files(), "pushed": address}))
            return
        print(made.path)
        say(f"{made.what} of {made.subject.stage.id}: {len(made.files())} files, {_size(sum(made.files().values()))}")
        if made.licence.id is None:
            say(f"the licence of {made.licence.of or made.subject.base_name} could not be read; look it up before you pass this on")
        if address:
            say(f"pushed: {address}")


def _size(n: int) -> str:
    return tables.bytes_text(n).strip()


def register(app: typer.Typer) -> None:
    for name, verb in (("chat", chat), ("generate", generate), ("eval", evaluate), ("export", export)):
        app.command(name)(verb)
