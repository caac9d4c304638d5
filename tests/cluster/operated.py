"""What an operator of the cluster types, and what a customer of the shop has done before and finds after it."""

import asyncio
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from uuid import uuid4

import httpx2

from chassis.migrations import ROOT
from drills.cluster import Cluster

PASSWORD = "a test of the cluster"
ADDRESS = {"name": "Ada", "line1": "1 High Street", "city": "Ely", "postal_code": "CB7", "country": "GB"}


class Refused(Exception):
    """A command that ended with a status other than 0, and what it said."""


async def deploy(*arguments: str, **environment: str) -> str:
    """Run `python -m deploy` as the Makefile does and return what it printed; raises Refused."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "deploy", *arguments, cwd=ROOT, env=os.environ | environment,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    printed, _ = await process.communicate()
    if process.returncode:
        raise Refused(printed.decode())
    return printed.decode()


@asynccontextmanager
async def overlay(cluster: Cluster, name: str) -> AsyncGenerator[None]:
    """Another overlay for a while, deployed over the usual one and taken back."""
    print(await deploy("up", OVERLAY=name))
    try:
        yield
    finally:
        print(await deploy("up", OVERLAY=cluster.target.overlay))
        await cluster.settled()


class Customer:
    """Somebody who registers and buys, through the edge."""

    def __init__(self, cluster: Cluster) -> None:
        self._origin = cluster.origin
        self._email = f"{uuid4().hex}@souk.example"
        self.form = {"grant_type": "password", "username": self._email, "password": PASSWORD}
        """What signs this customer in."""

    def _client(self) -> httpx2.AsyncClient:
        limits = httpx2.Limits(max_keepalive_connections=0)  # a connection from before a change proves nothing
        return httpx2.AsyncClient(base_url=self._origin, timeout=30, limits=limits)

    async def register(self) -> None:
        """Become a customer."""
        account = {"email": self._email, "password": PASSWORD, "name": "Ada"}
        async with self._client() as client:
            answer = await client.post("/api/v1/auth/register", json=account)
        assert answer.status_code == 201, answer.text

    async def known(self) -> bool:
        """Whether the shop knows this customer."""
        return await self._token() is not None

    async def buy(self) -> str:
        """Buy something that is in stock, and return the order's id."""
        headers = {**await self.headers(), "Idempotency-Key": uuid4().hex}
        async with self._client() as client:
            found = await client.get("/api/v1/products", params={"limit": 1, "in_stock": "true"})
            (product,) = found.json()["items"]
            order = {
                "items": [{"product_id": product["id"], "quantity": 1}],
                "address": ADDRESS,
                "payment_method": "tok_visa",
            }
            answer = await client.post("/api/v1/orders", json=order, headers=headers)
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    async def orders(self) -> list[str]:
        """The ids of this customer's orders, newest first."""
        async with self._client() as client:
            answer = await client.get("/api/v1/orders", headers=await self.headers())
        assert answer.status_code == 200, answer.text
        return [order["id"] for order in answer.json()["items"]]

    async def headers(self) -> dict[str, str]:
        """This customer's `Authorization`."""
        return {"Authorization": f"Bearer {await self._token()}"}

    async def _token(self) -> str | None:
        async with self._client() as client:
            answer = await client.post("/api/v1/auth/token", data=self.form)
        assert answer.status_code in {200, 401}, answer.text
        return answer.json().get("access_token")
