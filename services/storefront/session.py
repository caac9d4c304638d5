"""Who is signed in: two cookies that no script can read, and a third that only says until when.

The access token lives 15 minutes, the refresh token renews it and is itself replaced each time (rotation); one that is
used twice ends the whole sign-in (docs/decisions/storefront.md says what follows for a browser with several tabs).
"""

import asyncio
import base64
import re
from dataclasses import dataclass
from time import time
from typing import Any, cast

import orjson
from fastapi import Request, Response

from services.storefront.clients import Refused, Services, Shop

ACCESS = "souk_access"
REFRESH = "souk_refresh"
UNTIL = "souk_until"
"""When the access token ends, in seconds since 1970: what a script may know, so that it renews it in time."""
REFRESHED_WITHIN_S = 30 * 24 * 3600
TOKEN = re.compile("[A-Za-z0-9._~+/-]+=*")
"""What a token may be (RFC 6750, 2.1); what else a cookie holds was not put there by the shop."""
EARLY_S = 30
"""So much earlier than the service the storefront takes an access token for ended, as a page takes time to make."""


@dataclass(frozen=True, slots=True)
class Session:
    """The tokens of a browser; without an access token nobody is signed in, or it has to be renewed."""

    access: str | None = None
    refresh: str | None = None
    expires_in_s: int = 0

    @property
    def signed_in(self) -> bool:
        """Whether requests can be made in somebody's name."""
        return self.access is not None

    @property
    def ended(self) -> bool:
        """Whether the access token has run out and can be renewed."""
        return self.access is None and self.refresh is not None

    @property
    def role(self) -> str:
        """What the token says of its owner, unverified: it decides which links are shown, and nothing else."""
        return self._claim("role")

    @property
    def shopper(self) -> str:
        """Whose token it is, unverified: what one person's page left in the browser is not put into another's."""
        return self._claim("sub")

    def _claim(self, name: str) -> str:
        try:
            payload = cast("str", self.access).split(".")[1]
            claims = orjson.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
            return str(claims[name])
        except (AttributeError, IndexError, ValueError, KeyError, TypeError):
            return ""

    @classmethod
    def of(cls, request: Request) -> "Session":
        """What the browser's cookies hold."""
        access, refresh = (request.cookies.get(name, "") for name in (ACCESS, REFRESH))
        return cls(access if TOKEN.fullmatch(access) else None, refresh if TOKEN.fullmatch(refresh) else None)

    @classmethod
    def granted(cls, document: dict[str, Any]) -> "Session":
        """What `POST /api/v1/auth/token` gave."""
        return cls(document["access_token"], document["refresh_token"], document["expires_in"])


def keep(response: Response, session: Session, *, secure: bool) -> None:
    """Put a session that was just granted into the browser's cookies."""
    assert session.access is not None
    assert session.refresh is not None
    lives_s = max(session.expires_in_s - EARLY_S, 1)
    _put(response, ACCESS, session.access, lives_s, secure=secure)
    _put(response, REFRESH, session.refresh, REFRESHED_WITHIN_S, secure=secure)
    _put(response, UNTIL, str(int(time()) + lives_s), REFRESHED_WITHIN_S, secure=secure, readable=True)


def drop(response: Response, *, secure: bool) -> None:
    """Take the session out of the browser."""
    for name in (ACCESS, REFRESH, UNTIL):
        response.delete_cookie(name, secure=secure, httponly=name != UNTIL, samesite="lax")


def _put(response: Response, name: str, value: str, max_age_s: int, *, secure: bool, readable: bool = False) -> None:
    response.set_cookie(name, value, max_age=max_age_s, secure=secure, httponly=not readable, samesite="lax")


class Sessions:
    """Renews access tokens. Of several requests that come with one refresh token at once, only one asks for all."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._renewing: dict[str, asyncio.Task[Session]] = {}

    async def renewed(self, session: Session) -> Session:
        """The session with new tokens, or an empty one where the refresh token is no longer good.

        Raises Unreachable, after which the old refresh token may be asked for again.
        """
        if session.refresh is None:
            return Session()
        task = self._renewing.get(session.refresh)
        if task is None:
            token = session.refresh
            task = self._renewing[token] = asyncio.create_task(self._renew(token))
            task.add_done_callback(lambda _: self._renewing.pop(token, None))
        return await asyncio.shield(task)

    async def _renew(self, refresh_token: str) -> Session:
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        try:
            answer = await Shop(self._services, None).call("user", "POST", "/api/v1/auth/token", form=form)
        except Refused:
            return Session()
        return Session.granted(answer.document)
