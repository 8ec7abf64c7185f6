"""The rules of the house, held by tests: who may import whom, that every knob is read, that files stay small, that README works."""

import ast
import importlib
import inspect
import pkgutil
import re
import shlex
import subprocess
import typing
from pathlib import Path

import pytest
from pydantic import BaseModel

import lite
from lite import recipe
from lite.contracts import CONTRACTS
from lite.errors import RecipeError
from lite.knobs import BaseSpec
from lite.plan import plan

PACKAGE = Path(lite.__file__).parent
ROOT = PACKAGE.parent
README = ROOT / "README.md"

# Imports point down; rooms on one line may use each other. The first name that fits a module decides.
RANKS: list[tuple[str, ...]] = [
    ("lite", "lite.errors", "lite.chance"),
    ("lite.text", "lite.tasks", "lite.templates", "lite.yamltext", "lite.micro"),
    ("lite.records", "lite.artifacts"),
    ("lite.knobs",),
    (
        "lite.contracts",
        "lite.recipe",
        "lite.unroll",
        "lite.wiring",
        "lite.plan",
        "lite.fit",
        "lite.runs",
        "lite.validate",
        "lite.tables",
        "lite.sources",
        "lite.objectives",
    ),
    ("lite.model",),
    ("lite.stages", "lite.evaluate", "lite.micro.build", "lite.micro.tokenizer", "lite.micro.figures"),
    ("lite.engine", "lite.doctor"),
    ("lite.parallel",),
    ("lite.chat", "lite.export", "lite.suites"),
    ("lite.ui",),
    ("lite.terminal",),
    ("lite.launch",),
    ("lite.verbs", "lite.sweeps", "lite.after"),
    ("lite.library",),
    ("lite.cli",),
]
HEAVY = ("transformers", "peft", "bitsandbytes", "unsloth")
MAY_BE_HEAVY = ("lite.model", "lite.micro.build", "lite.micro.tokenizer", "lite.micro.figures")
TORCH_FREE = ("lite.text", "lite.tasks", "lite.templates", "lite.records", "lite.artifacts", "lite.knobs", "lite.contracts", "lite.recipe", "lite.unroll", "lite.plan",
              "lite.runs", "lite.engine", "lite.parallel", "lite.cli", "lite.micro.grammar", "lite.micro.oracle", "lite.micro.splits", "lite.micro.corpus",
              "lite.micro.world", "lite.verbs", "lite.launch", "lite.sweeps", "lite.terminal", "lite.doctor", "lite.validate", "lite.tables", "lite.fit", "lite.sources", "lite.ui", "lite.chat.offers",
              "lite.chat.process", "lite.chat.terminal", "lite.chat.formats", "lite.evaluate.rewardbench", "lite.suites", "lite.after", *(f"lite.export.{name}" for name in ("parts", "rows", "speech", "subject", "licences", "cards", "snippets", "jobs", "folders", "hub")))  # fmt: skip

