"""What a service believes, streamed for the audit: one JSON object a line, all as of one moment."""

from collections.abc import AsyncGenerator

from fastapi.responses import StreamingResponse

from chassis.database import Database

MEDIA_TYPE = "application/x-ndjson"
ROWS_AT_ONCE = 1000


def ndjson(database: Database, *queries: str) -> StreamingResponse:
    """Answer with the rows of the queries, whose only column is a JSON object as text, in constant memory.

    One snapshot serves all of them, in a transaction that lasts as long as the stream: the price of a view that is
    consistent.
    """
    return StreamingResponse(_lines(database, queries), media_type=MEDIA_TYPE)


async def _lines(database: Database, queries: tuple[str, ...]) -> AsyncGenerator[bytes, None]:
    async with database.transaction(isolation="repeatable_read", readonly=True) as transaction:
        for query in queries:
            cursor = await transaction.cursor(query)
            while rows := await cursor.fetch(ROWS_AT_ONCE):
                yield "".join(f"{row[0]}\n" for row in rows).encode()
