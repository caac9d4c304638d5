"""The storefront: its wiring, and nothing else."""

from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import structlog
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from chassis.app import Application, Transports, add_probes
from services.storefront.assets import Assets
from services.storefront.clients import Refused, Services, Unreachable
from services.storefront.pages import (
    RENEWAL,
    ElsewhereFirst,
    Forged,
    NoSuchPage,
    NotYours,
    Renew,
    environment,
    safe_next,
    trace_id,
    visit_of,
    with_query,
)
from services.storefront.routes import account, admin, cart, catalogue, checkout, orders
from services.storefront.session import Session, Sessions
from services.storefront.settings import StorefrontSettings

MAX_IMPORT_BYTES = 24 * 2**20
"""Two of them fit into the pod's /tmp, where a form's file is kept while it is read."""
AN_HOUR_S = 3600
MOST_IMPORTS = 2
log = structlog.stdlib.get_logger()


def create_app(settings: StorefrontSettings, transports: Transports | None = None) -> Application:
    """Build the storefront; nothing is opened before it is used."""
    application = Application("storefront", settings, transports)
    assets = Assets()
    services = Services(application, settings)
    application.state.settings = settings
    application.state.assets = assets
    application.state.services = services
    application.state.sessions = Sessions(services)
    application.state.templates = environment(assets, strip=settings.server_timing)
    application.on_close(services.aclose)
    application.body_limits["/admin/import"] = MAX_IMPORT_BYTES
    application.bound("import", "POST", "/admin/import", MOST_IMPORTS)

    add_probes(application)
    for subject in (catalogue, cart, checkout, orders, account, admin):
        application.include_router(subject.routes, include_in_schema=False)

    async def static(name: str, request: Request) -> Response:
        """A static file by its name with the digest."""
        found = assets.find(name, request.headers.get("accept-encoding", ""))
        if found is None:
            raise NoSuchPage
        return found

    async def favicon(request: Request) -> Response:
        """The picture in the browser's tab."""
        return assets.plain("favicon.svg", request.headers.get("accept-encoding", ""), AN_HOUR_S)

    async def robots() -> Response:
        """What is of no use to a search engine."""
        return Response("User-agent: *\nDisallow: /cart\nDisallow: /admin\n", media_type="text/plain")

    application.add_api_route("/static/{name}", static, include_in_schema=False)
    application.add_api_route("/favicon.svg", favicon, include_in_schema=False)
    application.add_api_route("/robots.txt", robots, include_in_schema=False)
    _explain_errors(application)
    return application


def _page(request: Request, status: int, title: str, text: str, **values: object) -> Response:
    given = {"button": "To the shop", "target": "/", "trace_id": ""} | values
    return visit_of(request).page("message.html", status, title=title, text=text, **given)


def _page_above(application: Application, path: str) -> str:
    """The next page above a path, which is the one that has the form which is sent there."""
    while path := path.rpartition("/")[0]:
        scope = {"type": "http", "method": "GET", "path": path}
        if any(route.matches(scope)[0] is Match.FULL for route in application.routes):
            return path
    return "/"


def _explain_errors(application: Application) -> None:
    """Say on a page of the shop what went wrong, and give one way to go on."""

    async def elsewhere_first(request: Request, error: Exception) -> Response:
        assert isinstance(error, ElsewhereFirst)
        page = RENEWAL if isinstance(error, Renew) else "/sign-in"
        return visit_of(request).go_to(with_query(page, next=error.next_page))

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)
        if error.status == 401:
            visit = visit_of(request)
            visit.sign_in(Session())
            next_page = visit.here if request.method == "GET" else "/"
            return visit.go_to(with_query("/sign-in", next=next_page))
        if error.status == 403:
            return await not_yours(request, error)
        if error.status == 404:
            return await no_such_page(request, error)
        log.warning("refused", service=error.service, status=error.status, code=error.code)
        return _page(
            request, 400, "That did not work", "The shop could not take this. Nothing was changed.", trace_id=trace_id()
        )

    async def unreachable(request: Request, error: Exception) -> Response:
        assert isinstance(error, Unreachable)
        text = (
            f"A part of the shop (the {error.service} service) does not answer at the moment."
            " What you have done so far is kept."
        )
        target = str(request.url.path) + (f"?{request.url.query}" if request.url.query else "")
        button = "Try again"
        if request.method != "GET":
            came_from = urlsplit(request.headers.get("referer", ""))
            target, button = safe_next(came_from._replace(scheme="", netloc="").geturl()), "Back, and try again"
        answer = _page(request, 503, "One moment, please", text, button=button, target=target, trace_id=trace_id())
        answer.headers["Retry-After"] = "1"
        return answer

    async def not_yours(request: Request, _error: Exception) -> Response:
        return _page(request, 403, "Staff only", "This page is for admins of the shop.")

    async def no_such_page(request: Request, _error: Exception) -> Response:
        return _page(request, 404, "Nothing here", "This page does not exist, or what it showed is no longer sold.")

    async def forged(request: Request, _error: Exception) -> Response:
        return _page(
            request, 403, "That did not come from here", "A form of another site was refused. Nothing was changed."
        )

    async def by_status(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 404:
            return await no_such_page(request, error)
        # Where a form is sent to, and somebody comes after signing in or by a reload.
        if error.status_code == 405 and request.method == "GET":
            return visit_of(request).go_to(_page_above(application, request.url.path))
        answer = _page(
            request, error.status_code, "That did not work", "The shop could not take this. Nothing was changed."
        )
        answer.headers.update(error.headers or {})
        return answer

    async def unexpected(request: Request, error: Exception) -> Response:
        log.exception("unexpected_error", method=request.method, path=request.url.path, exc_info=error)
        text = "Something went wrong on our side. What you have done so far is kept."
        return _page(request, 500, "Our mistake", text, trace_id=trace_id())

    handlers: dict[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
        ElsewhereFirst: elsewhere_first,
        Refused: refused,
        Unreachable: unreachable,
        NotYours: not_yours,
        NoSuchPage: no_such_page,
        Forged: forged,
        RequestValidationError: no_such_page,
        HTTPException: by_status,
        Exception: unexpected,
    }
    for kind, handler in handlers.items():
        application.add_exception_handler(kind, handler)
