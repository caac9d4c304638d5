"""The Idempotency-Key of a request: what it may be, and what makes two bodies the same.

Each service keeps the answers in its own database, in the transaction that makes them true. The header follows the IETF
draft draft-ietf-httpapi-idempotency-key-header.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Any

import orjson
from fastapi import Depends, Header, Response

from chassis.problems import MEDIA_TYPE, IdempotencyKeyInvalid, IdempotencyKeyMissing

REPLAYED = "Idempotency-Replayed"
KEPT_HOURS = 24
MOST_CHARACTERS = 255


KeyHeader = Annotated[str | None, Header(alias="Idempotency-Key", description="1 to 255 characters, kept 24 hours")]


async def optional_key(key: KeyHeader = None) -> str | None:
    """Take the request's key, or none; raises IdempotencyKeyInvalid."""
    if key is not None and not 1 <= len(key) <= MOST_CHARACTERS:
        raise IdempotencyKeyInvalid
    return key


async def required_key(key: KeyHeader = None) -> str:
    """Take the request's key; raises IdempotencyKeyMissing or IdempotencyKeyInvalid."""
    if key is None:
        raise IdempotencyKeyMissing
    await optional_key(key)
    return key


OptionalKey = Annotated[str | None, Depends(optional_key)]
"""For a route that takes an Idempotency-Key."""
RequiredKey = Annotated[str, Depends(required_key)]
"""For a route that needs an Idempotency-Key."""


def fingerprint(body: Any) -> bytes:
    """32 bytes that two bodies share when they are the same JSON: white space and the order of members do not count."""
    return sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).digest()


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """An answer as it was first sent, kept for 24 hours."""

    status: int
    body: bytes
    location: str | None = None

    def response(self, *, replayed: bool = False) -> Response:
        """The answer as a response."""
        headers = {"Location": self.location} if self.location else {}
        if replayed:
            headers[REPLAYED] = "true"
        media_type = "application/json" if self.status < 400 else MEDIA_TYPE
        return Response(self.body, self.status, headers, media_type)
