"""What every page passes: who asks, what the services said meanwhile, the templates, and the headers of the answer."""

import re
from collections.abc import Mapping
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, cast
from urllib.parse import quote, urlencode, urlsplit

from fastapi import Depends, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from chassis.context import context
from services.storefront import basket, formats, session
from services.storefront.assets import Assets
from services.storefront.clients import Services, Shop
from services.storefront.forms import Form
from services.storefront.session import Session, Sessions

TEMPLATES = Path(__file__).resolve().parent / "templates"
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
"""Content-Security-Policy (W3C, level 3): only what this origin serves, no inline script or style, no frames."""
SECURITY = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
RENEWAL = "/session/renew"
"""The page between, where an access token that ran out is renewed."""
PICTURES = "/api/v1/products/pictures/"
"""Where a product's own picture is loaded from; another host's is not (the policy would refuse it)."""
OWN_PAGE = re.compile(r"/(?![/\\])[^\x00-\x1f\x7f]*")
"""A path of this origin. A browser leaves tabs and line feeds out of an address, and takes `\\` for `/` (WHATWG URL,
4.4), so `/`, tab, `\\` would be the way to another host.
"""


class ElsewhereFirst(Exception):
    """Another page has to come before the one that was asked for, which is `next_page` then."""

    def __init__(self, next_page: str) -> None:
        super().__init__(next_page)
        self.next_page = next_page


class SignInFirst(ElsewhereFirst):
    """A page that is somebody's own was asked for by nobody known."""


class Renew(ElsewhereFirst):
    """A navigation came with an access token that ran out: it is renewed first, by one tab at a time."""


class NotYours(Exception):
    """A page for admins."""


class Forged(Exception):
    """A form that was sent from another site (cross-site request forgery)."""


class NoSuchPage(Exception):
    """Nothing is there."""


def environment(assets: Assets, *, strip: bool) -> Environment:
    """The templates: everything is escaped, and a name that is not given is an error."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )

    def picture_of(product: Mapping[str, Any]) -> str:
        url = product.get("image_url") or ""
        return url if url.startswith(PICTURES) else assets.url("product.svg")

    known = cast("dict[str, Any]", made.globals)  # which Jinja types as what it holds at first
    known.update(asset=assets.url, strip=strip, picture_of=picture_of, statuses=STATUSES, blank=Form())
    return made


STATUSES: Mapping[str, str] = {
    "pending": "Being placed",
    "reserved": "Set aside for you",
    "authorised": "Payment approved",
    "confirmed": "Confirmed",
    "shipped": "On its way",
    "delivered": "Delivered",
    "rejected": "Not placed",
    "cancelled": "Cancelled",
}
"""An order's statuses in the words of the shop."""


def safe_next(target: str | None) -> str:
    """Where to go on, if that is a page of this shop; else the front page. No open redirect."""
    return target if target and len(target) <= 1000 and OWN_PAGE.fullmatch(target) else "/"


def with_query(path: str, **parameters: object) -> str:
    """A path with those parameters that are given."""
    query = urlencode({name: value for name, value in parameters.items() if value not in (None, "")})
    return f"{path}?{query}" if query else path


