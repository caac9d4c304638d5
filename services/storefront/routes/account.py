"""Signing in and out, and what an account holds: name, password, addresses."""

import asyncio
from contextlib import suppress
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request, Response

from services.storefront import carts
from services.storefront.clients import Refused, Unreachable
from services.storefront.forms import Form, address_of, form_of
from services.storefront.pages import AnyVisit, NoSuchPage, SignedIn, Visit, safe_next
from services.storefront.routes.catalogue import cart_count
from services.storefront.session import UNTIL, Session

routes = APIRouter()

WRONG = "This e-mail and this password do not belong together."
TOO_OFTEN = "There were too many attempts with this e-mail. Try again in a quarter of an hour."


async def _sign_in(visit: Visit, email: str, password: str) -> None:
    form = {"grant_type": "password", "username": email, "password": password}
    answer = await visit.shop.call("user", "POST", "/api/v1/auth/token", form=form)
    visit.sign_in(Session.granted(answer.document))


async def _go_on(visit: Visit, form: Form) -> Response:
    """Merge the basket, and go on where whoever signed in wanted to be."""
    with suppress(Unreachable):  # then the basket stays in the browser, and is merged the next time
        await carts.merge(visit)
    return visit.go_to(safe_next(form["next"]))


@routes.get("/sign-in")
async def sign_in_page(request: Request, visit: AnyVisit) -> Response:
    """The form to sign in with."""
    next_page = safe_next(request.query_params.get("next"))
    return visit.page("sign_in.html", next_page=next_page, values=Form(), errors={}, problem=None)


@routes.post("/sign-in")
async def sign_in(request: Request, visit: AnyVisit) -> Response:
    """Sign in."""
    form = await form_of(request)
    try:
        await _sign_in(visit, form["email"], form["password"])
    except Refused as refused:
        if refused.status not in {400, 401, 422, 429}:
            raise
        problem = TOO_OFTEN if refused.status == 429 else WRONG
        next_page = safe_next(form["next"])
        return visit.page("sign_in.html", 422, next_page=next_page, values=form, errors={}, problem=problem)
    return await _go_on(visit, form)


@routes.get("/register")
async def register_page(request: Request, visit: AnyVisit) -> Response:
    """The form to open an account with."""
    next_page = safe_next(request.query_params.get("next"))
    return visit.page("register.html", next_page=next_page, values=Form(), errors={})


@routes.post("/register")
async def register(request: Request, visit: AnyVisit) -> Response:
    """Open an account, and sign in."""
    form = await form_of(request)
    account = {"email": form["email"], "password": form["password"], "name": form["name"]}
    try:
        await visit.shop.call("user", "POST", "/api/v1/auth/register", account)
    except Refused as refused:
        errors = refused.errors()
        if refused.code == "email-taken":
            errors = {"email": "belongs to an account already: sign in with it"}
        if not errors:
            raise
        next_page = safe_next(form["next"])
        return visit.page("register.html", 422, next_page=next_page, values=form, errors=errors)
    await _sign_in(visit, form["email"], form["password"])
    return await _go_on(visit, form)


@routes.post("/sign-out")
async def sign_out(visit: AnyVisit) -> Response:
    """End this sign-in, here and at the user service."""
    if visit.session.refresh is not None:
        with suppress(Refused, Unreachable):  # the browser forgets it in any case, and by itself it runs out
            await visit.shop.call("user", "POST", "/api/v1/auth/revoke", form={"token": visit.session.refresh})
    visit.sign_in(Session())
    return visit.go_to("/")


@routes.get("/session/renew")
async def renew_page(request: Request, visit: AnyVisit) -> Response:
    """Between two pages: a module renews the access token, one tab at a time, and goes on."""
    ran_out = request.cookies.get(UNTIL, "")
    return visit.page("renew.html", next_page=safe_next(request.query_params.get("next")), ran_out=ran_out)


@routes.post("/session/renew")
async def renew(request: Request, visit: AnyVisit) -> Response:
    """Renew the access token, and go on; without a script this is a button's form."""
    form = await form_of(request)
    if visit.session.refresh is not None and not visit.renewed:
        visit.sign_in(await visit.sessions.renewed(visit.session))
    if form["quiet"]:
        return visit.answer(Response(status_code=204))
    return visit.go_to(safe_next(form["next"]))


