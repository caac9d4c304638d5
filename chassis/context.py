"""Who asks, in which trace, until when: what a request carries through the code and to the peers that it calls."""

import asyncio
import re
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chassis.tracing import Span

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")

UNTRACED: AbstractContextManager[None] = nullcontext()

_random = Random()  # noqa: S311 - seeded by the system; ids must be unlike each other, not unguessable


class Context:
    """One request, or one piece of a worker's work, as the logs and the peers are told of it.

    `deadline` is in seconds of the event loop's clock; none means unbounded. `parent_id` is the caller's span.
    `span` is the one under way here; none where this service is not traced, or this trace not recorded.
    `retries` counts the attempts at a peer beyond the first of each call.
    """

    __slots__ = ("deadline", "order_id", "parent_id", "request_id", "retries", "sampled", "span", "trace_id")

    def __init__(
        self,
        *,
        request_id: str | None = None,
        traceparent: str | None = None,
        deadline: float | None = None,
    ) -> None:
        self.sampled = "00"
        self.parent_id: str | None = None
        self.span: Span | None = None
        joined = None if traceparent is None else self._join(traceparent)
        self.trace_id = joined or f"{_random.getrandbits(128):032x}"
        valid = request_id is not None and REQUEST_ID.fullmatch(request_id)
        self.request_id = request_id if valid and request_id else self.trace_id
        self.deadline = deadline
        self.order_id: str | None = None
        self.retries = 0

    def _join(self, traceparent: str) -> str | None:
        """Take the trace that the caller is in, or none where the header is not valid (W3C Trace Context, 3.2.2)."""
        match = TRACEPARENT.fullmatch(traceparent)
        if match is None:
            return None
        version, trace_id, parent_id, flags, rest = match.groups()
        if version == "ff" or (version == "00" and rest) or not int(trace_id, 16) or not int(parent_id, 16):
            return None
        self.sampled = "01" if int(flags, 16) & 1 else "00"
        self.parent_id = parent_id
        return trace_id

    def traceparent(self, span: "Span | None" = None) -> str:
        """The header for a call made now: the same trace, and as parent this span, the one that is under way, or an id
        that is nobody's.
        """
        span = span or self.span
        parent_id = f"{_random.getrandbits(64):016x}" if span is None else span.id
        return f"00-{self.trace_id}-{parent_id}-{self.sampled}"

    def step(self, name: str) -> AbstractContextManager[None]:
        """A block that is a span of its own where the trace is recorded, with what it does below it."""
        return UNTRACED if self.span is None else self.span.step(self, name)

    def remaining_s(self) -> float | None:
        """Seconds until the deadline, negative when it has passed."""
        return None if self.deadline is None else self.deadline - asyncio.get_running_loop().time()


current: ContextVar[Context | None] = ContextVar("souk_context", default=None)


def context() -> Context:
    """The context of the running request; a new one where none was set, as in a worker."""
    found = current.get()
    if found is None:
        found = Context()
        current.set(found)
    return found
