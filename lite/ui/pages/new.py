"""New run: choose a recipe and a base, see what it costs, start it."""

from typing import Any

import gradio as gr

from lite.errors import RecipeError
from lite.runs.layout import RUN_NAME
from lite.ui import launch, newrun
from lite.ui.fitview import preflight
from lite.ui.newrun import SETTINGS, Choice, Preview, RecipeCard
from lite.ui.site import QUIET, Site, title, told

THIS = "this machine"
ALL_RUNS = "/"
"""Where a sweep leads to; no run has this name."""
GO_THERE = f"(name) => {{ window.location.href = name === '{ALL_RUNS}' ? './' : 'run?name=' + encodeURIComponent(name) }}"
KINDS = ("No graphics card needed", "For a graphics card", "All")


def build(site: Site, page: gr.Blocks) -> None:
    recipes = newrun.recipe_cards()
    first = KINDS[1 if newrun.this_card() else 0]
    gr.HTML(
        title(
            "New run", "Choose what the model should learn and which base to start from. What it costs is told before anything is loaded."
        )
    )
    with gr.Row():
        with gr.Column(scale=3, min_width=320):
            kind = gr.Radio(KINDS, value=first, show_label=False, container=False)
            chosen = gr.Radio(_choices(recipes, first), value=_of_kind(recipes, first)[0].name, label="Recipe", elem_classes="cards")
            with gr.Row():
                base = gr.Dropdown(
                    newrun.offered(), label="Base model", allow_custom_value=True, info="From the list, any id of the Hub, or a folder"
                )
                card = gr.Dropdown(
                    [THIS, *(f"{size} GB" for size in newrun.CARD_SIZES)],
                    value=THIS,
                    label="Graphics card",
                    info="To see what another card could do",
                )
            with gr.Row(elem_classes="settings"):
                numbers = [
                    gr.Number(label=s.label, info=s.about, precision=0 if s.whole else None, min_width=160, visible=False) for s in SETTINGS
                ]
            with gr.Row():
                seed = gr.Number(label="Seed", info="The same seed gives the same run", precision=0, minimum=0, min_width=160)
                label = gr.Textbox(label="Name", info="Optional: letters, digits, '.', '-', '_'", max_length=50, min_width=160)
            take_over = gr.Checkbox(
                True, label="Take over what is done", info="Stages with the same settings in this recipe's latest run are not repeated"
            )
            with gr.Accordion("All settings (YAML)", open=False):
                text = gr.Code(language="yaml", show_label=False, lines=16, max_lines=40, interactive=True)
                with gr.Row():
                    reset = gr.Button("Back to the recipe", size="sm")
                    save = gr.DownloadButton("Save YAML", size="sm")
        with gr.Column(scale=2, min_width=320, elem_classes="sticky"):
            cost = gr.HTML()
            command = gr.Textbox(label="The same on the command line", interactive=False, lines=2, buttons=["copy"], elem_classes="command")
            start = gr.Button("Start", variant="primary", size="lg", interactive=False)
    form = [text, chosen, base, card, seed, label, take_over, *numbers]

    def choose_and_look(name: str, card: str, label: str, take_over: bool):
        known = next((r for r in recipes if r.name == name), recipes[0])
        content = known.file.read_text(encoding="utf-8")
        loaded, values = newrun.recipe.loads(content), newrun.recipe_values(content)
        given = (content, known.name, loaded.base.model, card, loaded.seed, label, take_over, *(values.get(s.key) for s in SETTINGS))
        return [content, *fill(content), *look(*given)]

    def fill(content: str) -> list[Any]:
        """The form's fields as the recipe has them."""
        try:
            loaded = newrun.recipe.loads(content)
        except RecipeError:
            return [gr.skip()] * (2 + len(numbers))
        values = newrun.recipe_values(content)
        fields = [gr.Number(value=values.get(s.key), visible=s.key in values) for s in SETTINGS]
        return [loaded.base.model, loaded.seed, *fields]

    def look(*given: Any):
        found = _preview(site, *given)
        ready = not found.problems and not (found.refusals and given[3] == THIS)
        return preflight(found), found.command, gr.Button(interactive=ready)

    @told
    def go(*given: Any) -> str:
        choice, found = _choice(*given), _preview(site, *given)
        if found.problems:
            raise RecipeError("recipe", list(found.problems))
        site.chat.stop()
        name, label = choice.name, choice.label or None
        if len(found.wanted) > 1:
            launch.start_all(site.runs, choice.text, found.wanted, name=name, label=label)
            return ALL_RUNS
        taken = found.old.name if found.old and found.cached else None
        return launch.start(site.runs, choice.text, found.overrides, name=name, label=label, from_run=taken).name

    def to_save(content: str, name: str) -> str:
        return site.download(f"{name if RUN_NAME.fullmatch(name or '') else 'recipe'}.yaml", content)

    def only(kind: str, before: str):
        """The cards of a kind; the one that was chosen stays chosen if it is among them."""
        shown = _of_kind(recipes, kind)
        return gr.Radio(_choices(recipes, kind), value=before if before in [r.name for r in shown] else shown[0].name)

    filled = [base, seed, *numbers]
    told_of = [cost, command, start]
    both = [text, *filled, *told_of]
    page.load(choose_and_look, [chosen, card, label, take_over], both, **QUIET)
    gr.on([chosen.input, reset.click], choose_and_look, [chosen, card, label, take_over], both, **QUIET)
    kind.input(only, [kind, chosen], chosen, **QUIET).then(choose_and_look, [chosen, card, label, take_over], both, **QUIET)
    text.blur(fill, text, filled, **QUIET).then(look, form, told_of, **QUIET)
    gr.on(
        [f.change for f in (card, label, take_over)] + [f.input for f in (base, seed, *numbers)],
        look,
        form,
        told_of,
        trigger_mode="always_last",
        **QUIET,
    )
    save.click(to_save, [text, chosen], save, api_visibility="private")
    name = gr.Textbox("", visible="hidden", show_label=False)  # a State would not reach the line of script
    start.click(lambda: gr.Button("Starting ...", interactive=False), None, start, **QUIET).then(
        go, form, name, api_visibility="private", show_progress="hidden"
    ).success(None, name, None, js=GO_THERE).failure(lambda: gr.Button("Start", interactive=True), None, start, **QUIET)


