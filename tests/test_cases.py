"""Every failure and attack case of the page has tests, and CASES.md names them rightly."""

import re
from pathlib import Path

TESTS = Path(__file__).parent
NAMES = [*(f"R{n}" for n in range(6, 10)), *(f"S{n}" for n in range(1, 17))]


def listed() -> dict[str, list[tuple[str, str]]]:
    rows = [line.split(" | ") for line in (TESTS / "CASES.md").read_text(encoding="utf-8").splitlines() if re.match(r"\| [RS]\d", line)]
    return {row[0].strip("| "): re.findall(r"(test_\w+\.py)::(test_\w+)", row[-1]) for row in rows}


def test_every_case_has_tests():
    assert list(listed()) == NAMES and all(listed().values())


def test_every_test_that_is_named_exists():
    missing = []
    for file, name in {one for tests in listed().values() for one in tests}:
        found = [path for path in TESTS.rglob(file) if f"def {name}(" in path.read_text(encoding="utf-8")]
        missing += [] if found else [f"{file}::{name}"]
    assert not missing
