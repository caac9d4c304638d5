"""The keys that sign access tokens: made, kept encrypted, published and rotated without a request that fails.

A new key is published before it signs. Every replica looks at the database again after FRESH_FOR_S, and whoever stores
the published set keeps it for PUBLISHED_FOR_S at most; PUBLISHED_AHEAD_S is longer than both together. So when the
first token with a new `kid` is met, every replica that may be asked for the key has it. A superseded key stays
published until the last token that it signed has expired.
"""

import asyncio
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from os import urandom

import jwt
import orjson
import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chassis.auth import ACCESS_TOKEN_TYPE, ALGORITHM, ISSUER, LEEWAY_S, JwkSet, Role
from services.user.domain import ACCESS_TOKEN_LIFE_S
from services.user.repository import SigningKeyRow, SigningKeyRows

FRESH_FOR_S = 5.0
PUBLISHED_FOR_S = 5
PUBLISHED_AHEAD_S = 15.0
KEPT_S = ACCESS_TOKEN_LIFE_S + LEEWAY_S + PUBLISHED_AHEAD_S
"""How long a superseded key stays published: the life of a token, the clocks' leeway, and some more."""
NONCE_BYTES = 12

log = structlog.stdlib.get_logger()


class UndecryptableSigningKey(Exception):
    """The active key was encrypted with another KEY_ENCRYPTION_KEY: set that one, or rotate the signing keys."""


def _base64url(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _thumbprint(public_key: bytes) -> str:
    """A key's `kid`: the thumbprint of RFC 7638, 3 over the members that RFC 8037, 2 requires."""
    members = {"crv": "Ed25519", "kty": "OKP", "x": _base64url(public_key)}
    return _base64url(sha256(orjson.dumps(members, option=orjson.OPT_SORT_KEYS)).digest())


def _jwk(row: SigningKeyRow) -> dict[str, str]:
    return {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": _base64url(row.public_key),
        "kid": row.kid,
        "alg": ALGORITHM,
        "use": "sig",
    }


@dataclass(frozen=True, slots=True)
class Signer:
    """A key that may sign from `active_at` of the monotonic clock on."""

    kid: str
    private_key: Ed25519PrivateKey
    active_at: float

    def access_token(self, user_id: object, role: Role) -> str:
        """An access token, RFC 9068, that lives ACCESS_TOKEN_LIFE_S."""
        issued = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": ISSUER,
            "sub": str(user_id),
            "role": role,
            "iat": issued,
            "exp": issued + ACCESS_TOKEN_LIFE_S,
        }
        return jwt.encode(claims, self.private_key, ALGORITHM, {"kid": self.kid, "typ": ACCESS_TOKEN_TYPE})


@dataclass(frozen=True, slots=True)
class _Ring:
    """The keys as of one look at the database."""

    signers: list[Signer]
    jwks: JwkSet
    published: bytes
    loaded_at: float


class SigningKeys:
    """The keys of this service, shared by its replicas through the database."""

    def __init__(
        self, rows: SigningKeyRows, encryption_key: bytes, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rows = rows
        self._cipher = AESGCM(encryption_key)
        self._clock = clock
        self._loading = asyncio.Lock()
        self._ring: _Ring | None = None
        self._decrypted: dict[str, Ed25519PrivateKey] = {}

    async def signer(self) -> Signer:
        """The key to sign with now; makes the first one. Raises UndecryptableSigningKey."""
        ring = await self._fresh()
        now = self._clock()
        active = next((signer for signer in reversed(ring.signers) if signer.active_at <= now), None)
        if active is None:
            raise UndecryptableSigningKey
        return active

    async def jwks(self) -> JwkSet:
        """The published keys."""
        return (await self._fresh()).jwks

    async def published(self) -> bytes:
        """The published keys as JSON, RFC 7517, 5."""
        return (await self._fresh()).published

    async def rotate(self) -> datetime | None:
        """Publish a new key, which signs from the returned time on; none where another rotation came first.

        It needs no key that is there, so it also helps when KEY_ENCRYPTION_KEY was lost.
        """
        await self._rows.add_first(*self._new())
        return await self._rows.add_next(*self._new(), PUBLISHED_AHEAD_S)

    async def delete_superseded(self) -> None:
        """Delete the keys that no living token was signed with."""
        await self._rows.delete_superseded(KEPT_S)

    async def _fresh(self) -> _Ring:
        if self._ring is None or self._clock() - self._ring.loaded_at > FRESH_FOR_S:
            async with self._loading:
                if self._ring is None or self._clock() - self._ring.loaded_at > FRESH_FOR_S:
                    self._ring = await self._load()
        return self._ring

    async def _load(self) -> _Ring:
        loaded_at = self._clock()  # before the look: what it saw is at least as new
        rows = await self._rows.published(KEPT_S)
        if not rows:
            await self._rows.add_first(*self._new())
            rows = await self._rows.published(KEPT_S)
        looked_at = self._clock()  # after it: no key is taken to be active too early
        # None is active where the database's clock was set back: then the oldest, which every replica knows, signs on.
        active = max((place for place, row in enumerate(rows) if row.active_in_s <= 0), default=0)
        signers: list[Signer] = []
        # A superseded key never signs again, so its private part is left alone.
        for place, row in enumerate(rows[active:]):
            private_key = self._private_key(row)
            if private_key is not None:
                active_in_s = row.active_in_s if place else min(row.active_in_s, 0.0)
                signers.append(Signer(row.kid, private_key, looked_at + active_in_s))
        self._decrypted = {signer.kid: signer.private_key for signer in signers}
        jwks: JwkSet = {"keys": [dict(_jwk(row)) for row in rows]}
        return _Ring(signers, jwks, orjson.dumps(jwks), loaded_at)

    def _new(self) -> tuple[str, bytes, bytes]:
        """A new key as it is stored: `kid`, public part, private part encrypted and bound to the `kid`."""
        key = Ed25519PrivateKey.generate()
        public_key = key.public_key().public_bytes_raw()
        kid = _thumbprint(public_key)
        nonce = urandom(NONCE_BYTES)
        return kid, public_key, nonce + self._cipher.encrypt(nonce, key.private_bytes_raw(), kid.encode())

    def _private_key(self, row: SigningKeyRow) -> Ed25519PrivateKey | None:
        known = self._decrypted.get(row.kid)
        if known is not None:
            return known
        nonce, encrypted = row.private_key_encrypted[:NONCE_BYTES], row.private_key_encrypted[NONCE_BYTES:]
        try:
            return Ed25519PrivateKey.from_private_bytes(self._cipher.decrypt(nonce, encrypted, row.kid.encode()))
        except InvalidTag:
            log.warning("signing_key_not_decrypted", kid=row.kid)
            return None
