"""What a shopper makes of an answer that may not be."""

import asyncio
import time

from drills.client import Client
from drills.shoppers import Floor, Shopper

NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 19\r\n\r\n404 page not found\n"


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """As an edge that knows no route yet."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(NOT_FOUND)
    await writer.drain()
    writer.close()


async def test_an_answer_that_may_not_be_is_written_down_and_ends_the_visit() -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = Client(f"http://127.0.0.1:{port}", time.monotonic())
    async with asyncio.timeout(10):
        await Shopper(Floor(client, 1), 1).shop()
    (wrong,) = client.wrong
    assert wrong.startswith("POST /api/v1/auth/register was answered 404 ")
    assert "text/plain" in wrong
    assert [each.failure for each in client.exchanges] == ["404"]
    await client.aclose()
    server.close()
    await server.wait_closed()
