"""Who is asking: a user by an access token, or a service by its credential, as a type in a route's signature.

Both are JWTs (RFC 7519) signed with Ed25519 (RFC 8037). Access tokens are verified here against the user service's
JWK set; service credentials against the public keys in the settings.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from uuid import UUID

import jwt
import orjson
import structlog
from fastapi import Depends, Request
from fastapi.security import HTTPBearer, OAuth2PasswordBearer
from jwt.algorithms import OKPAlgorithm

from chassis.context import Context, current
from chassis.problems import Forbidden, Unauthenticated, Unavailable
from chassis.settings import ServiceSettings

ISSUER = "souk"
ALGORITHM = "EdDSA"
ACCESS_TOKEN_TYPE = "at+jwt"
"""The `typ` of an access token, RFC 9068, 2.1."""
SERVICE_TOKEN_TYPE = "souk-service+jwt"

VERIFIED_FOR_S = 60.0
"""How long a verified token is believed without verifying it again: a signature costs 190 us, a look-up 0.1."""
VERIFIED_MOST = 10_000
KEYS_FRESH_FOR_S = 300.0
KEYS_AT_MOST_EVERY_S = 1.0
LEEWAY_S = 30.0
"""How long after its end a token is still taken."""
CLOCKS_DIFFER_S = 360.0
"""How far ahead of ours the clock may be that issued a token: one that is five minutes behind must not refuse them."""
CREDENTIAL_LIFE_S = 900.0
"""Renewed at half of it, so that a credential is good for seven minutes at least: to a peer whose clock is five minutes
ahead too.
"""

log = structlog.stdlib.get_logger()

Role = Literal["customer", "admin"]
JwkSet = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Principal:
    """A user, as the access token says."""

    user_id: UUID
    role: Role

    @property
    def is_admin(self) -> bool:
        """Whether the user may do what admins may."""
        return self.role == "admin"


def public_keys(jwks: JwkSet) -> dict[str, Any]:
    """The Ed25519 keys of a JWK set by their `kid`; others are passed over, as RFC 7517, 5 asks."""
    return {
        key["kid"]: OKPAlgorithm.from_jwk(key)
        for key in jwks["keys"]
        if key.get("kty") == "OKP" and key.get("crv") == "Ed25519" and "kid" in key
    }


def _key_id(token: str, token_type: str) -> str:
    """The `kid` of a token's header, where header and algorithm are the ones that we issue."""
    try:
        header = jwt.get_unverified_header(token)
    except jwt.InvalidTokenError:
        raise Unauthenticated(challenge=INVALID_TOKEN) from None
    kid = header.get("kid")
    if header.get("alg") != ALGORITHM or header.get("typ") != token_type or not isinstance(kid, str):
        raise Unauthenticated(challenge=INVALID_TOKEN)
    return kid


INVALID_TOKEN = 'Bearer realm="souk", error="invalid_token"'


def _claims(token: str, key: Any, audience: str, required: list[str], issuer: str | None = None) -> dict[str, Any]:
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[ALGORITHM],
            audience=audience,
            issuer=issuer,
            leeway=LEEWAY_S,
            options={"require": required, "verify_iat": False},
        )
        if not isinstance(claims["iat"], int) or claims["iat"] > time.time() + CLOCKS_DIFFER_S:
            raise jwt.ImmatureSignatureError
        return claims
    except jwt.ExpiredSignatureError:
        raise Unauthenticated("the token has expired", challenge=INVALID_TOKEN) from None
    except jwt.InvalidTokenError:
        raise Unauthenticated(challenge=INVALID_TOKEN) from None


class AccessTokens:
    """Verifies access tokens, asking for the user service's keys when it has none, or sees a new one's id.

    A rotated key fails no request: whoever meets its `kid` first fetches the set, everybody else waits for the same
    fetch. When the set cannot be fetched, the keys at hand go on being believed.
    """

    def __init__(self, fetch_keys: Callable[[], Awaitable[JwkSet]]) -> None:
        self._fetch_keys = fetch_keys
        self._keys: dict[str, Any] = {}
        self._tried_at = float("-inf")
        self._fetched_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None
        self._verified: dict[str, tuple[Principal, float]] = {}

    async def verify(self, token: str) -> Principal:
        """The user whom a token speaks for; raises Unauthenticated, or Unavailable where its key cannot be fetched."""
        now = time.monotonic()
        known = self._verified.get(token)
        if known is not None and known[1] > now:
            return known[0]
        kid = _key_id(token, ACCESS_TOKEN_TYPE)
        age_s = now - self._fetched_at
        # Keys are published before they sign: one that a set just fetched does not have was made up.
        if age_s > KEYS_FRESH_FOR_S or (kid not in self._keys and age_s > KEYS_AT_MOST_EVERY_S):
            await self._refresh(needed=kid not in self._keys)
        if kid not in self._keys:
            raise Unauthenticated(challenge=INVALID_TOKEN)
        claims = _claims(token, self._keys[kid], ISSUER, ["exp", "iat", "sub", "role"], ISSUER)
        try:
            principal = Principal(UUID(claims["sub"]), claims["role"])
        except (ValueError, AttributeError):
            raise Unauthenticated(challenge=INVALID_TOKEN) from None
        if len(self._verified) >= VERIFIED_MOST:
            self._verified.clear()
        self._verified[token] = (principal, now + min(VERIFIED_FOR_S, claims["exp"] + LEEWAY_S - time.time()))
        return principal

    async def warm(self) -> None:
        """Fetch the keys before the first token comes; where they cannot be, that token's request will ask again."""
        await self._refresh(needed=False)

    async def _refresh(self, *, needed: bool) -> None:
        if self._fetching is None or self._fetching.done():
            self._fetching = asyncio.create_task(self._fetch())
        try:
            await asyncio.shield(self._fetching)
        except Exception as error:  # no answer, a refusal, or an answer that is no key set
            if needed:
                raise Unavailable("the keys that verify access tokens cannot be fetched") from error
            log.warning("keys_not_fetched", error=str(error))

    async def _fetch(self) -> None:
        """Fetch the set, at most once a second however many unknown key ids are tried."""
        current.set(Context())  # for all who wait, so not within the deadline of the one who asked first
        await asyncio.sleep(max(0.0, self._tried_at + KEYS_AT_MOST_EVERY_S - time.monotonic()))
        try:
            keys = public_keys(await self._fetch_keys())
        finally:
            self._tried_at = time.monotonic()
        self._fetched_at = self._tried_at
        if keys.keys() != self._keys.keys():
            self._verified.clear()
        self._keys = keys


