"""Entity tags and conditional requests (RFC 9110, 8.8.3 and 13.1).

The tag of a product is `"<version>-<digest>"`. The digest, of the body, changes with all that a read shows, the stock
included; the version, which `If-Match` compares, with edits and imports only. So a change that was prepared on a page
is not refused because somebody bought one meanwhile. The tag of a list is its digest alone.
"""

import re
from collections.abc import Sequence
from hashlib import blake2b

from fastapi import Request

NO_CACHE = "no-cache"
"""`Cache-Control` of what is read from the catalogue: keep it, but ask each time whether it is still so. Any lifetime
would show a price that has changed, and the asking costs a 304."""

DIGEST_BYTES = 12
TAG = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
VERSIONED = re.compile(r"([0-9]{1,18})(?:-[0-9a-f]+)?")


def entity_tag(body: bytes, version: int | None = None) -> str:
    """The strong tag of a body, and of the version that it shows."""
    digest = blake2b(body, digest_size=DIGEST_BYTES).hexdigest()
    return f'"{digest}"' if version is None else f'"{version}-{digest}"'


def matches(if_none_match: str, tag: str) -> bool:
    """Whether `If-None-Match` names the tag, compared weakly (RFC 9110, 13.1.2): then the answer is 304."""
    if if_none_match == tag:
        return True
    return if_none_match.strip() == "*" or tag[1:-1] in (found[2] for found in TAG.finditer(if_none_match))


def if_match(request: Request) -> Sequence[int] | None:
    """The versions that `If-Match` allows, or none where any will do.

    Tags that are weak, or not of a product, match nothing, as RFC 9110, 13.1.1 asks; the version alone is taken too.
    """
    headers = request.headers.getlist("if-match")
    if not headers or any(header.strip() == "*" for header in headers):
        return None
    tags = [found for header in headers for found in TAG.finditer(header) if not found[1]]
    return [int(version[1]) for tag in tags if (version := VERSIONED.fullmatch(tag[2]))]
