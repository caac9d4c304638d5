"""Every route with every status that it answers."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest

from chassis.app import Service
from chassis.database import Database
from chassis.testing import UserTokens, client, settings_for
from services.payment.app import create_app
from services.payment.settings import PaymentSettings
from services.payment.simulator import Simulator
from services.payment.tests.harness import Callers, Holding, Json, fields, problem, wanted

DECLINES = [
    ("tok_declined", "declined"),
    ("tok_insufficient_funds", "insufficient_funds"),
    ("tok_expired_card", "expired_card"),
]


def statuses(payment: Json) -> list[str]:
    return [entry["status"] for entry in payment["history"]]


# The order service authorises


@pytest.mark.parametrize("method", ["tok_visa", "tok_mastercard", "tok_slow"])
async def test_a_method_that_approves_is_authorised(callers: Callers, method: str) -> None:
    order_id = uuid4()
    answer = await callers.order("PUT", order_id, body=wanted(1999, method=method, currency="EUR"))
    payment = answer.json()
    assert answer.status_code == 200
    assert UUID(payment.pop("id")).version == 7
    (entry,) = payment.pop("history")
    assert entry["status"] == "authorised"
    assert entry["at"].endswith("Z")
    assert payment.pop("provider_reference").startswith("sim_")
    assert payment == {
        "order_id": str(order_id),
        "amount": {"amount_minor": 1999, "currency": "EUR"},
        "status": "authorised",
        "decline_code": None,
        "captured": {"amount_minor": 0, "currency": "EUR"},
        "refunded": {"amount_minor": 0, "currency": "EUR"},
    }


@pytest.mark.parametrize(("method", "decline_code"), DECLINES)
async def test_a_method_that_declines_says_why(callers: Callers, method: str, decline_code: str) -> None:
    payment = await callers.authorised(method=method)
    assert (payment["status"], payment["decline_code"]) == ("declined", decline_code)
    assert payment["provider_reference"] is None
    assert payment["history"][0]["reason"] == decline_code


async def test_an_answer_that_was_lost_is_503_and_found_by_asking_again(callers: Callers) -> None:
    order_id, body = uuid4(), wanted(method="tok_timeout")
    lost = await callers.order("PUT", order_id, body=body)
    assert problem(lost) == (503, "unavailable")
    assert "retry-after" in lost.headers
    assert (await callers.order("GET", order_id)).json()["status"] == "pending"
    assert (await callers.order("PUT", order_id, body=body)).json()["status"] == "authorised"


async def test_asking_again_answers_the_same(callers: Callers) -> None:
    order_id, body = uuid4(), wanted()
    first = await callers.order("PUT", order_id, body=body)
    again = await callers.order("PUT", order_id, body=body)
    assert (again.status_code, again.content) == (200, first.content)


async def test_asking_again_after_the_capture_answers_what_it_is_now(callers: Callers) -> None:
    order_id, body = uuid4(), wanted()
    await callers.order("PUT", order_id, body=body)
    captured = await callers.order("POST", order_id, "/capture")
    assert (await callers.order("PUT", order_id, body=body)).content == captured.content


@pytest.mark.parametrize(
    "other",
    [
        {"user_id": str(uuid4())},
        {"payment_method": "tok_mastercard"},
        {"amount": {"amount_minor": 1001, "currency": "USD"}},
        {"amount": {"amount_minor": 1000, "currency": "EUR"}},
    ],
)
async def test_another_payment_for_the_same_order_is_refused(callers: Callers, other: Json) -> None:
    order_id, body = uuid4(), wanted()
    await callers.order("PUT", order_id, body=body)
    assert problem(await callers.order("PUT", order_id, body=body | other)) == (409, "illegal-transition")


async def test_a_payment_that_was_voided_before_it_was_asked_for_stays_so(callers: Callers) -> None:
    order_id = uuid4()
    await callers.order("POST", order_id, "/void")
    answer = await callers.order("PUT", order_id, body=wanted(700))
    assert (answer.status_code, answer.json()["status"]) == (200, "voided")
    assert answer.json()["amount"] == {"amount_minor": 700, "currency": "USD"}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (wanted(method="tok_unknown"), "payment_method"),
        (wanted(method="4111111111111111"), "payment_method"),
        (wanted(method=""), "payment_method"),
        (wanted(method="tok_visa\x00"), "payment_method"),
        (wanted(-1), "amount.amount_minor"),
        (wanted(10**12 + 1), "amount.amount_minor"),
        (wanted(currency="usd"), "amount.currency"),
        (wanted(currency="XXX"), "amount.currency"),
        (wanted() | {"amount": {"amount_minor": 1.5, "currency": "USD"}}, "amount.amount_minor"),
        (wanted() | {"user_id": "ada"}, "user_id"),
        (wanted() | {"card_number": "4111111111111111"}, "card_number"),
        ({"user_id": str(uuid4()), "payment_method": "tok_visa"}, "amount"),
    ],
)
async def test_a_malformed_payment_is_refused_and_nothing_is_kept(callers: Callers, body: Json, field: str) -> None:
    order_id = uuid4()
    assert fields(await callers.order("PUT", order_id, body=body)) == [field]
    assert problem(await callers.order("GET", order_id)) == (404, "not-found")


async def test_the_order_service_is_told_of_an_id_that_is_none(callers: Callers) -> None:
    assert fields(await callers.order("PUT", "1", body=wanted())) == ["order_id"]


INTERNAL = [
    ("PUT", "/payments/{}", wanted()),
    ("GET", "/payments/{}", None),
    ("POST", "/payments/{}/capture", None),
    ("POST", "/payments/{}/void", None),
    ("POST", "/payments/{}/refund", {"reason": "cancelled"}),
]


@pytest.mark.parametrize(("method", "path", "body"), [*INTERNAL, ("GET", "/audit", None)])
async def test_an_internal_call_without_a_credential_is_401(
    callers: Callers, tokens: UserTokens, method: str, path: str, body: Any
) -> None:
    path = f"/internal/v1{path.format(uuid4())}"
    answer = await callers.http.request(method, path, json=body)
    assert problem(answer) == (401, "unauthenticated")
    assert "www-authenticate" in answer.headers
    user = await callers.http.request(method, path, json=body, headers=tokens.headers(uuid4(), "admin"))
    assert problem(user) == (401, "unauthenticated")


@pytest.mark.parametrize("caller", ["user", "audit"])
@pytest.mark.parametrize(("method", "path", "body"), INTERNAL)
async def test_an_internal_call_by_another_service_is_403(
    callers: Callers, caller: str, method: str, path: str, body: Any
) -> None:
    answer = await callers.call(caller, method, path.format(uuid4()), body)
    assert problem(answer) == (403, "forbidden")


# The order service captures


async def test_a_capture_takes_everything_once(callers: Callers) -> None:
    payment = await callers.authorised(1999)
    first = await callers.order("POST", payment["order_id"], "/capture")
    again = await callers.order("POST", payment["order_id"], "/capture")
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.content == first.content
    assert first.json()["status"] == "captured"
    assert first.json()["captured"] == {"amount_minor": 1999, "currency": "USD"}
    assert first.json()["provider_reference"] == payment["provider_reference"]
    assert statuses(first.json()) == ["authorised", "captured"]


async def test_a_capture_of_what_is_refunded_already_answers_that(callers: Callers) -> None:
    payment = await callers.captured()
    refunded = await callers.order("POST", payment["order_id"], "/refund", {"reason": "cancelled"})
    assert (await callers.order("POST", payment["order_id"], "/capture")).content == refunded.content


async def test_a_capture_of_nothing_known_is_404(callers: Callers) -> None:
    assert problem(await callers.order("POST", uuid4(), "/capture")) == (404, "not-found")


async def test_a_capture_of_what_was_declined_is_refused(callers: Callers) -> None:
    payment = await callers.authorised(method="tok_declined")
    answer = await callers.order("POST", payment["order_id"], "/capture")
    assert problem(answer) == (409, "illegal-transition")
    assert answer.json()["payment_status"] == "declined"


async def test_a_capture_of_what_was_voided_is_refused(callers: Callers) -> None:
    payment = await callers.authorised()
    await callers.order("POST", payment["order_id"], "/void")
    answer = await callers.order("POST", payment["order_id"], "/capture")
    assert problem(answer) == (409, "illegal-transition")


# The order service voids


async def test_a_void_ends_an_authorisation_and_may_be_repeated(callers: Callers) -> None:
    payment = await callers.authorised()
    first = await callers.order("POST", payment["order_id"], "/void")
    again = await callers.order("POST", payment["order_id"], "/void")
    assert (first.status_code, again.content) == (200, first.content)
    assert statuses(first.json()) == ["authorised", "voided"]


async def test_a_void_of_nothing_known_is_remembered(callers: Callers) -> None:
    order_id = uuid4()
    answer = await callers.order("POST", order_id, "/void")
    assert (answer.status_code, answer.json()["status"]) == (200, "voided")
    assert answer.json()["amount"] is None
    assert (await callers.order("GET", order_id)).content == answer.content
    assert problem(await callers.order("POST", order_id, "/capture")) == (409, "illegal-transition")


async def test_a_void_of_what_was_declined_answers_declined(callers: Callers) -> None:
    payment = await callers.authorised(method="tok_declined")
    answer = await callers.order("POST", payment["order_id"], "/void")
    assert (answer.status_code, answer.json()) == (200, payment)


async def test_a_void_of_what_was_captured_is_refused(callers: Callers) -> None:
    payment = await callers.captured()
    answer = await callers.order("POST", payment["order_id"], "/void")
    assert problem(answer) == (409, "illegal-transition")
    assert (await callers.order("GET", payment["order_id"])).json() == payment


async def test_a_void_resolves_what_is_unknown(callers: Callers) -> None:
    order_id, body = uuid4(), wanted(method="tok_timeout")
    assert (await callers.order("PUT", order_id, body=body)).status_code == 503
    assert (await callers.order("POST", order_id, "/void")).json()["status"] == "voided"
    assert (await callers.order("PUT", order_id, body=body)).json()["status"] == "voided"


# The order service refunds the rest


async def test_the_rest_is_refunded_once(callers: Callers) -> None:
    payment = await callers.captured(1000)
    await callers.refund(payment["id"], {"amount_minor": 300, "reason": "a scratch"})
    first = await callers.order("POST", payment["order_id"], "/refund", {"reason": "cancelled"})
    again = await callers.order("POST", payment["order_id"], "/refund", {"reason": "cancelled"})
    assert (first.status_code, again.content) == (200, first.content)
    assert first.json()["status"] == "refunded"
    assert first.json()["refunded"] == {"amount_minor": 1000, "currency": "USD"}
    assert [(entry["status"], entry.get("reason")) for entry in first.json()["history"]] == [
        ("authorised", None),
        ("captured", None),
        ("partially_refunded", "a scratch"),
        ("refunded", "cancelled"),
    ]


async def test_a_payment_of_nothing_goes_the_same_way(callers: Callers) -> None:
    payment = await callers.captured(0)
    assert payment["status"] == "captured"
    first = await callers.order("POST", payment["order_id"], "/refund", {"reason": "cancelled"})
    again = await callers.order("POST", payment["order_id"], "/refund", {"reason": "cancelled"})
    assert (first.json()["status"], again.content) == ("refunded", first.content)


async def test_the_rest_of_what_was_not_captured_is_refused(callers: Callers) -> None:
    for method in ("tok_visa", "tok_declined"):
        payment = await callers.authorised(method=method)
        answer = await callers.order("POST", payment["order_id"], "/refund", {"reason": "cancelled"})
        assert problem(answer) == (409, "illegal-transition")


async def test_the_rest_of_nothing_known_is_404(callers: Callers) -> None:
    answer = await callers.order("POST", uuid4(), "/refund", {"reason": "cancelled"})
    assert problem(answer) == (404, "not-found")


async def test_the_rest_needs_a_reason(callers: Callers) -> None:
    payment = await callers.captured()
    assert fields(await callers.order("POST", payment["order_id"], "/refund", {})) == ["reason"]


# Users list


async def test_the_list_is_the_callers_newest_first_page_by_page(callers: Callers) -> None:
    user_id = uuid4()
    made = [await callers.authorised(user_id=user_id) for _ in range(5)]
    await callers.authorised()
    found: list[Json] = []
    params: Json = {"limit": 2}
    for size in (2, 2, 1):
        page = (await callers.get("", user_id, **params)).json()
        assert len(page["items"]) == size
        found += page["items"]
        params["cursor"] = page["next_cursor"]
    assert params["cursor"] is None
    assert found == made[::-1]


async def test_the_list_of_an_order_is_its_payment(callers: Callers) -> None:
    user_id = uuid4()
    payment = await callers.authorised(user_id=user_id)
    await callers.authorised(user_id=user_id)
    own = await callers.get("", user_id, order_id=payment["order_id"])
    assert own.json() == {"items": [payment], "next_cursor": None}
    assert (await callers.get("", uuid4(), order_id=payment["order_id"])).json()["items"] == []
    assert (await callers.get("", uuid4(), "admin", order_id=payment["order_id"])).json()["items"] == [payment]
    assert (await callers.get("", user_id, order_id=uuid4())).json()["items"] == []


async def test_what_is_not_known_yet_is_not_shown(callers: Callers) -> None:
    user_id, order_id = uuid4(), uuid4()
    body = wanted(method="tok_timeout", user_id=user_id)
    await callers.order("PUT", order_id, body=body)
    pending = (await callers.order("GET", order_id)).json()
    assert (await callers.get("", user_id)).json()["items"] == []
    assert (await callers.get("", user_id, order_id=order_id)).json()["items"] == []
    assert problem(await callers.get(f"/{pending['id']}", user_id)) == (404, "not-found")
    await callers.order("PUT", order_id, body=body)
    assert [payment["id"] for payment in (await callers.get("", user_id)).json()["items"]] == [pending["id"]]


async def test_what_was_voided_before_it_was_asked_for_is_nobodys(callers: Callers) -> None:
    order_id = uuid4()
    payment = (await callers.order("POST", order_id, "/void")).json()
    assert (await callers.get("", uuid4(), "admin", order_id=order_id)).json()["items"] == []
    assert problem(await callers.get(f"/{payment['id']}", uuid4(), "admin")) == (404, "not-found")
    assert problem(await callers.refund(payment["id"], {"reason": "kindness"})) == (404, "not-found")


async def test_a_cursor_of_another_filter_is_400(callers: Callers) -> None:
    user_id = uuid4()
    payments = [await callers.authorised(user_id=user_id) for _ in range(2)]
    cursor = (await callers.get("", user_id, limit=1)).json()["next_cursor"]
    answer = await callers.get("", user_id, cursor=cursor, order_id=payments[0]["order_id"])
    assert problem(answer) == (400, "invalid-cursor")


@pytest.mark.parametrize("cursor", ["garbage", "!", "é", "e30", "0", "null"])
async def test_a_damaged_cursor_is_400(callers: Callers, cursor: str) -> None:
    assert problem(await callers.get("", uuid4(), cursor=cursor)) == (400, "invalid-cursor")


@pytest.mark.parametrize(
    ("params", "field"), [({"limit": 0}, "limit"), ({"limit": 101}, "limit"), ({"order_id": "1"}, "order_id")]
)
async def test_a_parameter_out_of_range_is_422(callers: Callers, params: Json, field: str) -> None:
    assert fields(await callers.get("", uuid4(), **params)) == [field]


# Users read


async def test_a_payment_is_shown_to_its_user_and_to_an_admin(callers: Callers) -> None:
    user_id = uuid4()
    payment = await callers.captured(user_id=user_id)
    assert (await callers.get(f"/{payment['id']}", user_id)).json() == payment
    assert (await callers.get(f"/{payment['id']}", uuid4(), "admin")).json() == payment
    assert problem(await callers.get(f"/{payment['id']}", uuid4())) == (404, "not-found")


async def test_a_payment_that_does_not_exist_is_404(callers: Callers) -> None:
    assert problem(await callers.get(f"/{uuid4()}", uuid4(), "admin")) == (404, "not-found")
    assert fields(await callers.get("/1", uuid4())) == ["payment_id"]


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("GET", "/{}"), ("POST", "/{}/refund")])
async def test_a_public_call_without_a_token_is_401(callers: Callers, method: str, path: str) -> None:
    body = {"reason": "kindness"} if method == "POST" else None
    answer = await callers.http.request(method, f"/api/v1/payments{path.format(uuid4())}", json=body)
    assert problem(answer) == (401, "unauthenticated")
    assert "www-authenticate" in answer.headers


# Admins refund


async def test_a_refund_in_parts_ends_in_refunded(callers: Callers) -> None:
    payment = await callers.captured(1000)
    part = await callers.refund(payment["id"], {"amount_minor": 400, "reason": "a scratch"})
    assert (part.status_code, part.json()["status"]) == (200, "partially_refunded")
    assert part.json()["refunded"] == {"amount_minor": 400, "currency": "USD"}
    assert part.json()["captured"] == {"amount_minor": 1000, "currency": "USD"}
    rest = await callers.refund(payment["id"], {"amount_minor": 600, "reason": "another"})
    assert rest.json()["status"] == "refunded"


async def test_a_refund_without_an_amount_is_of_all_that_is_left(callers: Callers) -> None:
    payment = await callers.captured(1000)
    await callers.refund(payment["id"], {"amount_minor": 1, "reason": "a scratch"})
    answer = await callers.refund(payment["id"], {"amount_minor": None, "reason": "broken"})
    assert (answer.json()["status"], answer.json()["refunded"]["amount_minor"]) == ("refunded", 1000)


async def test_a_refund_of_more_than_is_left_is_refused_with_what_is_left(callers: Callers) -> None:
    payment = await callers.captured(1000)
    await callers.refund(payment["id"], {"amount_minor": 400, "reason": "a scratch"})
    answer = await callers.refund(payment["id"], {"amount_minor": 601, "reason": "greed"})
    assert problem(answer) == (409, "refund-exceeds-captured")
    assert answer.json()["refundable"] == {"amount_minor": 600, "currency": "USD"}
    await callers.refund(payment["id"], {"reason": "the rest"})
    for body in ({"amount_minor": 1, "reason": "greed"}, {"reason": "greed"}):
        assert problem(await callers.refund(payment["id"], body)) == (409, "refund-exceeds-captured")


@pytest.mark.parametrize("method", ["tok_visa", "tok_declined"])
@pytest.mark.parametrize("amount", [{}, {"amount_minor": 1}])
async def test_a_refund_of_what_was_never_captured_is_refused(callers: Callers, method: str, amount: Json) -> None:
    payment = await callers.authorised(method=method)
    answer = await callers.refund(payment["id"], {"reason": "kindness", **amount})
    assert problem(answer) == (409, "refund-exceeds-captured")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"amount_minor": 0, "reason": "r"}, "amount_minor"),
        ({"amount_minor": -1, "reason": "r"}, "amount_minor"),
        ({"amount_minor": 10**12 + 1, "reason": "r"}, "amount_minor"),
        ({"amount_minor": "1", "reason": "r"}, "amount_minor"),
        ({"amount_minor": 1.5, "reason": "r"}, "amount_minor"),
        ({"amount_minor": True, "reason": "r"}, "amount_minor"),
        ({"amount_minor": 1}, "reason"),
        ({"amount_minor": 1, "reason": ""}, "reason"),
        ({"amount_minor": 1, "reason": "r" * 501}, "reason"),
        ({"amount_minor": 1, "reason": "a\x00b"}, "reason"),
        ({"amount_minor": 1, "reason": "r", "surprise": 1}, "surprise"),
    ],
)
async def test_a_malformed_refund_is_refused_and_nothing_moves(callers: Callers, body: Json, field: str) -> None:
    payment = await callers.captured()
    assert fields(await callers.refund(payment["id"], body)) == [field]
    assert (await callers.order("GET", payment["order_id"])).json() == payment


async def test_a_refund_by_a_customer_is_403(callers: Callers) -> None:
    payment = await callers.captured()
    answer = await callers.refund(payment["id"], {"reason": "please"}, role="customer")
    assert problem(answer) == (403, "forbidden")


@pytest.mark.parametrize("key", [None, "a-key"])
async def test_a_refund_of_nothing_known_is_404(callers: Callers, key: str | None) -> None:
    answer = await callers.refund(str(uuid4()), {"reason": "kindness"}, key=key)
    assert problem(answer) == (404, "not-found")


async def test_a_refund_in_another_content_type_is_415(callers: Callers, tokens: UserTokens) -> None:
    headers = {**tokens.headers(uuid4(), "admin"), "Content-Type": "text/plain"}
    path = f"/api/v1/payments/{uuid4()}/refund"
    answer = await callers.http.post(path, content=b'{"reason":"r"}', headers=headers)
    assert problem(answer) == (415, "unsupported-media-type")


# Idempotency-Key


async def test_a_repeated_key_answers_the_same_and_refunds_once(callers: Callers) -> None:
    payment, admin = await callers.captured(1000), uuid4()
    body = {"amount_minor": 300, "reason": "a scratch"}
    first = await callers.refund(payment["id"], body, admin=admin, key="k")
    await callers.refund(payment["id"], {"amount_minor": 1, "reason": "later"})
    again = await callers.refund(payment["id"], body, admin=admin, key="k")
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.content == first.content
    assert again.headers["content-type"] == first.headers["content-type"]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert (await callers.order("GET", payment["order_id"])).json()["refunded"]["amount_minor"] == 301


async def test_a_key_with_another_body_is_422(callers: Callers) -> None:
    payment, admin = await callers.captured(), uuid4()
    await callers.refund(payment["id"], {"amount_minor": 1, "reason": "r"}, admin=admin, key="k")
    for body in ({"amount_minor": 2, "reason": "r"}, {"amount_minor": 1, "reason": "s"}, {"reason": "r"}):
        answer = await callers.refund(payment["id"], body, admin=admin, key="k")
        assert problem(answer) == (422, "idempotency-key-reused")


async def test_a_key_belongs_to_its_caller_and_its_payment(callers: Callers) -> None:
    one, other, admin = await callers.captured(), await callers.captured(), uuid4()
    body = {"amount_minor": 1, "reason": "r"}
    for payment, caller in ((one, admin), (other, admin), (one, uuid4())):
        answer = await callers.refund(payment["id"], body, admin=caller, key="k")
        assert answer.status_code == 200
        assert "idempotency-replayed" not in answer.headers


async def test_a_refusal_leaves_the_key_free(callers: Callers) -> None:
    payment, admin = await callers.authorised(), uuid4()
    body = {"reason": "r"}
    refusal = await callers.refund(payment["id"], body, admin=admin, key="k")
    assert problem(refusal) == (409, "refund-exceeds-captured")
    await callers.order("POST", payment["order_id"], "/capture")
    assert (await callers.refund(payment["id"], body, admin=admin, key="k")).status_code == 200


@pytest.mark.parametrize("key", ["", "k" * 256])
async def test_a_key_that_is_none_is_400(callers: Callers, key: str) -> None:
    payment = await callers.captured()
    answer = await callers.refund(payment["id"], {"reason": "r"}, key=key)
    assert problem(answer) == (400, "idempotency-key-invalid")


async def test_a_key_in_flight_is_409_with_retry_after(
    settings: PaymentSettings, simulator: Simulator, tokens: UserTokens
) -> None:
    provider = Holding(simulator, "refund", "before")
    service = create_app(settings, {"user": tokens.transport()}, provider)
    async with client(service) as http:
        callers, admin, body = Callers(http, tokens), uuid4(), {"reason": "r"}
        payment = await callers.captured()
        first = asyncio.create_task(callers.refund(payment["id"], body, admin=admin, key="k"))
        await provider.reached.wait()
        second = await callers.refund(payment["id"], body, admin=admin, key="k")
        assert problem(second) == (409, "request-in-progress")
        assert "retry-after" in second.headers
        provider.release.set()
        assert (await first).status_code == 200
        replayed = await callers.refund(payment["id"], body, admin=admin, key="k")
        assert replayed.headers["idempotency-replayed"] == "true"
    await service.database.close()


async def test_a_key_is_free_again_after_24_hours(callers: Callers, database: Database) -> None:
    payment, admin = await callers.captured(1000), uuid4()
    body = {"amount_minor": 10, "reason": "r"}
    await callers.refund(payment["id"], body, admin=admin, key="k")
    await database.execute(
        "UPDATE idempotency_keys SET created_at = created_at - interval '24 hours' WHERE user_id = $1", admin
    )
    answer = await callers.refund(payment["id"], body, admin=admin, key="k")
    assert "idempotency-replayed" not in answer.headers
    assert answer.json()["refunded"]["amount_minor"] == 20


# The audit, the metrics, the database's absence


async def test_the_audit_streams_every_kind_of_record(callers: Callers) -> None:
    user_id = uuid4()
    payment = await callers.captured(1000, user_id=user_id)
    await callers.refund(payment["id"], {"amount_minor": 400, "reason": "r"})
    answer = await callers.call("audit", "GET", "/audit")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/x-ndjson"
    records = [orjson.loads(line) for line in answer.content.splitlines()]
    found = next(one for one in records if one["kind"] == "payment" and one["id"] == payment["id"])
    assert found.pop("updated_at").endswith("Z")
    assert found == {
        "kind": "payment",
        "id": payment["id"],
        "order_id": payment["order_id"],
        "user_id": str(user_id),
        "status": "partially_refunded",
        "currency": "USD",
        "amount_minor": 1000,
        "captured_minor": 1000,
        "refunded_minor": 400,
    }
    refund = next(one for one in records if one["kind"] == "refund" and one["payment_id"] == payment["id"])
    assert (refund["amount_minor"], refund["status"]) == (400, "done")
    entries = [one for one in records if one["kind"] == "ledger_entry" and one["payment_id"] == payment["id"]]
    assert sorted((entry["movement_id"], entry["account"], entry["amount_minor"]) for entry in entries) == sorted(
        [
            (payment["id"], "provider_receivable", 1000),
            (payment["id"], "sales_revenue", -1000),
            (refund["id"], "provider_receivable", -400),
            (refund["id"], "sales_returns", 400),
        ]
    )
    charge = next(one for one in records if one["kind"] == "provider_record" and one["order_id"] == payment["order_id"])
    assert charge == {
        "kind": "provider_record",
        "order_id": payment["order_id"],
        "status": "captured",
        "amount_minor": 1000,
        "currency": "USD",
        "captured_minor": 1000,
        "refunded_minor": 400,
    }


async def test_the_audit_is_not_for_the_order_service(callers: Callers) -> None:
    assert problem(await callers.call("order", "GET", "/audit")) == (403, "forbidden")


async def test_the_metrics_count_outcomes(settings: PaymentSettings, tokens: UserTokens) -> None:
    service = create_app(settings, {"user": tokens.transport()})
    async with client(service) as http:
        callers = Callers(http, tokens)
        payment = await callers.captured()
        await callers.order("POST", payment["order_id"], "/refund", {"reason": "r"})
        await callers.authorised(method="tok_declined")
        await callers.order("POST", uuid4(), "/void")
        await callers.order("PUT", uuid4(), body=wanted(method="tok_timeout"))
        exposed = (await http.get("/metrics")).text.splitlines()
    await service.database.close()
    for line in (
        'souk_payments_total{outcome="authorised"} 1.0',
        'souk_payments_total{outcome="captured"} 1.0',
        'souk_payments_total{outcome="declined"} 1.0',
        'souk_payments_total{outcome="voided"} 1.0',
        "souk_refunds_total 1.0",
        'souk_provider_timeouts_total{operation="authorise"} 1.0',
        "souk_ledger_imbalance_minor 0.0",
    ):
        assert line in exposed


async def test_without_its_database_every_call_is_503(tokens: UserTokens) -> None:
    settings = settings_for(PaymentSettings, "payment", "postgresql://souk@/payment?host=/nonexistent")
    service = create_app(settings, {"user": tokens.transport()})
    async with client(service) as http:
        callers = Callers(http, tokens)
        answers = [
            await callers.order("PUT", uuid4(), body=wanted()),
            await callers.order("POST", uuid4(), "/capture"),
            await callers.order("POST", uuid4(), "/void"),
            await callers.order("POST", uuid4(), "/refund", {"reason": "r"}),
            await callers.order("GET", uuid4()),
            await callers.get("", uuid4()),
            await callers.get(f"/{uuid4()}", uuid4()),
            await callers.refund(str(uuid4()), {"reason": "r"}, key="k"),
            await callers.call("audit", "GET", "/audit"),
        ]
    for answer in answers:
        assert problem(answer) == (503, "unavailable")
        assert "retry-after" in answer.headers


def test_no_internal_call_is_missing_in_the_openapi_document(service: Service) -> None:
    paths = service.openapi()["paths"]
    assert {path for path in paths if path.startswith("/internal/")} == {
        "/internal/v1/payments/{order_id}",
        "/internal/v1/payments/{order_id}/capture",
        "/internal/v1/payments/{order_id}/void",
        "/internal/v1/payments/{order_id}/refund",
        "/internal/v1/audit",
    }
