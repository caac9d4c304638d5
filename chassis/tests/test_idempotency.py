"""Which keys are taken, which bodies are the same, and what is answered again."""

import json
import random
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.idempotency import StoredAnswer, fingerprint, optional_key, required_key
from chassis.problems import MEDIA_TYPE, IdempotencyKeyInvalid, IdempotencyKeyMissing

Json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def shuffled(value: Any, order: random.Random) -> Any:
    """The same JSON, its members in another order."""
    match value:
        case dict():
            members: list[tuple[str, Any]] = list(value.items())  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
            order.shuffle(members)
            return {name: shuffled(member, order) for name, member in members}
        case list():
            return [shuffled(member, order) for member in value]  # pyright: ignore[reportUnknownVariableType]
        case _:
            return value


@given(Json, st.randoms(use_true_random=False), st.sampled_from([None, 1, 4, "\t"]))
def test_order_of_members_and_white_space_make_no_other_body(
    body: Any, order: random.Random, indent: int | str | None
) -> None:
    written = json.dumps(shuffled(body, order), indent=indent, ensure_ascii=order.random() < 0.5)
    assert fingerprint(orjson.loads(written)) == fingerprint(orjson.loads(orjson.dumps(body)))


@given(Json, Json)
def test_another_body_has_another_fingerprint(one: Any, other: Any) -> None:
    same = orjson.dumps(one, option=orjson.OPT_SORT_KEYS) == orjson.dumps(other, option=orjson.OPT_SORT_KEYS)
    assert (fingerprint(one) == fingerprint(other)) == same


def test_the_order_of_a_list_counts() -> None:
    assert fingerprint([1, 2]) != fingerprint([2, 1])
    assert fingerprint({"a": None}) != fingerprint({})


@pytest.mark.parametrize("key", ["a", "k" * 255, "any string: !§$%", " "])
async def test_a_key_of_1_to_255_characters_is_taken(key: str) -> None:
    assert await required_key(key) == await optional_key(key) == key


@pytest.mark.parametrize("key", ["", "k" * 256])
async def test_a_key_of_another_length_is_refused(key: str) -> None:
    for take in (required_key, optional_key):
        with pytest.raises(IdempotencyKeyInvalid):
            await take(key)


async def test_only_a_route_that_needs_a_key_misses_it() -> None:
    assert await optional_key(None) is None
    with pytest.raises(IdempotencyKeyMissing):
        await required_key(None)


def test_a_stored_answer_is_given_again_as_it_was_and_says_so() -> None:
    stored = StoredAnswer(201, b'{"id": 1}', "/api/v1/orders/1")
    first, again = stored.response(), stored.response(replayed=True)
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    for answer in (first, again):
        assert (answer.status_code, answer.body, answer.headers["location"]) == (201, b'{"id": 1}', "/api/v1/orders/1")
        assert answer.media_type == "application/json"


def test_a_stored_problem_stays_a_problem_document() -> None:
    answer = StoredAnswer(402, b"{}").response(replayed=True)
    assert answer.media_type == MEDIA_TYPE
    assert "location" not in answer.headers
