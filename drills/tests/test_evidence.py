"""A storm that hit nothing, or was not written down whole, proves nothing."""

from typing import Any

import pytest

from drills.evidence import Evidence, Exchange, Harm, Promise

REQUEST = Exchange(1.0, 0.1, "GET /api/v1/products", 200)
HARM = Harm("kill order-1", 1.0, 1.0)


def evidence(**changed: Any) -> Evidence:
    usual: dict[str, Any] = {
        "name": "kill", "title": "", "command": "", "seed": 1, "began_at": "", "seconds": 2.0, "machine": "",
        "versions": "", "sent": 1, "exchanges": [REQUEST], "harms": [HARM],
    }  # fmt: skip
    return Evidence(**usual | changed)


def test_a_drill_that_harmed_and_found_nothing_wrong_passes() -> None:
    assert evidence().broken == []


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"harms": []}, "no harm was done"),
        ({"sent": 2}, "2 requests were sent and 1 written down"),
        ({"exchanges": [REQUEST, REQUEST]}, "1 requests were sent and 2 written down"),
        ({"exchanges": [], "sent": 0}, "no request was sent"),
        ({"violations": ["lost"]}, "lost"),
        ({"promises": [Promise("within 2 s", "3 s", kept=False)]}, "within 2 s: 3 s"),
    ],
)
def test_a_drill_fails_and_says_why(changed: dict[str, Any], reason: str) -> None:
    assert evidence(**changed).broken == [reason]


def test_a_promise_that_a_short_run_cannot_judge_does_not_fail_it() -> None:
    assert evidence(promises=[Promise("within 2 s", "3 s", kept=False, judged=False)]).broken == []
