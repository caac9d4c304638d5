"""The unit of every table: uvicorn and a ten-line application that sends bytes it has ready.

`python -m bench.bare PORT ANSWER`, where the file ANSWER is a JSON object `{"headers": [[name, value]], "body"}`.
"""

import sys
from pathlib import Path

import orjson
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send


def application(headers: list[tuple[str, str]], body: bytes) -> ASGIApp:
    """An application that gives the same answer to every request."""
    encoded = [(name.encode(), value.encode()) for name, value in headers]

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": encoded})
        await send({"type": "http.response.body", "body": body})

    return app


if __name__ == "__main__":
    answer = orjson.loads(Path(sys.argv[2]).read_bytes())
    uvicorn.run(
        application(answer["headers"], answer["body"].encode()),
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
    )
