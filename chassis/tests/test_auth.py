"""Who is believed, and for how long: access tokens of users, credentials of services."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta, tzinfo
from typing import Any, Self
from uuid import UUID, uuid4

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from jwt.algorithms import OKPAlgorithm

from chassis import auth
from chassis.auth import ACCESS_TOKEN_TYPE, CREDENTIAL_LIFE_S, ISSUER, SERVICE_TOKEN_TYPE, AccessTokens, JwkSet
from chassis.clients import PeerUnavailable
from chassis.context import Context, context, current
from chassis.problems import Unauthenticated, Unavailable
from chassis.testing import CALLERS, KEYS, UserTokens, client, credential
from chassis.tests.conftest import Build
from chassis.tests.test_problems import problem

USER_ID = UUID("0198c0de-0000-7000-8000-000000000001")


class Issuer:
    """Stands for the user service: keys that it publishes, and tokens that it signs with any of them."""

    def __init__(self) -> None:
        self.keys = {"first": Ed25519PrivateKey.generate()}
        self.fetches = 0
        self.failure: Exception | None = None

    async def fetch(self) -> JwkSet:
        self.fetches += 1
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        return {
            "keys": [
                OKPAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": kid} for kid, key in self.keys.items()
            ]
        }

    def token(self, kid: str = "first", **changes: Any) -> str:
        """A token as the user service makes it, with `changes` to its header (`alg`, `typ`, `key`) and claims."""
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": ISSUER, "sub": str(USER_ID), "role": "customer", "iat": now, "exp": now + 900}
        key = changes.pop("key", self.keys.get(kid))
        headers = {"kid": changes.pop("header_kid", kid), "typ": changes.pop("typ", ACCESS_TOKEN_TYPE)}
        algorithm = changes.pop("alg", "EdDSA")
        claims = {name: value for name, value in (claims | changes).items() if value is not None}
        return jwt.encode(claims, key, algorithm, {name: value for name, value in headers.items() if value is not None})

    def public_bytes(self) -> bytes:
        return self.keys["first"].public_key().public_bytes_raw()


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def access_tokens(issuer: Issuer) -> AccessTokens:
    return AccessTokens(issuer.fetch)


@pytest.fixture
async def protected(build: Build, access_tokens: AccessTokens) -> AsyncIterator[httpx2.AsyncClient]:
    async with client(build(access_tokens=access_tokens)) as opened:
        yield opened


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_a_valid_token_speaks_for_its_user(protected: httpx2.AsyncClient, issuer: Issuer) -> None:
    for _ in range(2):  # verified, then remembered
        answer = await protected.get("/shopper", headers=bearer(issuer.token()))
        assert answer.json() == str(USER_ID)
    lower = await protected.get("/shopper", headers={"Authorization": f"bearer {issuer.token()}"})
    assert lower.status_code == 200


async def test_an_admin_route_is_403_for_a_customer(protected: httpx2.AsyncClient, issuer: Issuer) -> None:
    problem(await protected.get("/admin", headers=bearer(issuer.token())), 403, "forbidden")
    assert (await protected.get("/admin", headers=bearer(issuer.token(role="admin")))).status_code == 200


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", "token"])
async def test_without_a_bearer_token_it_is_401(protected: httpx2.AsyncClient, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = await protected.get("/shopper", headers=headers)
    problem(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"] == 'Bearer realm="souk"'


RSA_KEY = generate_private_key(65537, 2048)
LONG_AGO = 1_700_000_000

BAD_TOKENS: dict[str, Callable[[Issuer], str]] = {
    "garbage": lambda _: "garbage",
    "three parts of garbage": lambda _: "a.b.c",
    "expired": lambda issuer: issuer.token(iat=LONG_AGO, exp=LONG_AGO + 900),
    "expired beyond the leeway": lambda issuer: issuer.token(exp=int(time.time()) - 31),
    "not yet issued": lambda issuer: issuer.token(iat=int(time.time()) + 3600),
    "without exp": lambda issuer: issuer.token(exp=None),
    "without iat": lambda issuer: issuer.token(iat=None),
    "without sub": lambda issuer: issuer.token(sub=None),
    "without role": lambda issuer: issuer.token(role=None),
    "subject is no id": lambda issuer: issuer.token(sub="root"),
    "another audience": lambda issuer: issuer.token(aud="product"),
    "no audience": lambda issuer: issuer.token(aud=None),
    "another issuer": lambda issuer: issuer.token(iss="elsewhere"),
    "no issuer": lambda issuer: issuer.token(iss=None),
    "another type": lambda issuer: issuer.token(typ="JWT"),
    "a service's type": lambda issuer: issuer.token(typ=SERVICE_TOKEN_TYPE),
    "no key id": lambda issuer: issuer.token(header_kid=None),
    "another's key under a known id": lambda issuer: issuer.token(key=Ed25519PrivateKey.generate()),
    "HS256 with the public key as its secret": lambda issuer: issuer.token(alg="HS256", key=issuer.public_bytes()),
    "RS256": lambda issuer: issuer.token(alg="RS256", key=RSA_KEY),
    "none": lambda issuer: issuer.token(alg="none", key=None),
    "signature removed": lambda issuer: issuer.token().rpartition(".")[0] + ".",
    "claims replaced": lambda issuer: ".".join(
        (issuer.token().split(".")[0], issuer.token(role="admin").split(".")[1], issuer.token().split(".")[2])
    ),
}


@pytest.mark.parametrize("kind", BAD_TOKENS)
async def test_a_bad_token_is_401(protected: httpx2.AsyncClient, issuer: Issuer, kind: str) -> None:
    await protected.get("/shopper", headers=bearer(issuer.token()))
    answer = await protected.get("/shopper", headers=bearer(BAD_TOKENS[kind](issuer)))
    problem(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"] == 'Bearer realm="souk", error="invalid_token"'


async def test_clocks_may_differ_by_half_a_minute(access_tokens: AccessTokens, issuer: Issuer) -> None:
    now = int(time.time())
    assert await access_tokens.verify(issuer.token(exp=now - 20))
    assert await access_tokens.verify(issuer.token(iat=now + 300))


class Clock:
    """The clocks that chassis.auth reads, some seconds on."""

    def __init__(self, ahead_s: float) -> None:
        self._ahead_s = ahead_s

    def time(self) -> float:
        return time.time() + self._ahead_s

    def monotonic(self) -> float:
        return time.monotonic() + self._ahead_s


class Later(datetime):
    """The clock that jwt reads, 41 seconds on."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return super().now(tz) + timedelta(seconds=41)


