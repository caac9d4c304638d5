"""The shop as its operator reaches it: past the edge and the network policies, through the API server."""

import asyncio
from contextlib import ExitStack
from pathlib import Path

from chassis.secrets import AUDIT, SERVICES
from deploy.commands import Kubectl
from deploy.terminal import Failed, Result
from drills.audit import CannotAudit, run
from drills.edge import ReverseProxy
from local.edge import STOREFRONT
from local.seed import SeedFailed, SignInRefused, seed

ADMIN_EMAIL = "admin@souk.example"
PORTS = {service: 8001 + place for place, service in enumerate((*SERVICES, STOREFRONT))}


def origins(kubectl: Kubectl, services: tuple[str, ...], stack: ExitStack) -> dict[str, str]:
    """An origin on this machine for each of these services, while the stack is open."""
    return {
        service: stack.enter_context(kubectl.forwarded(f"service/{service}", PORTS[service])) for service in services
    }


def put_on_shelves(kubectl: Kubectl, secrets: Path, result: Result) -> None:
    """Put the demo catalogue into a shop that has no products; raises Failed."""
    password = (secrets / "user" / "admin_password").read_text()
    with ExitStack() as stack:
        urls = origins(kubectl, ("user", "product"), stack)
        network = ReverseProxy({service: [url] for service, url in urls.items()})
        try:
            seeded = asyncio.run(seed({"user": network, "product": network}, ADMIN_EMAIL, password, result.progress))
        except SignInRefused as refused:
            result.text = str(refused)
            return
        except SeedFailed as error:
            raise Failed(str(error)) from None
    result.text = "the demo catalogue" if seeded else "there"


def audit(kubectl: Kubectl, secrets: Path) -> int:
    """Check the books of the shop in the cluster, and return the exit status; raises Failed."""
    if not (secrets / AUDIT / "service_key").exists():
        raise Failed(f"{secrets / AUDIT} is not there; make deploy makes it")
    with ExitStack() as stack:
        urls = origins(kubectl, SERVICES, stack)
        try:
            return asyncio.run(run(urls, secrets / AUDIT))
        except CannotAudit as error:
            raise Failed(f"audit: {error}") from None
