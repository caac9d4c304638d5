"""Sessions: an access token for fifteen minutes, and a refresh token that is good once for the next pair.

A refresh token is the id of its family and a secret of 256 bits, of which a digest is stored. So a token that was good
earlier is known for what it is as long as its family lives, and a family is one row however often it is renewed.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256
from secrets import token_bytes
from typing import NamedTuple, Self
from uuid import UUID

import structlog

from chassis.crash_points import crash_point
from chassis.telemetry import Telemetry
from services.user.domain import ACCESS_TOKEN_LIFE_S, InvalidGrant
from services.user.keys import SigningKeys
from services.user.repository import Account, RefreshFamilies
from services.user.schemas import Tokens

SECRET_BYTES = 32
FAMILY_BYTES = 16

log = structlog.stdlib.get_logger()


class RefreshToken(NamedTuple):
    """A refresh token, taken apart."""

    family_id: UUID
    secret: bytes

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The token that a client sent, or none where it is not one of ours."""
        try:
            raw = urlsafe_b64decode(text.encode("ascii"))
        except ValueError:
            return None
        if len(raw) != FAMILY_BYTES + SECRET_BYTES:
            return None
        return cls(UUID(bytes=raw[:FAMILY_BYTES]), raw[FAMILY_BYTES:])

    def __str__(self) -> str:
        return urlsafe_b64encode(self.family_id.bytes + self.secret).decode()

    @property
    def digest(self) -> bytes:
        """What is stored of the secret. It is random, so a fast hash does."""
        return sha256(self.secret).digest()


class Sessions:
    """Opens, renews and ends sessions."""

    def __init__(self, families: RefreshFamilies, keys: SigningKeys, telemetry: Telemetry) -> None:
        self._families = families
        self._keys = keys
        issued = telemetry.counter("souk_tokens_issued", "Pairs of tokens issued by grant type.", ("grant_type",))
        self._issued = {grant: issued.labels(grant) for grant in ("password", "refresh_token")}
        self._reused = telemetry.counter(
            "souk_refresh_tokens_reused", "Refresh tokens used again, each of which ended its family."
        )

    async def open(self, account: Account) -> Tokens | None:
        """Tokens for a login, or none where the account was deleted or its password changed since it was checked."""
        signer = await self._keys.signer()  # first of all: should there be no key, nothing has happened
        secret = token_bytes(SECRET_BYTES)
        family_id = await self._families.open(account, sha256(secret).digest())
        if family_id is None:
            return None
        self._issued["password"].inc()
        return Tokens(
            access_token=signer.access_token(account.user_id, account.role),
            expires_in=ACCESS_TOKEN_LIFE_S,
            refresh_token=str(RefreshToken(family_id, secret)),
        )

    async def renew(self, text: str) -> Tokens:
        """The next tokens in place of these; raises InvalidGrant, and ends the family where this token was used before.

        A client whose answer was lost has to log in again: it cannot be told from a thief (RFC 9700, 4.14.2).
        """
        token = RefreshToken.parse(text)
        if token is None:
            raise InvalidGrant("the refresh token is not good")
        signer = await self._keys.signer()
        following = RefreshToken(token.family_id, token_bytes(SECRET_BYTES))
        crash_point("user.rotate.asked")
        renewed = await self._families.rotate(token.family_id, token.digest, following.digest)
        crash_point("user.rotated")
        if renewed is None:
            if await self._families.end(token.family_id):
                crash_point("user.family_ended")
                self._reused.inc()
                log.warning("refresh_token_reused", family_id=token.family_id)
            raise InvalidGrant("the refresh token is not good")
        self._issued["refresh_token"].inc()
        return Tokens(
            access_token=signer.access_token(renewed.user_id, renewed.role),
            expires_in=ACCESS_TOKEN_LIFE_S,
            refresh_token=str(following),
        )

    async def end(self, text: str) -> None:
        """End the session of a refresh token, also of one that was renewed since; any other text is passed over."""
        token = RefreshToken.parse(text)
        if token is not None:
            await self._families.end(token.family_id)
