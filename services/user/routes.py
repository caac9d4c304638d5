"""HTTP in and out."""

from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse

from chassis.audit import ndjson
from chassis.auth import Admin, Auditor, OrderService, Shopper
from chassis.database import Autocommit
from chassis.pagination import Cursor, Limit, decode_cursor, encode_cursor
from chassis.problems import Forbidden, InvalidCursor, InvalidRequest, TooManyAttempts, documented
from chassis.schemas import Address, JsonBytes, Page, Text
from services.user.domain import AddressBookFull, EmailTaken, InvalidGrant, UnsupportedGrantType, WrongPassword
from services.user.keys import PUBLISHED_FOR_S, SigningKeys
from services.user.logins import Logins
from services.user.passwords import Passwords
from services.user.repository import AUDIT, Accounts, Addresses
from services.user.schemas import (
    Jwks,
    ProfileChange,
    Registration,
    RevocationForm,
    SavedAddress,
    TokenForm,
    Tokens,
    User,
)
from services.user.sessions import Sessions

auth = APIRouter(prefix="/api/v1/auth", tags=["auth"])
users = APIRouter(prefix="/api/v1/users", tags=["users"])
internal = APIRouter(prefix="/internal/v1", tags=["internal"])


@dataclass(frozen=True, slots=True)
class Parts:
    """What the routes work with, made by create_app."""

    accounts: Accounts
    addresses: Addresses
    passwords: Passwords
    logins: Logins
    sessions: Sessions
    keys: SigningKeys


async def _parts(request: Request) -> Parts:
    return request.app.state.parts


Wired = Annotated[Parts, Depends(_parts)]


@auth.post("/register", status_code=201, responses=documented(EmailTaken))
async def register(registration: Registration, parts: Wired) -> User:
    """Become a customer. The e-mail is case-folded."""
    with parts.passwords.place():
        password_hash = await parts.passwords.hash(registration.password)
    return await parts.accounts.create(registration.email, registration.name, password_hash)


@auth.post(
    "/token",
    openapi_extra=TokenForm.documented(),
    responses=documented(InvalidGrant, UnsupportedGrantType, TooManyAttempts),
)
async def token(form: Annotated[TokenForm, Depends(TokenForm.read)], parts: Wired, response: Response) -> Tokens:
    """Log in with `username` and `password`, or renew a session with its `refresh_token`.

    From the 11th attempt after 10 failures in 15 minutes for one e-mail, known or not, the answer is 429. A refresh
    token used twice ends its session.
    """
    response.headers["Cache-Control"] = "no-store"  # RFC 6749, 5.1
    match form.grant_type:
        case "password":
            username, password = form.required("username", "password")
            account = await parts.logins.check(username, password)
            tokens = account and await parts.sessions.open(account)
            if tokens is None:
                raise InvalidGrant("the e-mail or the password is wrong")
            return tokens
        case "refresh_token":
            [refresh_token] = form.required("refresh_token")
            return await parts.sessions.renew(refresh_token)
        case _:
            raise UnsupportedGrantType


@auth.post("/revoke", openapi_extra=RevocationForm.documented())
async def revoke(form: Annotated[RevocationForm, Depends(RevocationForm.read)], parts: Wired) -> dict[str, str]:
    """End the session of a refresh token; of what is no such token too, as RFC 7009, 2.2 asks."""
    await parts.sessions.end(form.token)
    return {}


@auth.get("/jwks", responses={200: {"model": Jwks}})
async def jwks(parts: Wired) -> JsonBytes:
    """The public keys that verify access tokens."""
    return JsonBytes(await parts.keys.published(), headers={"Cache-Control": f"public, max-age={PUBLISHED_FOR_S}"})


@users.get("/me")
async def profile(shopper: Shopper, parts: Wired) -> User:
    """The caller's account."""
    return await parts.accounts.get(shopper.user_id)


