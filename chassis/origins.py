"""Where a peer answers: the origins that a setting names, and the addresses that stand behind them now.

A setting such as `PRODUCT_URL` names one origin or several, separated by commas. A name that resolves to several
addresses (a headless Service of Kubernetes, a service of compose) counts as all of them.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

import structlog

RESOLVE_EVERY_S = 5.0
"""How long a replica that has come or gone may go unnoticed: the time for which CoreDNS lets an answer be kept."""

Address = tuple[str, int]
Resolve = Callable[[str, int], Awaitable[Sequence[Address]]]
log = structlog.stdlib.get_logger()


def origins(urls: str) -> list[Address]:
    """Host and port of each origin of a setting; raises ValueError for what is none.

    Only plain HTTP is spoken between services.
    """
    found: list[Address] = []
    for url in urls.split(","):
        parts = urlsplit(url.strip())
        if parts.scheme != "http" or not parts.hostname or parts.path not in {"", "/"} or parts.query or parts.fragment:
            raise ValueError("must be origins such as http://product:8002, separated by commas")
        if parts.username is not None:
            raise ValueError("must not hold a credential: each service signs its own")
        found.append((parts.hostname, parts.port or 80))
    return found


def origins_setting(urls: str) -> str:
    """Check a setting that names origins."""
    origins(urls)
    return urls


async def resolved(host: str, port: int) -> list[Address]:
    """The addresses of a name, of one family: a service listens on one, and a name of both would count twice.

    Raises OSError.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    families = {family for family, *_ in found}
    family = socket.AF_INET if socket.AF_INET in families else socket.AF_INET6
    return sorted({(str(address[0]), port) for found_family, *_, address in found if found_family == family})


def is_literal(host: str) -> bool:
    """Whether the host is an address itself."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


class Addresses:
    """The addresses of a peer, kept up to date in the background from the first use on.

    No call waits for a name but the first ones. A name that does not resolve keeps the addresses that it had.
    """

    def __init__(
        self, peer: str, urls: str, changed: Callable[[Sequence[Address]], None], resolve: Resolve = resolved
    ) -> None:
        """Tell `changed` all addresses, at once where no name has to be resolved, and whenever they change."""
        self._peer = peer
        self._changed = changed
        self._resolve = resolve
        self._found: dict[Address, Sequence[Address]] = {}
        self._names: list[Address] = []
        for origin in origins(urls):
            if is_literal(origin[0]):
                self._found[origin] = [origin]
            else:
                self._found[origin] = []
                self._names.append(origin)
        self.known = not self._names
        """Whether there is nothing to wait for before a call."""
        self._told: list[Address] = []
        self._refreshing: asyncio.Task[None] | None = None
        self._next: asyncio.TimerHandle | None = None
        self._tell()

    async def first(self) -> None:
        """Resolve the names, once for all who wait for it; raises OSError where no address is known then."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self.refresh())
        await asyncio.shield(self._refreshing)
        if not self._told:
            raise OSError(f"no address of {self._peer} is known")
        if not self.known:
            self.known = True
            self._plan()

    async def refresh(self) -> None:
        """Resolve the names anew."""
        for name in self._names:
            try:
                self._found[name] = await self._resolve(*name)
            except OSError as error:
                log.warning("name_not_resolved", peer=self._peer, host=name[0], error=str(error))
        self._tell()

    def _tell(self) -> None:
        found = list(dict.fromkeys(address for addresses in self._found.values() for address in addresses))
        if found != self._told:
            self._told = found
            self._changed(found)

    def _plan(self) -> None:
        self._next = asyncio.get_running_loop().call_later(RESOLVE_EVERY_S, self._begin)

    def _begin(self) -> None:
        self._refreshing = asyncio.create_task(self.refresh())
        self._refreshing.add_done_callback(lambda _: self._plan() if self.known else None)

    async def aclose(self) -> None:
        """Resolve no more."""
        self.known = not self._names
        if self._next is not None:
            self._next.cancel()
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)
