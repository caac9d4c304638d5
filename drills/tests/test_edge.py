"""The drills' edge repeats what a real one does, and nothing else: a checkout that was begun is never sent twice."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx2
import pytest

from drills.edge import ReverseProxy
from drills.network import RESET_ON_CLOSE
from drills.platform import free_ports

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Replica:
    """A server that counts what it is sent; after `answers` requests it takes another one and closes without a word."""

    def __init__(self, answers: int = 1_000_000) -> None:
        self.answers = answers
        self.asked: list[bytes] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.asked.append(head.partition(b" HTTP/")[0])
                if len(self.asked) > self.answers:
                    break
                writer.write(ANSWER)
                await writer.drain()
        except asyncio.IncompleteReadError:
            pass  # the edge has closed
        finally:
            writer.close()


@asynccontextmanager
async def edge(*replicas: Replica | str) -> AsyncGenerator[httpx2.AsyncClient]:
    """A client of an edge whose product service has these replicas, or origins where nobody listens."""
    urls: list[str] = []
    servers: list[asyncio.Server] = []
    for replica in replicas:
        if isinstance(replica, str):
            urls.append(replica)
            continue
        server = await asyncio.start_server(replica.serve, "127.0.0.1", 0)
        servers.append(server)
        urls.append(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    proxy = ReverseProxy({"product": urls})
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=proxy), base_url="http://edge") as client:
        yield client
    await proxy.aclose()
    for server in servers:
        server.close()


def nobody() -> str:
    """An origin where nobody listens."""
    return f"http://127.0.0.1:{free_ports(1)}"


async def test_requests_go_to_the_replicas_in_turn() -> None:
    first, second = Replica(), Replica()
    async with edge(first, second) as client:
        for _ in range(4):
            assert (await client.get("/api/v1/products")).status_code == 200
    assert len(first.asked) == len(second.asked) == 2


async def test_where_one_replica_is_gone_the_other_answers_all_that_come_at_once() -> None:
    alive = Replica()
    async with edge(nobody(), alive) as client:
        answers = await asyncio.gather(*(client.post("/api/v1/products/import", content=b"") for _ in range(50)))
    assert [answer.status_code for answer in answers] == [200] * 50
    assert len(alive.asked) == 50


async def test_a_read_whose_connection_breaks_is_sent_to_the_next_replica() -> None:
    broken, alive = Replica(answers=0), Replica()
    async with edge(broken, alive) as client:
        assert (await client.get("/api/v1/products?limit=1")).status_code == 200
    assert broken.asked == alive.asked == [b"GET /api/v1/products?limit=1"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_anything_else_that_a_replica_has_begun_is_not_sent_again(method: str) -> None:
    broken, alive = Replica(answers=0), Replica()
    async with edge(broken, alive) as client:
        answer = await client.request(method, "/api/v1/products/1", content=b"" if method == "DELETE" else b"{}")
    assert answer.status_code == 502
    assert len(broken.asked) == 1
    assert alive.asked == []


async def test_a_read_whose_connection_is_reset_at_once_is_sent_to_the_next_replica() -> None:
    alive = Replica()
    dying = await asyncio.start_server(_reset, "127.0.0.1", 0)
    origin = f"http://127.0.0.1:{dying.sockets[0].getsockname()[1]}"
    async with dying, edge(origin, alive) as client:
        answers = [await client.get("/api/v1/products") for _ in range(50)]
    assert [answer.status_code for answer in answers] == [200] * 50
    assert len(alive.asked) == 50


async def _reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    writer.transport.abort()


async def test_where_all_replicas_are_gone_the_answer_is_502() -> None:
    async with edge(nobody(), nobody()) as client:
        answer = await client.get("/api/v1/products")
    assert (answer.status_code, answer.text) == (502, "no replica answered\n")