async def _account(visit: Visit, status: int = 200, **values: Any) -> Response:
    me, addresses, _ = await asyncio.gather(
        visit.shop.get("user", "/api/v1/users/me"),
        visit.shop.get("user", "/api/v1/users/me/addresses", limit=100),
        cart_count(visit),
    )
    given: dict[str, Any] = {"errors": {}, "form": "", "values": Form(), "done": ""}
    given.update(values)
    return visit.page("account.html", status, me=me, addresses=addresses["items"], **given)


async def _saved(visit: Visit, subject: str, form: Form, method: str, path: str, document: dict[str, str]) -> Response:
    """Send what a form of this page says to the user service; what is wrong with it is said at its fields."""
    try:
        await visit.shop.call("user", method, path, document)
    except Refused as refused:
        if not refused.errors():
            raise
        return await _account(visit, 422, form=subject, values=form, errors=refused.errors())
    return visit.go_to(f"/account?done={subject}#{subject}")


@routes.get("/account")
async def account(request: Request, visit: SignedIn) -> Response:
    """Name, password, addresses."""
    return await _account(visit, done=request.query_params.get("done", ""))


@routes.post("/account/name")
async def change_name(request: Request, visit: SignedIn) -> Response:
    """Another name."""
    form = await form_of(request)
    return await _saved(visit, "name", form, "PATCH", "/api/v1/users/me", {"name": form["name"]})


@routes.post("/account/password")
async def change_password(request: Request, visit: SignedIn) -> Response:
    """Another password, after which every browser but this one has to sign in again."""
    form = await form_of(request)
    me = await visit.shop.get("user", "/api/v1/users/me")
    change = {"password": form["password"], "current_password": form["current_password"]}
    try:
        await visit.shop.call("user", "PATCH", "/api/v1/users/me", change)
    except Refused as refused:
        errors = refused.errors()
        if refused.code == "wrong-password":
            errors = {"current_password": "is not your password now"}
        if not errors:
            raise
        return await _account(visit, 422, form="password", errors=errors)
    await _sign_in(visit, me["email"], form["password"])
    return visit.go_to("/account?done=password")


@routes.post("/account/delete")
async def delete_account(request: Request, visit: SignedIn) -> Response:
    """Close the account."""
    if not (await form_of(request))["sure"]:
        return await _account(visit, 422, form="delete", errors={"sure": "has to be ticked, so that it is no accident"})
    await visit.shop.call("user", "DELETE", "/api/v1/users/me")
    visit.sign_in(Session())
    return visit.go_to("/")


@routes.post("/account/addresses")
async def add_address(request: Request, visit: SignedIn) -> Response:
    """A new address."""
    form = await form_of(request)
    return await _saved(visit, "address", form, "POST", "/api/v1/users/me/addresses", address_of(form))


@routes.get("/account/addresses/{address_id}")
async def address(address_id: UUID, visit: SignedIn) -> Response:
    """An address, to be changed."""
    book = await visit.shop.get("user", "/api/v1/users/me/addresses", limit=100)
    found = next((entry for entry in book["items"] if entry["id"] == str(address_id)), None)
    if found is None:
        raise NoSuchPage
    values = Form({name: value or "" for name, value in found.items()})
    return visit.page("address.html", address_id=address_id, values=values, errors={})


@routes.post("/account/addresses/{address_id}")
async def change_address(address_id: UUID, request: Request, visit: SignedIn) -> Response:
    """Change an address, or by the button `remove` take it out of the book."""
    form = await form_of(request)
    path = f"/api/v1/users/me/addresses/{address_id}"
    try:
        if form["remove"]:
            await visit.shop.call("user", "DELETE", path)
        else:
            await visit.shop.call("user", "PUT", path, address_of(form))
    except Refused as refused:
        if refused.status == 404:
            raise NoSuchPage from None
        if not refused.errors():
            raise
        return visit.page("address.html", 422, address_id=address_id, values=form, errors=refused.errors())
    return visit.go_to("/account?done=address#address")
