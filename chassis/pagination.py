"""Keyset pages: a cursor holds the sort key of the last row shown, so a page costs the same at the end as at the
start.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Annotated, Any

import orjson
from fastapi import Query

from chassis.problems import InvalidCursor

Limit = Annotated[int, Query(ge=1, le=100)]
Cursor = Annotated[str | None, Query()]

DIGEST_BYTES = 8


def _digest(payload: bytes, query: Mapping[str, Any]) -> bytes:
    scope = orjson.dumps(dict(query), option=orjson.OPT_SORT_KEYS, default=str)
    return blake2b(payload, digest_size=DIGEST_BYTES, key=blake2b(scope, digest_size=32).digest()).digest()


def _encode(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def encode_cursor(position: Sequence[Any], query: Mapping[str, Any]) -> str:
    """The cursor after the row with the sort key `position`, good for the list with these filters and this sort only.

    `query` names the list too, so that no list takes another's cursor. The page's size is no part of it.
    """
    payload = orjson.dumps(list(position), default=str)
    return _encode(_digest(payload, query) + payload)


def decode_cursor(cursor: str, query: Mapping[str, Any]) -> list[Any]:
    """The sort key in a cursor; raises InvalidCursor when it is damaged or from another list, filter or sort."""
    try:
        raw = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        digest, payload = raw[:DIGEST_BYTES], raw[DIGEST_BYTES:]
        # The decoder passes over letters that are not of its alphabet, so the cursor is compared as a whole too.
        if digest != _digest(payload, query) or _encode(raw) != cursor:
            raise InvalidCursor
        return orjson.loads(payload)
    except ValueError:
        raise InvalidCursor from None
