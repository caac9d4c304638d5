"""Callers in a pod, who send requests by a schedule until they are told when to end, and print what came of each.

It runs where there is nothing but the chassis, so it imports nothing else; `bench/balancing/run.py` hands it to Python
and reads its lines. The loop is open: when a request is due follows from rate and seed alone, and its time counts from
then, so one that waits behind others has waited. Moments are those of the machine's clock, which its containers share.
"""

import argparse
import asyncio
import logging
import sys
import time
from collections.abc import Iterator
from random import Random

import httpx2
import structlog

from chassis.balancing import CallPolicy
from chassis.telemetry import Telemetry
from chassis.transport import POLICY, TARGET, PooledTransport, whole

LEAD_S = 0.5
"""From the word that it begins to the first request."""
NO_LONGER_THAN_S = 180.0
"""Where nobody tells when to end."""


def moments(rate: float, seed: int) -> Iterator[float]:
    """When requests are due, in seconds since the beginning: a Poisson process, the same for the same seed."""
    random = Random(seed)  # noqa: S311 - so that a run can be repeated
    due_s = 0.0
    while True:
        due_s += random.expovariate(rate)
        yield due_s


class Callers:
    """Some callers, each with a transport of its own, as replicas of a service have; they take turns."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._url = httpx2.URL(arguments.url.partition(",")[0])  # the one that `Host` names
        self._path: str = arguments.path
        self._timeout_s: float = arguments.timeout
        # Each attempt at one of several endpoints gets half of the time; where there is one, it gets all of it.
        self._policy = CallPolicy(idempotent=True, attempt_timeout_s=arguments.timeout / 2)
        host: str = arguments.host or self._url.netloc.decode("ascii")
        self._headers = [(b"Host", host.encode("ascii"))]
        if arguments.anew:
            self._headers.append((b"Connection", b"close"))
        self._transports = [
            PooledTransport("product", arguments.url, Telemetry(f"caller-{number}"))
            for number in range(arguments.callers)
        ]
        self._under_way: set[asyncio.Task[None]] = set()
        self.sent = 0
        self.latest_s = 0.0
        """How late the event loop was at most for a request that was due."""
        self._rate: float = arguments.rate
        self._seed: int = arguments.seed
        self.ends_at = time.time() + NO_LONGER_THAN_S

    async def run(self, began: float) -> None:
        """Send requests as they are due, and return when the last one has ended."""
        for due_s in moments(self._rate, self._seed):
            due = began + due_s
            while (left_s := due - time.time()) > 0:
                if due > self.ends_at:
                    break
                await asyncio.sleep(min(left_s, 0.2))  # the end may be told meanwhile
            if due > self.ends_at:
                break
            self.latest_s = max(self.latest_s, time.time() - due)
            task = asyncio.create_task(self._call(due, self._transports[self.sent % len(self._transports)]))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
            self.sent += 1
        await asyncio.gather(*self._under_way)
        for transport in self._transports:
            await transport.aclose()

    async def _call(self, due: float, transport: PooledTransport) -> None:
        sent, replica, outcome = time.time(), "", "no answer"
        path = self._path.replace("{number}", str(time.time_ns() // 1_000 % 10**9)).encode("ascii")
        extensions = {"timeout": {"read": self._timeout_s}, TARGET: path, POLICY: self._policy}
        request = httpx2.Request(
            "GET", self._url, headers=self._headers, stream=httpx2.ByteStream(b""), extensions=extensions
        )
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await transport.handle_async_request(request)
                await whole(answer)
            replica = answer.headers.get("server-timing", "").partition('replica;desc="')[2].partition(":")[0]
            outcome = str(answer.status_code)
        except (httpx2.TransportError, TimeoutError) as error:
            outcome = type(error).__name__
        print(f"answer,{due:.4f},{sent:.4f},{time.time():.4f},{outcome},{replica}", flush=True)


async def told(callers: Callers) -> None:
    """Read how many seconds are left, a line each time that somebody tells it; none where nobody ever does."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    left_s = 0.0
    while line := await reader.readline():
        left_s = float(line)
        callers.ends_at = time.time() + left_s
    if not left_s:
        callers.ends_at = time.time()


async def main() -> None:
    """Call, and say how much of a core that took."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--host")
    parser.add_argument("--path", required=True, help="{number} in it is another one for each request")
    parser.add_argument("--anew", action="store_true", help="a connection for each request")
    parser.add_argument("--callers", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--timeout", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    # Standard output is for the answers.
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    callers = Callers(parser.parse_args())
    listening = asyncio.create_task(told(callers))
    began = time.time() + LEAD_S
    print(f"began,{began:.4f}", flush=True)
    used, at = time.process_time(), time.monotonic()
    await callers.run(began)
    cores = (time.process_time() - used) / (time.monotonic() - at)
    print(f"end,{callers.sent},{cores:.4f},{callers.latest_s:.4f}", flush=True)
    listening.cancel()


if __name__ == "__main__":
    asyncio.run(main())