async def test_a_remembered_token_still_expires(
    access_tokens: AccessTokens, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = issuer.token(exp=int(time.time()) + 10)
    await access_tokens.verify(token)
    monkeypatch.setattr(auth, "time", Clock(ahead_s=41))
    monkeypatch.setattr("jwt.api_jwt.datetime", Later)
    with pytest.raises(Unauthenticated, match="expired"):
        await access_tokens.verify(token)


async def test_keys_are_fetched_once_for_many_requests_at_once(access_tokens: AccessTokens, issuer: Issuer) -> None:
    tokens = [issuer.token(jti=str(uuid4())) for _ in range(50)]
    await asyncio.gather(*(access_tokens.verify(token) for token in tokens))
    assert issuer.fetches == 1


async def test_a_rotated_key_fails_no_request_and_is_fetched_once(
    access_tokens: AccessTokens, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await access_tokens.verify(issuer.token())
    monkeypatch.setattr(auth, "KEYS_AT_MOST_EVERY_S", 0.0)  # a key is published for longer than this before it signs
    issuer.keys["second"] = Ed25519PrivateKey.generate()
    tokens = [issuer.token(kid, jti=str(uuid4())) for kid in ("first", "second") for _ in range(50)]
    principals = await asyncio.gather(*(access_tokens.verify(token) for token in tokens))
    assert {principal.user_id for principal in principals} == {USER_ID}
    assert issuer.fetches == 2


async def test_a_key_that_was_withdrawn_is_believed_no_more(
    access_tokens: AccessTokens, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = issuer.token()
    await access_tokens.verify(token)
    issuer.keys = {"second": Ed25519PrivateKey.generate()}
    monkeypatch.setattr(auth, "KEYS_AT_MOST_EVERY_S", 0.0)
    await access_tokens.verify(issuer.token("second"))
    with pytest.raises(Unauthenticated):
        await access_tokens.verify(token)


async def test_unknown_key_ids_do_not_make_a_fetch_each(access_tokens: AccessTokens, issuer: Issuer) -> None:
    await access_tokens.verify(issuer.token())
    strangers = [issuer.token(f"stranger {number}", key=issuer.keys["first"]) for number in range(50)]
    refused = await asyncio.gather(*(access_tokens.verify(token) for token in strangers), return_exceptions=True)
    assert {type(refusal) for refusal in refused} == {Unauthenticated}
    assert issuer.fetches == 1  # the set is new enough to know that these were made up


async def test_a_fetch_for_all_is_not_within_the_deadline_of_the_one_who_asked_first(issuer: Issuer) -> None:
    deadlines: list[float | None] = []

    async def fetch() -> JwkSet:
        deadlines.append(context().deadline)
        return await issuer.fetch()

    current.set(Context(deadline=0.0))
    await AccessTokens(fetch).verify(issuer.token())
    assert deadlines == [None]


FAILURES: list[Exception] = [PeerUnavailable("user", "unreachable"), KeyError("keys")]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
async def test_with_keys_at_hand_the_user_service_may_be_down(
    access_tokens: AccessTokens, issuer: Issuer, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    await access_tokens.verify(issuer.token())
    monkeypatch.setattr(auth, "KEYS_AT_MOST_EVERY_S", 0.0)
    monkeypatch.setattr(auth, "KEYS_FRESH_FOR_S", 0.0)
    issuer.failure = failure
    assert (await access_tokens.verify(issuer.token(jti="another"))).user_id == USER_ID
    assert issuer.fetches == 2
    # A key that was rotated in meanwhile is not known here, so nothing can be said against its tokens.
    with pytest.raises(Unavailable):
        await access_tokens.verify(issuer.token("second", key=Ed25519PrivateKey.generate()))


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
async def test_without_any_keys_it_is_503_and_recovers(
    protected: httpx2.AsyncClient, issuer: Issuer, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    monkeypatch.setattr(auth, "KEYS_AT_MOST_EVERY_S", 0.0)
    issuer.failure = failure
    answer = await protected.get("/shopper", headers=bearer(issuer.token()))
    problem(answer, 503, "unavailable")
    assert answer.headers["retry-after"]
    issuer.failure = None
    assert (await protected.get("/shopper", headers=bearer(issuer.token()))).status_code == 200


async def test_the_memory_of_verified_tokens_is_bounded(
    access_tokens: AccessTokens, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "VERIFIED_MOST", 3)
    for number in range(10):
        await access_tokens.verify(issuer.token(jti=str(number)))
        assert len(access_tokens._verified) <= 3  # pyright: ignore[reportPrivateUsage]


async def test_a_key_set_may_hold_keys_of_other_kinds(issuer: Issuer) -> None:
    own = await issuer.fetch()
    others = [{"kty": "RSA", "kid": "r", "n": "AQAB", "e": "AQAB"}, {"kty": "OKP", "crv": "X25519", "kid": "x"}]
    assert set(auth.public_keys({"keys": [*others, *own["keys"]]})) == {"first"}


async def test_a_service_is_known_by_its_credential(http: httpx2.AsyncClient) -> None:
    headers = {"Authorization": credential("order").authorization("product")}
    for _ in range(2):  # verified, then remembered
        assert (await http.get("/internal/v1/caller", headers=headers)).json() == "order"


@pytest.mark.parametrize("caller", [name for name in CALLERS if name != "order"])
async def test_another_service_is_403(http: httpx2.AsyncClient, caller: str) -> None:
    headers = {"Authorization": credential(caller).authorization("product")}
    problem(await http.get("/internal/v1/caller", headers=headers), 403, "forbidden")


def service_token(**changes: Any) -> str:
    """A credential of the order service for the product service, with `changes`."""
    now = int(time.time())
    claims = {"iss": "order", "aud": "product", "iat": now, "exp": now + 300}
    headers = {"kid": changes.pop("kid", "order"), "typ": changes.pop("typ", SERVICE_TOKEN_TYPE)}
    key: Any = changes.pop("key", None) or OKPAlgorithm.from_jwk(KEYS["order"])
    return jwt.encode(claims | changes, key, "EdDSA", headers)


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "payment"},
        {"iss": "payment"},
        {"kid": "payment"},
        {"kid": "nobody"},
        {"typ": ACCESS_TOKEN_TYPE},
        {"iat": LONG_AGO, "exp": LONG_AGO + 300},
        {"key": Ed25519PrivateKey.generate()},
    ],
    ids=lambda changes: "-".join(changes),
)
async def test_a_bad_credential_is_401(http: httpx2.AsyncClient, changes: dict[str, Any]) -> None:
    assert (await http.get("/internal/v1/caller", headers=bearer(service_token()))).status_code == 200
    answer = await http.get("/internal/v1/caller", headers=bearer(service_token(**changes)))
    problem(answer, 401, "unauthenticated")
    assert "invalid_token" in answer.headers["www-authenticate"]


async def test_a_users_token_is_no_credential_and_a_credential_is_no_users_token(
    http: httpx2.AsyncClient, tokens: UserTokens
) -> None:
    problem(await http.get("/internal/v1/caller", headers=tokens.headers(USER_ID)), 401, "unauthenticated")
    problem(await http.get("/internal/v1/caller"), 401, "unauthenticated")
    headers = {"Authorization": credential("order").authorization("product")}
    problem(await http.get("/shopper", headers=headers), 401, "unauthenticated")


def test_a_credential_is_used_again_until_half_its_life_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    own = credential("order")
    first = own.authorization("product")
    assert own.authorization("product") == first
    assert own.authorization("payment") != first
    monkeypatch.setattr(auth, "time", Clock(ahead_s=CREDENTIAL_LIFE_S / 2 + 1))
    assert own.authorization("product") != first
