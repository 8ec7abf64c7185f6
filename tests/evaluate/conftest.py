from collections.abc import Iterator

import pytest

from tests.evaluate.stub import Desk, Stub, served


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    stub = Stub()
    with served(stub) as url:
        yield Desk(stub, url, [])