def _of_kind(recipes: list[RecipeCard], kind: str) -> list[RecipeCard]:
    return [r for r in recipes if kind == KINDS[2] or r.on_tiny == (kind == KINDS[0])] or recipes


def _choices(recipes: list[RecipeCard], kind: str) -> list[tuple[str, str]]:
    return [(f"{r.title}\n{r.about}\n{_needs(r.needs)}", r.name) for r in _of_kind(recipes, kind)]


def _needs(card: str) -> str:
    return "Needs no graphics card" if card.startswith("none") else f"Card: {card}"


def _choice(text: str, name: str, base: str, card: str, seed: float | None, label: str, take_over: bool, *values: float | None) -> Choice:
    base = base.strip() if isinstance(base, str) else ""
    named = dict(zip((s.key for s in SETTINGS), values, strict=True))
    return Choice(text or "", name or "recipe", base, named, seed, (label or "").strip(), bool(take_over))


def _preview(site: Site, *given: Any) -> Preview:
    choice = _choice(*given)
    wrong = [word for word in (choice.name, choice.label or "a") if not RUN_NAME.fullmatch(word)]
    if wrong:
        return Preview(problems=(f"Name: letters, digits, '.', '-' and '_', a letter or digit first (got {wrong[0]!r})",))
    try:
        return newrun.preview(choice, runs=site.runs, roots=site.folders, card_gib=_gib(given[3]))
    except (ValueError, OverflowError) as e:
        return Preview(problems=(f"A number cannot be read: {e}",))


def _gib(card: str) -> float | None:
    return float(card.split()[0]) if card and card != THIS else newrun.this_card()
