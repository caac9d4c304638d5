"""Time does not pass in the model."""

import pytest

from services.order import checkout, saga
from tests.model.world import MOMENT


@pytest.fixture(autouse=True)
def clock_that_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (saga, checkout):
        monkeypatch.setattr(module, "now", lambda: MOMENT)
