"""What a service believes, streamed for the audit: one JSON object a line, all as of one moment."""

from collections.abc import AsyncGenerator

from fastapi.responses import StreamingResponse

from chassis.database import Database

MEDIA_TYPE = "application/x-ndjson"
ROWS_AT_ONCE = 1000


async def ndjson(database: Database, *queries: str) -> StreamingResponse:
    """Answer with the rows of the queries, whose only column is a JSON object as text, in constant memory.

    One snapshot serves all of them, in a transaction that lasts as long as the stream: the price of a view that is
    consistent. The first rows are fetched before the answer begins, so an outage is a 503 and not a stream that
    breaks off.
    """
    lines = _lines(database, queries)
    first = await anext(lines, b"")
    return StreamingResponse(_all(first, lines), media_type=MEDIA_TYPE)


async def _all(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    try:
        yield first
        async for chunk in rest:
            yield chunk
    finally:
        await rest.aclose()  # a client that goes away leaves no transaction behind


async def _lines(database: Database, queries: tuple[str, ...]) -> AsyncGenerator[bytes, None]:
    async with database.transaction(isolation="repeatable_read", readonly=True) as transaction:
        for query in queries:
            cursor = await transaction.cursor(query)
            while rows := await cursor.fetch(ROWS_AT_ONCE):
                yield "".join(f"{row[0]}\n" for row in rows).encode()