FILES = {
    ".".join(("lite", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def inside(module: str, rooms: tuple[str, ...]) -> bool:
    return any(module == room or module.startswith(room + ".") for room in rooms)


def rank(module: str) -> int:
    """The rank of the longest room name that fits."""
    fits = [
        (len(room), i) for i, rooms in enumerate(RANKS) for room in rooms if (module == room if room == "lite" else inside(module, (room,)))
    ]
    assert fits, f"{module} has no rank: give it one in {__name__}"
    return max(fits)[1]


def imported(path: Path, *, at_import: bool = False) -> set[str]:
    """The modules that a file imports, anywhere in it, or only those of its top level."""
    found: set[str] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if at_import else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            found |= {full if (full := f"{node.module}.{alias.name}") in FILES else node.module for alias in node.names}
    return found


@pytest.mark.parametrize("module", FILES)
def test_imports_point_down(module):
    up = [other for other in imported(FILES[module]) if other in FILES and rank(other) > rank(module)]
    lazily_by_the_engine = module == "lite.engine"  # the engine is above all rooms that it fetches
    assert not up or lazily_by_the_engine, f"{module} imports {up}, which lie above it"


def test_there_are_no_import_cycles():
    below = {module: {other for other in imported(path) if other in FILES and other != module} for module, path in FILES.items()}
    while below:
        free = {module for module, needs in below.items() if not needs & below.keys()}
        assert free, f"modules in a cycle: {sorted(below)}"
        below = {module: needs for module, needs in below.items() if module not in free}


@pytest.mark.parametrize("module", FILES)
def test_only_the_model_room_touches_the_model_libraries(module):
    heavy = [name for name in imported(FILES[module]) if inside(name, HEAVY)]
    assert not heavy or inside(module, MAY_BE_HEAVY), f"{module} imports {heavy}"


@pytest.mark.parametrize("module", [m for m in FILES if inside(m, TORCH_FREE)])
def test_torch_free_rooms_import_no_torch(module):
    assert not [name for name in imported(FILES[module], at_import=True) if inside(name, ("torch", "numpy", "trl", "datasets", *HEAVY))]


def test_every_module_imports():
    for info in pkgutil.walk_packages(lite.__path__, "lite."):
        importlib.import_module(info.name)


@pytest.mark.parametrize("name", recipe.built_in())
def test_every_recipe_plans(name):
    assert plan(recipe.load(recipe.built_in()[name]))


@pytest.mark.parametrize("kind", CONTRACTS)
def test_every_stage_keeps_its_contract(kind):
    contract = CONTRACTS[kind]
    stage = getattr(importlib.import_module(f"lite.stages.{kind}"), kind)
    parameters = inspect.signature(stage).parameters
    assert next(iter(parameters)) == "spec"
    assert set(parameters) == {"spec", *contract.reads, "out", "bench"}
    assert all(p.kind is p.KEYWORD_ONLY for name, p in parameters.items() if name != "spec")
    hints = typing.get_type_hints(stage)
    assert hints["spec"] is contract.spec
    assert hints["return"] is contract.gives
    assert hints["out"] is Path
    for name, need in contract.reads.items():
        assert need.type in {hints[name], *typing.get_args(hints[name])}, name
        assert (type(None) in typing.get_args(hints[name])) == need.optional, name


def stage_sources() -> str:
    rooms = ("lite.stages", "lite.evaluate", "lite.model", "lite.objectives")
    return "\n".join(path.read_text(encoding="utf-8") for module, path in FILES.items() if inside(module, rooms))


def specs() -> list[type[BaseModel]]:
    found: dict[str, type[BaseModel]] = {}

    def add(spec: type[BaseModel]) -> None:
        found[spec.__name__] = spec
        for info in spec.model_fields.values():
            if inspect.isclass(info.annotation) and issubclass(info.annotation, BaseModel):
                add(info.annotation)

    for spec in (BaseSpec, *(contract.spec for contract in CONTRACTS.values())):
        add(spec)
    return list(found.values())


@pytest.mark.parametrize("spec", specs(), ids=lambda s: s.__name__)
def test_every_knob_is_read(spec):
    source = stage_sources() + "\n".join(inspect.getsource(value.fget) for value in vars(spec).values() if isinstance(value, property))
    unread = [
        name for name in spec.model_fields if name != "preset" and not re.search(rf"\.{name}\b", source)
    ]  # preset: read by the spec itself
    assert not unread


@pytest.mark.parametrize("spec", specs(), ids=lambda s: s.__name__)
def test_every_knob_has_its_own_words_or_a_plain_name(spec):
    longer = [name for name, info in spec.model_fields.items() if "_" in name and not info.description]
    known = {"max_grad_norm", "weight_decay", "value_clip", "value_coef", "adam_eps", "max_new_tokens", "top_p"}
    assert not set(longer) - known


@pytest.mark.parametrize("module", FILES)
def test_files_stay_small(module):
    assert len(FILES[module].read_text(encoding="utf-8").splitlines()) <= 400


def test_git_ignores_no_source_file():
    """An unanchored `runs/` in .gitignore hides lite/runs from git and from the wheel."""
    files = "\n".join(
        str(path) for folder in ("lite", "tests", "recipes") for path in (ROOT / folder).rglob("*") if "__pycache__" not in path.parts
    )
    try:
        done = subprocess.run(["git", "check-ignore", "--stdin"], input=files, capture_output=True, text=True, cwd=ROOT, check=False)
    except FileNotFoundError:
        pytest.skip("no git here")  # nothing to ask: an archive without its history
    assert done.stdout == ""  # outside a checkout git says nothing either


def test_pure_numerics_know_nothing_of_the_rest():
    allowed = ("lite", "lite.errors", "lite.chance", "lite.objectives")
    for module in FILES:
        if inside(module, ("lite.objectives",)):
            foreign = [
                other for other in imported(FILES[module]) if other in FILES and other not in allowed and not inside(other, allowed[3:])
            ]
            assert not foreign, f"{module} imports {foreign}"


def test_no_eval_no_pickle_no_foreign_code():
    """S8, S9: code that comes with a model is never run, and nothing is unpickled."""
    for module, path in FILES.items():
        text = path.read_text(encoding="utf-8")
        assert "trust_remote_code=True" not in text, module
        called = {node.func.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
        assert not called & {"eval", "exec"}, module
        assert not {name for name in imported(path) if inside(name, ("pickle", "dill", "joblib", "cloudpickle", "shelve"))}, module
        loads = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute) and node.attr == "load"]
        assert not [node for node in loads if isinstance(node.value, ast.Name) and node.value.id in ("torch", "np", "numpy")], module


@pytest.mark.parametrize("name", recipe.built_in())
def test_no_recipe_asks_for_foreign_code(name):
    """S8: there is no such key, so none can be written either."""
    text = recipe.built_in()[name].read_text(encoding="utf-8")
    assert "trust_remote_code" not in text
    with pytest.raises(RecipeError, match="no such key"):
        recipe.loads(text, ["base.trust_remote_code=true"])


def readme_commands() -> list[list[str]]:
    """The `lite ...` lines in README's code blocks, without their comments."""
    text = README.read_text(encoding="utf-8")
    lines = [line.strip().removeprefix("$ ") for block in re.findall(r"```[a-z]*\n(.*?)```", text, re.S) for line in block.splitlines()]
    parts = [part.strip() for line in lines for part in line.split("&&")]
    return [words for words in (shlex.split(part, comments=True) for part in parts) if words and words[0].rsplit("/", 1)[-1] == "lite"]


@pytest.mark.skipif(not README.is_file(), reason="no README in this tree")
def test_the_commands_of_the_readme_exist():
    from typer.main import get_command

    from lite.cli import app

    known = get_command(app).commands  # type: ignore[attr-defined]
    for words in readme_commands():
        assert len(words) == 1 or words[1].startswith("-") or words[1] in known, words
        if len(words) > 1 and words[1] in known:
            options = {option for parameter in known[words[1]].params for option in parameter.opts}
            assert not [word for word in words[2:] if word.startswith("-") and word.split("=")[0] not in {*options, "--help"}], words
        for word in words[2:]:
            if word.startswith("recipes/"):
                assert (ROOT / word).is_file(), word


@pytest.mark.skipif(not README.is_file(), reason="no README in this tree")
def test_the_links_of_the_readme_lead_somewhere():
    for target in re.findall(r"\]\(([^)#\s]+)\)", README.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:", target):
            assert (ROOT / target).exists(), target