@users.patch("/me", responses=documented(WrongPassword, TooManyAttempts))
async def change_profile(change: ProfileChange, shopper: Shopper, parts: Wired) -> User:
    """Change the name, the password or both. Without either nothing changes. A new password ends all sessions.

    A wrong `current_password` counts as a failed login.
    """
    if change.password is not None and change.current_password is None:
        raise InvalidRequest.field("current_password", "is needed for a new password")
    if change.password is None and change.current_password is not None:
        raise InvalidRequest.field("password", "is missing, and nothing else needs the current password")
    user = await parts.accounts.get(shopper.user_id)
    if change.password is not None and change.current_password is not None:
        account = await parts.logins.check(user.email, change.current_password)
        if account is None or account.user_id != user.id:  # the e-mail may have gone to another account just now
            raise WrongPassword
        with parts.passwords.place():
            password_hash = await parts.passwords.hash(change.password)
        changed = await parts.accounts.change_password(account, password_hash, change.name)
        if changed is None:
            raise WrongPassword
        return changed
    return user if change.name is None else await parts.accounts.rename(shopper.user_id, change.name)


@users.delete("/me", status_code=204)
async def delete_profile(shopper: Shopper, parts: Wired) -> None:
    """Erase the caller's account, address book and sessions. The e-mail is free again."""
    await parts.accounts.delete(shopper.user_id)


@users.get("/me/addresses", responses=documented(InvalidCursor))
async def address_book(shopper: Shopper, parts: Wired, limit: Limit = 20, cursor: Cursor = None) -> Page[SavedAddress]:
    """The caller's addresses, oldest first."""
    query = {"list": "addresses", "user_id": shopper.user_id}
    after = _position(cursor, query)
    found = await parts.addresses.page(shopper.user_id, after, limit + 1)
    return Page(items=found[:limit], next_cursor=_next_cursor(found, limit, query))


@users.post("/me/addresses", status_code=201, responses=documented(AddressBookFull))
async def add_address(address: Address, shopper: Shopper, parts: Wired) -> SavedAddress:
    """Add an address to the caller's."""
    return await parts.addresses.add(shopper.user_id, address)


@users.put("/me/addresses/{address_id}")
async def replace_address(address_id: UUID, address: Address, shopper: Shopper, parts: Wired) -> SavedAddress:
    """Replace one of the caller's addresses as a whole."""
    return await parts.addresses.replace(shopper.user_id, address_id, address)


@users.delete("/me/addresses/{address_id}", status_code=204)
async def delete_address(address_id: UUID, shopper: Shopper, parts: Wired) -> None:
    """Delete one of the caller's addresses. Orders that went there keep their copy."""
    await parts.addresses.delete(shopper.user_id, address_id)


@users.get("", responses=documented(Forbidden, InvalidCursor))
async def list_users(
    _admin: Admin,
    parts: Wired,
    email: Annotated[Text | None, Query()] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Page[User]:
    """All users, newest first; with `email` the one who has it, in any case."""
    folded = None if email is None else email.casefold()
    query = {"list": "users", "email": folded}
    before = _position(cursor, query)
    found = await parts.accounts.page(folded, before, limit + 1)
    return Page(items=found[:limit], next_cursor=_next_cursor(found, limit, query))


def _position(cursor: str | None, query: dict[str, Any]) -> UUID | None:
    """The id after which a page begins; none for the first."""
    if cursor is None:
        return None
    try:
        [position] = decode_cursor(cursor, query)
        return UUID(position)
    except (ValueError, AttributeError, TypeError):
        raise InvalidCursor from None


def _next_cursor(found: list[User] | list[SavedAddress], limit: int, query: dict[str, Any]) -> str | None:
    """The cursor after the page's last row; none where no row follows it."""
    return encode_cursor([found[limit - 1].id], query) if len(found) > limit else None


@internal.get("/users/{user_id}/addresses/{address_id}", responses=documented(Forbidden))
async def saved_address(user_id: UUID, address_id: UUID, _caller: OrderService, parts: Wired) -> Address:
    """An address of this user's, for the order service."""
    return await parts.addresses.get(user_id, address_id)


@internal.get("/audit", response_class=StreamingResponse, responses=documented(Forbidden))
async def audit(_caller: Auditor, database: Autocommit) -> StreamingResponse:
    """Every user's id and role, a line of JSON each."""
    return await ndjson(database, AUDIT)
