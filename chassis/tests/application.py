"""A small service on the chassis, as the tests need one: notes, and routes that wait, fail, stream and call a peer."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from chassis.app import Service, Transports, create_service
from chassis.auth import AccessTokens, Admin, OrderService, Shopper
from chassis.clients import Peer
from chassis.database import Autocommit, Transaction
from chassis.problems import NotFound, documented
from chassis.schemas import Answer, Body, Id, Quantity, Text
from chassis.server import main
from chassis.settings import ServiceSettings

SCHEMA = """
CREATE TABLE IF NOT EXISTS note (id uuid PRIMARY KEY DEFAULT uuidv7(), title text NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS comment (
    id uuid PRIMARY KEY DEFAULT uuidv7(),
    note_id uuid NOT NULL REFERENCES note DEFERRABLE INITIALLY DEFERRED
);
"""
SECRET_OF_A_CRASH = "what only the log may say"

routes = APIRouter()


class Gate:
    """Holds requests until a test lets them go, and tells how many have come and how they ended."""

    def __init__(self) -> None:
        self.arrivals: asyncio.Queue[None] = asyncio.Queue()
        self.opened = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def pass_through(self) -> None:
        """Wait for the test's permission."""
        self.arrivals.put_nowait(None)
        try:
            await self.opened.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


async def _gate(request: Request) -> Gate:
    return request.app.state.gate


async def _peer(request: Request) -> Peer:
    return request.app.state.peer


TheGate = Annotated[Gate, Depends(_gate)]
ThePeer = Annotated[Peer, Depends(_peer)]


class Line(Body):
    product_id: Id
    quantity: Quantity


class NewNote(Body):
    title: Annotated[Text, Field(max_length=100)]
    lines: list[Line] = Field(default_factory=list[Line])


class NewComment(Body):
    note_id: Id


class Note(Answer):
    id: UUID
    title: str


@routes.post("/notes", status_code=201)
async def add_note(note: NewNote, transaction: Transaction) -> Note:
    note_id = await transaction.fetchval("INSERT INTO note (title) VALUES ($1) RETURNING id", note.title)
    return Note(id=note_id, title=note.title)


@routes.post("/comments", status_code=201)
async def add_comment(comment: NewComment, transaction: Transaction) -> None:
    """Whether the note exists is only looked at by COMMIT."""
    await transaction.execute("INSERT INTO comment (note_id) VALUES ($1)", comment.note_id)


@routes.get("/notes/{note_id}", responses=documented(NotFound))
async def get_note(note_id: UUID, database: Autocommit) -> Note:
    row = await database.fetchrow("SELECT id, title FROM note WHERE id = $1", note_id)
    if row is None:
        raise NotFound("there is no such note", note_id=str(note_id))
    return Note(id=row["id"], title=row["title"])


@routes.delete("/notes/{note_id}", status_code=204)
async def delete_note(note_id: UUID, database: Autocommit) -> None:
    await database.execute("DELETE FROM note WHERE id = $1", note_id)


@routes.post("/uploads")
async def upload(request: Request) -> int:
    """Count the bytes of a body as they come."""
    return sum([len(chunk) async for chunk in request.stream()])


@routes.get("/crash")
async def crash() -> None:
    raise RuntimeError(SECRET_OF_A_CRASH)


@routes.get("/wait")
async def wait(gate: TheGate) -> str:
    await gate.pass_through()
    return "done"


@routes.get("/relay")
async def relay(peer: ThePeer) -> str:
    return await peer.call("GET", "/here")


@routes.get("/stream", response_class=StreamingResponse)
async def stream(request: Request, gate: TheGate) -> StreamingResponse:
    """A stream that ends when the service stops, or when the test opens the gate."""
    stopping: asyncio.Event = request.app.stopping

    async def lines() -> AsyncGenerator[bytes, None]:
        yield b"open\n"
        ends = [asyncio.ensure_future(end.wait()) for end in (stopping, gate.opened)]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()
        yield b"closed\n"

    return StreamingResponse(lines(), media_type="text/plain")


@routes.get("/shopper")
async def shopper(principal: Shopper) -> UUID:
    return principal.user_id


@routes.get("/admin")
async def admin(principal: Admin) -> UUID:
    return principal.user_id


@routes.get("/internal/v1/caller")
async def caller(name: OrderService) -> str:
    return name


@routes.get("/statuses/{status}")
async def answer_with(status: int) -> Response:
    return Response(status_code=status)


def create_app(
    settings: ServiceSettings, transports: Transports | None = None, *, access_tokens: AccessTokens | None = None
) -> Service:
    """The service, in the place of the product service."""
    service = create_service("product", settings, transports, access_tokens=access_tokens)
    service.state.gate = Gate()
    service.state.peer = service.peer("user", settings.user_url)
    service.include_router(routes)
    service.include_router(routes, prefix="/internal")
    return service


if __name__ == "__main__":
    main("product", ServiceSettings, create_app)