class ServiceCredential:
    """This service's own credential: a token for each peer, signed when it is needed and used for most of its life."""

    def __init__(self, service: str, settings: ServiceSettings) -> None:
        self._service = service
        self._key = OKPAlgorithm.from_jwk(settings.service_key.get_secret_value())
        self._tokens: dict[str, tuple[str, float]] = {}

    def authorization(self, audience: str) -> str:
        """The `Authorization` header for a call to `audience`."""
        now = time.monotonic()
        token, renew_at = self._tokens.get(audience, ("", 0.0))
        if renew_at <= now:
            issued = int(time.time())
            claims = {"iss": self._service, "aud": audience, "iat": issued, "exp": issued + int(CREDENTIAL_LIFE_S)}
            headers = {"kid": self._service, "typ": SERVICE_TOKEN_TYPE}
            token = jwt.encode(claims, self._key, ALGORITHM, headers)  # pyright: ignore[reportArgumentType] - any key
            self._tokens[audience] = (token, now + CREDENTIAL_LIFE_S / 2)
        return f"Bearer {token}"


class ServiceCallers:
    """Verifies the credentials of the services that call this one."""

    def __init__(self, service: str, settings: ServiceSettings) -> None:
        self._service = service
        self._keys = public_keys(orjson.loads(settings.service_jwks))
        self._verified: dict[str, tuple[str, float]] = {}

    def verify(self, token: str) -> str:
        """The caller's name; raises Unauthenticated."""
        now = time.monotonic()
        known = self._verified.get(token)
        if known is not None and known[1] > now:
            return known[0]
        kid = _key_id(token, SERVICE_TOKEN_TYPE)
        if kid not in self._keys:
            raise Unauthenticated(challenge=INVALID_TOKEN)
        claims = _claims(token, self._keys[kid], self._service, ["exp", "iat", "iss"], kid)
        if len(self._verified) >= VERIFIED_MOST:
            self._verified.clear()
        self._verified[token] = (kid, now + min(VERIFIED_FOR_S, claims["exp"] + LEEWAY_S - time.time()))
        return kid


def bearer(request: Request) -> str:
    """The bearer token of a request (RFC 6750, 2.1); raises Unauthenticated."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated
    return token.strip()


class _UserToken(OAuth2PasswordBearer):
    """OAuth 2's scheme for the OpenAPI page, and the verification that it stands for."""

    def __init__(self, *, admin: bool) -> None:
        super().__init__("/api/v1/auth/token", scheme_name="user", auto_error=False)
        self._admin = admin

    async def __call__(self, request: Request) -> Principal:  # pyright: ignore[reportIncompatibleMethodOverride] - verified
        tokens: AccessTokens = request.app.state.access_tokens
        principal = await tokens.verify(bearer(request))
        if self._admin and not principal.is_admin:
            raise Forbidden("this takes the role admin")
        return principal


class _Caller(HTTPBearer):
    """A service's credential, from one of the named callers."""

    def __init__(self, *callers: str) -> None:
        super().__init__(bearerFormat="JWT", scheme_name="service", auto_error=False)
        self._callers = frozenset(callers)

    async def __call__(self, request: Request) -> str:  # pyright: ignore[reportIncompatibleMethodOverride] - verified
        callers: ServiceCallers = request.app.state.service_callers
        caller = callers.verify(bearer(request))
        if caller not in self._callers:
            raise Forbidden(f"not for the service {caller}")
        return caller


Shopper = Annotated[Principal, Depends(_UserToken(admin=False))]
"""Any user; 401 without a valid access token."""
Admin = Annotated[Principal, Depends(_UserToken(admin=True))]
"""A user with the role admin; 401 without a valid access token, 403 with another role."""
OrderService = Annotated[str, Depends(_Caller("order"))]
"""The order service; 401 without a credential, 403 for another caller."""
Auditor = Annotated[str, Depends(_Caller("audit"))]
"""Whoever runs the audit; 401 without a credential, 403 for another caller."""
