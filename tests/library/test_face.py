"""What `import lite` promises to a program: few names, fetched when they are asked for."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import lite
from lite.errors import LiteError

HEAVY = ("torch", "transformers", "peft", "pydantic", "yaml", "numpy")


def test_importing_lite_loads_nothing():
    code = f"import sys, lite; print([m for m in {HEAVY} if m in sys.modules], lite.__version__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("[] ")


def test_the_public_names_are_there():
    for name, module in lite.PUBLIC.items():
        assert getattr(lite, name).__module__ == module
        assert name in dir(lite)
    assert lite.LiteError is LiteError


def test_another_name_is_said_to_be_missing():
    with pytest.raises(AttributeError, match="no attribute 'Ppo'"):
        lite.Ppo  # noqa: B018  # type: ignore[attr-defined]
    from lite import recipe  # a module, not a public name

    assert recipe.built_in()


def test_type_checkers_see_the_same_names():
    stub = Path(lite.__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    told = {name: module for module, name in re.findall(r"from ([\w.]+) import (\w+) as \2", stub)}
    assert told == lite.PUBLIC