class Visit:
    """One request of a browser: in whose name the services are asked, and what its answer has to carry."""

    def __init__(self, request: Request, services: Services, sessions: Sessions, templates: Environment) -> None:
        self.request = request
        self.session = Session.of(request)
        self.secure = request.headers.get("x-forwarded-proto", request.url.scheme) == "https"
        self.locale = formats.locale_of(request.headers.get("accept-language", ""))
        self.basket: dict[Any, int] = basket.read(request)
        self.services = services
        self.sessions = sessions
        self.shop = Shop(services, self.session.access)
        self._templates = templates
        self.renewed = False
        """Whether the access token was renewed to serve this request."""
        self._session_changed = False
        self._basket_changed = False
        self.cart_count: int | None = None

    @property
    def here(self) -> str:
        """The page that is asked for, with its query."""
        query = self.request.url.query
        return f"{self.request.url.path}?{query}" if query else self.request.url.path

    def sign_in(self, granted: Session) -> None:
        """Go on in the name of whoever was granted these tokens, empty ones included."""
        self.session = granted
        self.shop.access_token = granted.access
        self._session_changed = True

    def keep_basket(self, changed: Mapping[Any, int]) -> None:
        """Let the browser keep this basket."""
        self.basket = dict(changed)
        self._basket_changed = True

    def page(self, template: str, status: int = 200, /, **values: Any) -> Response:
        """A page of HTML. One that is the same as the browser has it is 304 (RFC 9110, 13.1.2)."""
        if "errors" in values:
            values["errors"] = Form(values["errors"])
        count = self.cart_count
        if count is None and not self.session.signed_in:
            count = sum(self.basket.values())
        body = (
            self._templates.get_template(template)
            .render(
                visit=self,
                path=self.request.url.path,
                signed_in=self.session.signed_in,
                admin=self.session.role == "admin",
                cart_count=count,
                money=partial(formats.money, locale=self.locale),
                number=partial(formats.number, locale=self.locale),
                moment=partial(formats.moment, locale=self.locale),
                **values,
            )
            .encode("utf-8")
        )
        headers = {"Cache-Control": "private, no-cache", "Vary": "Accept-Language, Cookie"}
        tag = f'"{sha256(body).hexdigest()[:20]}"'
        headers["ETag"] = tag
        if status == 200 and self.request.method == "GET" and tag in self.request.headers.get("if-none-match", ""):
            return self._finished(Response(status_code=304, headers=headers))
        return self._finished(HTMLResponse(body, status, headers))

    def go_to(self, target: str) -> Response:
        """A redirection after a form (303), so that a reload does not send it again."""
        return self._finished(RedirectResponse(quote(target, safe="/?&=%:,.~-_#+"), 303))

    def answer(self, response: Response) -> Response:
        """Any other answer, with what this visit changed."""
        return self._finished(response)

    def _finished(self, response: Response) -> Response:
        response.headers.update(SECURITY)
        if self._session_changed:
            if self.session.signed_in:
                session.keep(response, self.session, secure=self.secure)
            else:
                session.drop(response, secure=self.secure)
        if self._basket_changed:
            basket.write(response, self.basket, secure=self.secure)
        if self.request.app.state.settings.server_timing and self.shop.told:
            # A second field of the name is a continuation of the first (RFC 9110, 5.3), which the chassis adds.
            response.headers.append("Server-Timing", timing(self.shop))
        return response


def timing(shop: Shop) -> str:
    """What the browser is told of the services' answers: who gave it, in how many ms, after how many repetitions."""
    return ", ".join(
        f'{told.service};dur={told.milliseconds:.1f};desc="{told.replica} {told.retries}"' for told in shop.told
    )


def navigates(request: Request) -> bool:
    """Whether the browser goes to the page, as against a script that fetches it (Fetch Metadata)."""
    return request.method == "GET" and request.headers.get("sec-fetch-mode", "navigate") == "navigate"


def refuse_forged(request: Request) -> None:
    """Refuse a form of another site. Cookies are not sent with those either (SameSite); this is the second lock.

    Raises Forged.
    """
    if request.method != "POST":
        return
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        if site not in {"same-origin", "none"}:
            raise Forged
        return
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise Forged


def visit_of(request: Request) -> Visit:
    """The visit that a request is: the same one for its route and for the page that says what went wrong with it.

    So what was changed on the way reaches the browser in any case, above all tokens that were renewed: the one they
    replace must not be used again.
    """
    if not hasattr(request.state, "visit"):
        state = request.app.state
        request.state.visit = Visit(request, state.services, state.sessions, state.templates)
    return cast("Visit", request.state.visit)


async def _visit(request: Request) -> Visit:
    refuse_forged(request)
    visit = visit_of(request)
    if visit.session.ended:
        if request.url.path == RENEWAL and request.method == "GET":
            return visit  # as it is: this page renews it
        if navigates(request):
            raise Renew(visit.here)
        if request.method == "GET":
            return visit  # a picture or a part of a page, of which many come at once: as for nobody, and not renewed
        visit.sign_in(await visit.sessions.renewed(visit.session))
        visit.renewed = True
    return visit


AnyVisit = Annotated[Visit, Depends(_visit)]
"""Anybody's visit."""


async def _signed_in(visit: AnyVisit) -> Visit:
    if not visit.session.signed_in:
        raise SignInFirst(visit.here if visit.request.method == "GET" else visit.request.url.path)
    return visit


SignedIn = Annotated[Visit, Depends(_signed_in)]
"""The visit of somebody who is signed in."""


async def _admin(visit: SignedIn) -> Visit:
    if visit.session.role != "admin":
        raise NotYours
    return visit


AdminVisit = Annotated[Visit, Depends(_admin)]
"""The visit of an admin, as the token says; whether it is true the services decide."""


def trace_id() -> str:
    """The trace of this request, for whoever asks what went wrong."""
    return context().trace_id
