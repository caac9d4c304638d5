"""Every call with every status that it answers."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import jwt
import orjson
import pytest

from chassis.auth import ISSUER, Role
from chassis.testing import UserTokens, credential

from .conftest import PASSWORD, Caller, Replica, Replicas, unique_email

NOBODY = "01890a5d-ac96-774b-bcce-b302099a8057"
ADDRESS = {
    "name": "Ada Example",
    "line1": "1 Market Square",
    "line2": None,
    "city": "Springfield",
    "region": "Upper Valley",
    "postal_code": "12345",
    "country": "US",
}


def code(answer: Any) -> str:
    """The code of a problem, whose form is checked."""
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["status"] == answer.status_code
    return document["type"].removeprefix("/problems/")


def fields(answer: Any) -> set[str]:
    """The fields that a 422 names."""
    assert answer.status_code == 422, answer.text
    assert code(answer) == "invalid-request"
    return {error["field"] for error in answer.json()["errors"]}


# Register


async def test_registering_answers_the_user(shop: Replica) -> None:
    email = unique_email()
    body = {"email": email.upper(), "password": PASSWORD, "name": "Ada"}
    answer = await shop.wire.post("/api/v1/auth/register", json=body)
    user = answer.json()
    assert answer.status_code == 201
    assert user.keys() == {"id", "email", "name", "role", "created_at"}
    assert (user["email"], user["name"], user["role"]) == (email, "Ada", "customer")
    assert UUID(user["id"]).version == 7


async def test_a_password_is_stored_as_argon2id(shop: Replica) -> None:
    user = await shop.register()
    stored = await shop.service.database.fetchval("SELECT password_hash FROM users WHERE id = $1", UUID(user["id"]))
    assert stored.startswith("$argon2id$")


async def test_an_email_is_taken_in_any_case(shop: Replica) -> None:
    email = unique_email()
    await shop.register(email)
    body = {"email": email.title(), "password": PASSWORD, "name": "Ada"}
    answer = await shop.wire.post("/api/v1/auth/register", json=body)
    assert (answer.status_code, code(answer)) == (409, "email-taken")


async def test_of_ten_who_register_one_email_at_once_one_gets_it(replica: Replicas) -> None:
    replicas = [await replica(), await replica()]
    body = {"email": unique_email(), "password": PASSWORD, "name": "Ada"}
    answers = await asyncio.gather(*(replicas[n % 2].wire.post("/api/v1/auth/register", json=body) for n in range(10)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 9


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("email", "nobody"),
        ("email", f"{'a' * 243}@example.com"),
        ("email", "a\0@example.com"),
        ("password", "7 chars"),
        ("password", "x" * 129),
        ("password", "NUL in it \0"),
        ("name", ""),
        ("name", "x" * 101),
        ("name", 1),
        ("role", "admin"),
    ],
)
async def test_registering_names_the_field_at_fault(shop: Replica, field: str, value: object) -> None:
    body = {"email": unique_email(), "password": PASSWORD, "name": "Ada", field: value}
    assert fields(await shop.wire.post("/api/v1/auth/register", json=body)) == {field}


async def test_registering_takes_json_only(shop: Replica) -> None:
    answer = await shop.wire.post("/api/v1/auth/register", data={"email": "a@example.com"})
    assert (answer.status_code, code(answer)) == (415, "unsupported-media-type")


# Token


async def test_a_login_answers_tokens_that_nobody_may_store(shop: Replica) -> None:
    user = await shop.register()
    answer = await shop.log_in(user["email"].upper())
    tokens = answer.json()
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert tokens.keys() == {"access_token", "token_type", "expires_in", "refresh_token"}
    assert (tokens["token_type"], tokens["expires_in"]) == ("Bearer", 900)


async def test_an_access_token_says_who_and_until_when(shop: Replica) -> None:
    user = await shop.register()
    token = (await shop.tokens(user["email"]))["access_token"]
    [key] = (await shop.wire.get("/api/v1/auth/jwks")).json()["keys"]
    header = jwt.get_unverified_header(token)
    assert header == {"alg": "EdDSA", "kid": key["kid"], "typ": "at+jwt"}
    claims = jwt.decode(token, jwt.PyJWK(key), ["EdDSA"], audience=ISSUER, issuer=ISSUER)
    assert (claims["sub"], claims["role"]) == (user["id"], "customer")
    assert claims["exp"] - claims["iat"] == 900


async def test_an_unknown_email_is_told_what_a_wrong_password_is(shop: Replica) -> None:
    user = await shop.register()
    wrong = await shop.log_in(user["email"], "wrong password")
    unknown = await shop.log_in(unique_email(), "wrong password")
    for answer in (wrong, unknown):
        assert (answer.status_code, code(answer)) == (401, "unauthenticated")
        assert answer.json()["error"] == "invalid_grant"
        assert answer.headers["www-authenticate"]
    varying = {"trace_id"}
    assert {name: value for name, value in wrong.json().items() if name not in varying} == {
        name: value for name, value in unknown.json().items() if name not in varying
    }


@pytest.mark.parametrize("username", ["nobody", "", "é@example.com", "x" * 5000, " "])
async def test_a_username_that_is_no_email_is_no_error_of_ours(shop: Replica, username: str) -> None:
    answer = await shop.log_in(username)
    assert answer.status_code == (401 if username else 422)


@pytest.mark.parametrize(
    ("form", "missing"),
    [
        ({"surprise": "1"}, {"grant_type"}),
        ({"grant_type": "password"}, {"username", "password"}),
        ({"grant_type": "password", "username": "a@example.com"}, {"password"}),
        ({"grant_type": "password", "username": "", "password": "x"}, {"username"}),
        ({"grant_type": "refresh_token"}, {"refresh_token"}),
        ({"grant_type": "password", "username": "a\0", "password": "b\0"}, {"username", "password"}),
    ],
)
async def test_the_token_form_names_what_is_missing(shop: Replica, form: dict[str, str], missing: set[str]) -> None:
    assert fields(await shop.wire.post("/api/v1/auth/token", data=form)) == missing


async def test_the_token_form_ignores_what_it_does_not_know(shop: Replica) -> None:
    user = await shop.register()
    form = {"grant_type": "password", "username": user["email"], "password": PASSWORD, "scope": "", "client_id": "x"}
    assert (await shop.wire.post("/api/v1/auth/token", data=form)).status_code == 200


async def test_another_grant_type_is_400(shop: Replica) -> None:
    answer = await shop.wire.post("/api/v1/auth/token", data={"grant_type": "client_credentials"})
    assert (answer.status_code, code(answer)) == (400, "unsupported-grant-type")
    assert answer.json()["error"] == "unsupported_grant_type"


@pytest.mark.parametrize("path", ["/api/v1/auth/token", "/api/v1/auth/revoke"])
@pytest.mark.parametrize(
    "content_type", ["application/json", "multipart/form-data; boundary=x", "multipart/form-data", "text/plain", ""]
)
async def test_a_form_of_another_content_type_is_415(shop: Replica, path: str, content_type: str) -> None:
    answer = await shop.wire.post(path, content=b"token=x", headers={"Content-Type": content_type})
    assert (answer.status_code, code(answer)) == (415, "unsupported-media-type")


@pytest.mark.parametrize("path", ["/api/v1/auth/token", "/api/v1/auth/revoke"])
@pytest.mark.parametrize("content", [b"token=\xff", b"token=%ff", b"a=1&" * 101])
async def test_a_form_that_is_none_is_422(shop: Replica, path: str, content: bytes) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert fields(await shop.wire.post(path, content=content, headers=headers)) == {"body"}


# Refresh and revoke


async def test_a_refresh_token_is_renewed(shop: Replica) -> None:
    user = await shop.register()
    first = await shop.tokens(user["email"])
    answer = await shop.refresh(first["refresh_token"])
    second = answer.json()
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert second["refresh_token"] != first["refresh_token"]
    headers = {"Authorization": f"Bearer {second['access_token']}"}
    assert (await shop.wire.get("/api/v1/users/me", headers=headers)).json() == user


async def test_no_secret_of_a_refresh_token_is_stored(shop: Replica) -> None:
    user = await shop.register()
    token = (await shop.tokens(user["email"]))["refresh_token"]
    rows = await shop.service.database.fetch("SELECT * FROM refresh_families")
    assert len(token) == 64
    assert all(token[-40:] not in str(dict(row)) for row in rows)


async def test_a_refresh_token_used_twice_ends_its_family_only(shop: Replica) -> None:
    user = await shop.register()
    first, other = await shop.tokens(user["email"]), await shop.tokens(user["email"])
    second = (await shop.refresh(first["refresh_token"])).json()
    third = (await shop.refresh(second["refresh_token"])).json()
    for used in (first, second, third):
        answer = await shop.refresh(used["refresh_token"])
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_grant")
    assert (await shop.refresh(other["refresh_token"])).status_code == 200
    assert await shop.metric("souk_refresh_tokens_reused_total") == 1


@pytest.mark.parametrize("text", ["nonsense", "é", "x" * 5000, "A" * 64])
async def test_what_is_no_refresh_token_is_401(shop: Replica, text: str) -> None:
    answer = await shop.refresh(text)
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_grant")


async def test_a_refresh_token_expires(shop: Replica) -> None:
    user = await shop.register()
    tokens = await shop.tokens(user["email"])
    await shop.service.database.execute("UPDATE refresh_families SET expires_at = now()")
    assert (await shop.refresh(tokens["refresh_token"])).status_code == 401
    assert await shop.metric("souk_refresh_tokens_reused_total") == 0


async def test_a_refresh_token_lives_30_days_from_each_use(shop: Replica) -> None:
    user = await shop.register()
    tokens = await shop.tokens(user["email"])
    await shop.service.database.execute("UPDATE refresh_families SET expires_at = now() + interval '1 minute'")
    await shop.refresh(tokens["refresh_token"])
    days = await shop.service.database.fetchval(
        "SELECT round(extract(epoch FROM expires_at - now()) / 86400)::int FROM refresh_families"
    )
    assert days == 30


async def test_a_renewed_access_token_has_the_present_role(shop: Replica) -> None:
    user = await shop.register()
    tokens = await shop.tokens(user["email"])
    await shop.service.database.execute("UPDATE users SET role = 'admin'")
    renewed = (await shop.refresh(tokens["refresh_token"])).json()
    headers = {"Authorization": f"Bearer {renewed['access_token']}"}
    assert (await shop.wire.get("/api/v1/users", headers=headers)).status_code == 200


async def test_revoking_ends_the_session_also_by_a_token_renewed_since(shop: Replica) -> None:
    user = await shop.register()
    first, other = await shop.tokens(user["email"]), await shop.tokens(user["email"])
    second = (await shop.refresh(first["refresh_token"])).json()
    form = {"token": first["refresh_token"], "token_type_hint": "refresh_token", "surprise": "1"}
    for _ in range(2):
        assert (await shop.wire.post("/api/v1/auth/revoke", data=form)).status_code == 200
    assert (await shop.refresh(second["refresh_token"])).status_code == 401
    assert (await shop.refresh(other["refresh_token"])).status_code == 200


@pytest.mark.parametrize("text", ["nonsense", "é", "A" * 64])
async def test_revoking_what_is_no_token_is_200(shop: Replica, text: str) -> None:
    assert (await shop.wire.post("/api/v1/auth/revoke", data={"token": text})).status_code == 200


async def test_revoking_needs_a_token(shop: Replica) -> None:
    assert fields(await shop.wire.post("/api/v1/auth/revoke", data={"surprise": "1"})) == {"token"}


# Keys


async def test_the_jwks_shows_public_parts_only(shop: Replica) -> None:
    answer = await shop.wire.get("/api/v1/auth/jwks")
    [key] = answer.json()["keys"]
    assert key.keys() == {"kty", "crv", "x", "kid", "alg", "use"}
    assert (key["kty"], key["crv"], key["alg"], key["use"]) == ("OKP", "Ed25519", "EdDSA", "sig")
    assert answer.headers["cache-control"] == "public, max-age=5"


# Profile


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/users/me"),
        ("PATCH", "/api/v1/users/me"),
        ("DELETE", "/api/v1/users/me"),
        ("GET", "/api/v1/users/me/addresses"),
        ("POST", "/api/v1/users/me/addresses"),
        ("PUT", f"/api/v1/users/me/addresses/{NOBODY}"),
        ("DELETE", f"/api/v1/users/me/addresses/{NOBODY}"),
        ("GET", "/api/v1/users"),
    ],
)
async def test_without_a_good_token_is_401(shop: Replica, method: str, path: str) -> None:
    foreign = UserTokens().headers(uuid4(), "admin")
    for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": "Basic x"}, foreign):
        answer = await shop.wire.request(
            method, path, headers=headers, json=ADDRESS if method in {"POST", "PUT"} else {}
        )
        assert (answer.status_code, code(answer)) == (401, "unauthenticated")
        assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_the_profile_is_read_and_renamed(shop: Replica, customer: Caller) -> None:
    user, headers = customer
    assert (await shop.wire.get("/api/v1/users/me", headers=headers)).json() == user
    answer = await shop.wire.patch("/api/v1/users/me", headers=headers, json={"name": "Grace"})
    assert answer.status_code == 200
    assert answer.json() == user | {"name": "Grace"}
    assert (await shop.wire.get("/api/v1/users/me", headers=headers)).json() == answer.json()


async def test_an_empty_change_changes_nothing(shop: Replica, customer: Caller) -> None:
    user, headers = customer
    answer = await shop.wire.patch("/api/v1/users/me", headers=headers, json={})
    assert (answer.status_code, answer.json()) == (200, user)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": None}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"password": "another password"}, "current_password"),
        ({"current_password": PASSWORD}, "password"),
        ({"current_password": None, "password": "another password"}, "current_password"),
        ({"password": "short", "current_password": PASSWORD}, "password"),
        ({"email": "a@example.com"}, "email"),
        ({"role": "admin"}, "role"),
    ],
)
async def test_a_change_names_the_field_at_fault(
    shop: Replica, customer: Caller, body: dict[str, Any], field: str
) -> None:
    user, headers = customer
    assert fields(await shop.wire.patch("/api/v1/users/me", headers=headers, json=body)) == {field}
    assert (await shop.wire.get("/api/v1/users/me", headers=headers)).json() == user


async def test_a_new_password_ends_every_session(shop: Replica, customer: Caller) -> None:
    user, headers = customer
    sessions = [await shop.tokens(user["email"]) for _ in range(2)]
    body = {"name": "Grace", "password": "another password", "current_password": PASSWORD}
    answer = await shop.wire.patch("/api/v1/users/me", headers=headers, json=body)
    assert (answer.status_code, answer.json()["name"]) == (200, "Grace")
    for tokens in sessions:
        assert (await shop.refresh(tokens["refresh_token"])).status_code == 401
    assert (await shop.log_in(user["email"])).status_code == 401
    assert (await shop.log_in(user["email"], "another password")).status_code == 200


async def test_a_wrong_current_password_changes_nothing_and_counts(shop: Replica, customer: Caller) -> None:
    user, headers = customer
    tokens = await shop.tokens(user["email"])
    body = {"name": "Grace", "password": "another password", "current_password": "wrong password"}
    for _ in range(10):
        answer = await shop.wire.patch("/api/v1/users/me", headers=headers, json=body)
        assert (answer.status_code, code(answer)) == (403, "wrong-password")
    answer = await shop.wire.patch("/api/v1/users/me", headers=headers, json=body)
    assert (answer.status_code, code(answer)) == (429, "too-many-attempts")
    assert (await shop.refresh(tokens["refresh_token"])).status_code == 200
    assert (await shop.wire.get("/api/v1/users/me", headers=headers)).json() == user


async def test_a_deleted_account_leaves_nothing_and_frees_the_email(shop: Replica, customer: Caller) -> None:
    user, headers = customer
    tokens = await shop.tokens(user["email"])
    await shop.wire.post("/api/v1/users/me/addresses", headers=headers, json=ADDRESS)
    answer = await shop.wire.delete("/api/v1/users/me", headers=headers)
    assert (answer.status_code, answer.content) == (204, b"")
    for table in ("users", "addresses", "refresh_families"):
        assert await shop.service.database.fetchval(f"SELECT count(*) FROM {table}") == 0
    assert (await shop.refresh(tokens["refresh_token"])).status_code == 401
    assert (await shop.log_in(user["email"])).status_code == 401
    assert (await shop.register(user["email"]))["id"] != user["id"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/api/v1/users/me", None),
        ("PATCH", "/api/v1/users/me", {"name": "Grace"}),
        ("DELETE", "/api/v1/users/me", None),
        ("POST", "/api/v1/users/me/addresses", ADDRESS),
    ],
)
async def test_the_access_token_of_a_deleted_account_is_401(
    shop: Replica, customer: Caller, method: str, path: str, body: Any
) -> None:
    _, headers = customer
    await shop.wire.delete("/api/v1/users/me", headers=headers)
    answer = await shop.wire.request(method, path, headers=headers, json=body)
    assert (answer.status_code, code(answer)) == (401, "unauthenticated")


# Address book


async def test_an_address_is_added_replaced_and_deleted(shop: Replica, customer: Caller) -> None:
    path, headers = "/api/v1/users/me/addresses", customer[1]
    answer = await shop.wire.post(path, headers=headers, json=ADDRESS)
    added = answer.json()
    assert answer.status_code == 201
    assert added == ADDRESS | {"id": added["id"]}
    answer = await shop.wire.put(
        f"{path}/{added['id']}", headers=headers, json=ADDRESS | {"region": None, "country": "NO"}
    )
    replaced = answer.json()
    assert (answer.status_code, replaced) == (200, added | {"region": None, "country": "NO"})
    assert (await shop.wire.get(path, headers=headers)).json() == {"items": [replaced], "next_cursor": None}
    answer = await shop.wire.delete(f"{path}/{added['id']}", headers=headers)
    assert (answer.status_code, answer.content) == (204, b"")
    for answer in (
        await shop.wire.delete(f"{path}/{added['id']}", headers=headers),
        await shop.wire.put(f"{path}/{added['id']}", headers=headers, json=ADDRESS),
    ):
        assert (answer.status_code, code(answer)) == (404, "not-found")


async def test_another_users_address_is_404(shop: Replica, customer: Caller) -> None:
    path, (owner, headers) = "/api/v1/users/me/addresses", customer
    added = (await shop.wire.post(path, headers=headers, json=ADDRESS)).json()
    stranger = await shop.bearer((await shop.register())["email"])
    for answer in (
        await shop.wire.put(f"{path}/{added['id']}", headers=stranger, json=ADDRESS),
        await shop.wire.delete(f"{path}/{added['id']}", headers=stranger),
    ):
        assert (answer.status_code, code(answer)) == (404, "not-found")
    assert (await shop.wire.get(path, headers=stranger)).json()["items"] == []
    assert (await shop.wire.get(path, headers=headers)).json()["items"] == [added], owner


async def test_an_address_that_cannot_be_is_422(shop: Replica, customer: Caller) -> None:
    path, headers = "/api/v1/users/me/addresses", customer[1]
    for body, field in (
        (ADDRESS | {"country": "ZZ"}, "country"),
        (ADDRESS | {"postal_code": "1" * 21}, "postal_code"),
        (ADDRESS | {"id": NOBODY}, "id"),
    ):
        assert fields(await shop.wire.post(path, headers=headers, json=body)) == {field}
    assert fields(await shop.wire.put(f"{path}/1", headers=headers, json=ADDRESS)) == {"address_id"}


async def test_the_address_book_is_paged(shop: Replica, customer: Caller) -> None:
    path, headers = "/api/v1/users/me/addresses", customer[1]
    added = [(await shop.wire.post(path, headers=headers, json=ADDRESS)).json() for _ in range(5)]
    listed: list[Any] = []
    cursor, pages = None, 0
    while cursor or not pages:
        params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await shop.wire.get(path, headers=headers, params=params)).json()
        listed += page["items"]
        cursor, pages = page["next_cursor"], pages + 1
    assert (listed, pages) == (added, 3)


async def test_a_cursor_that_is_none_or_anothers_is_400(shop: Replica, customer: Caller) -> None:
    path, headers = "/api/v1/users/me/addresses", customer[1]
    for _ in range(2):
        await shop.wire.post(path, headers=headers, json=ADDRESS)
    cursor = (await shop.wire.get(path, headers=headers, params={"limit": 1})).json()["next_cursor"]
    stranger = await shop.bearer((await shop.register())["email"])
    for caller, given in ((headers, "nonsense"), (headers, cursor[:-1]), (stranger, cursor)):
        answer = await shop.wire.get(path, headers=caller, params={"cursor": given})
        assert (answer.status_code, code(answer)) == (400, "invalid-cursor")


@pytest.mark.parametrize("limit", ["0", "101", "x"])
async def test_a_limit_out_of_range_is_422(shop: Replica, customer: Caller, limit: str) -> None:
    params = {"limit": limit}
    assert fields(await shop.wire.get("/api/v1/users/me/addresses", headers=customer[1], params=params)) == {"limit"}


async def test_an_address_book_holds_a_hundred(shop: Replica, customer: Caller) -> None:
    path, (user, headers) = "/api/v1/users/me/addresses", customer
    added = (await shop.wire.post(path, headers=headers, json=ADDRESS)).json()
    await shop.service.database.execute("UPDATE users SET address_count = 97 WHERE id = $1", UUID(user["id"]))
    answers = await asyncio.gather(*(shop.wire.post(path, headers=headers, json=ADDRESS) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [201] * 3 + [409] * 3
    assert {code(answer) for answer in answers if answer.status_code == 409} == {"address-book-full"}
    await shop.wire.delete(f"{path}/{added['id']}", headers=headers)
    assert (await shop.wire.post(path, headers=headers, json=ADDRESS)).status_code == 201


# List of users


async def test_a_customer_may_not_list_users(shop: Replica, customer: Caller) -> None:
    answer = await shop.wire.get("/api/v1/users", headers=customer[1])
    assert (answer.status_code, code(answer)) == (403, "forbidden")


async def test_admins_page_through_the_users_newest_first(shop: Replica, admin: dict[str, str]) -> None:
    users = [await shop.register() for _ in range(3)]
    page = (await shop.wire.get("/api/v1/users", headers=admin, params={"limit": 2})).json()
    assert page["items"] == [users[2], users[1]]
    params = {"limit": 2, "cursor": page["next_cursor"]}
    page = (await shop.wire.get("/api/v1/users", headers=admin, params=params)).json()
    assert page["items"][0] == users[0]
    assert (len(page["items"]), page["next_cursor"]) == (2, None)


async def test_admins_find_a_user_by_email_in_any_case(shop: Replica, admin: dict[str, str]) -> None:
    user = await shop.register()
    for email, found in ((user["email"].upper(), [user]), (unique_email(), []), ("nonsense", [])):
        page = (await shop.wire.get("/api/v1/users", headers=admin, params={"email": email})).json()
        assert page == {"items": found, "next_cursor": None}


async def test_a_cursor_of_users_holds_for_its_filter(shop: Replica, admin: dict[str, str]) -> None:
    await shop.register()
    cursor = (await shop.wire.get("/api/v1/users", headers=admin, params={"limit": 1})).json()["next_cursor"]
    params = {"cursor": cursor, "email": "a@example.com"}
    answer = await shop.wire.get("/api/v1/users", headers=admin, params=params)
    assert (answer.status_code, code(answer)) == (400, "invalid-cursor")
    assert fields(await shop.wire.get("/api/v1/users", headers=admin, params={"email": "\0"})) == {"email"}


# Internal calls


async def test_order_reads_a_saved_address_of_its_user(shop: Replica, customer: Caller) -> None:
    user, headers = customer
    added = (await shop.wire.post("/api/v1/users/me/addresses", headers=headers, json=ADDRESS)).json()
    order = {"Authorization": credential("order").authorization("user")}
    path = f"/internal/v1/users/{user['id']}/addresses"
    assert (await shop.wire.get(f"{path}/{added['id']}", headers=order)).json() == ADDRESS
    for missing in (f"{path}/{NOBODY}", f"/internal/v1/users/{NOBODY}/addresses/{added['id']}"):
        answer = await shop.wire.get(missing, headers=order)
        assert (answer.status_code, code(answer)) == (404, "not-found")


@pytest.mark.parametrize("path", [f"/internal/v1/users/{NOBODY}/addresses/{NOBODY}", "/internal/v1/audit"])
async def test_internal_calls_need_their_caller(shop: Replica, customer: Caller, path: str) -> None:
    payment = {"Authorization": credential("payment").authorization("user")}
    for headers, status in (({}, 401), (customer[1], 401), (payment, 403)):
        assert (await shop.wire.get(path, headers=headers)).status_code == status


async def test_the_audit_streams_every_user(shop: Replica, admin: dict[str, str], customer: Caller) -> None:
    assert admin
    auditor = {"Authorization": credential("audit").authorization("user")}
    answer = await shop.wire.get("/internal/v1/audit", headers=auditor)
    assert answer.headers["content-type"] == "application/x-ndjson"
    records = [orjson.loads(line) for line in answer.content.splitlines()]
    assert {record["kind"] for record in records} == {"user"}
    roles: dict[str, Role] = {record["id"]: record["role"] for record in records}
    assert sorted(roles.values()) == ["admin", "customer"]
    assert roles[customer[0]["id"]] == "customer"


async def test_the_audit_of_nobody_is_empty(shop: Replica) -> None:
    auditor = {"Authorization": credential("audit").authorization("user")}
    answer = await shop.wire.get("/internal/v1/audit", headers=auditor)
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/v1/auth/register", {"email": "a@example.com", "password": PASSWORD, "name": "Ada"}),
        ("GET", "/api/v1/auth/jwks", None),
        ("GET", f"/internal/v1/users/{NOBODY}/addresses/{NOBODY}", None),
    ],
)
async def test_a_database_that_is_down_is_503(replica: Replicas, method: str, path: str, body: Any) -> None:
    shop = await replica(database_url="postgresql://souk@/souk?host=/nowhere")
    order = {"Authorization": credential("order").authorization("user")}
    answer = await shop.wire.request(method, path, json=body, headers=order)
    assert (answer.status_code, code(answer)) == (503, "unavailable")
    assert int(answer.headers["retry-after"]) > 0
