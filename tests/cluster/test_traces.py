"""The overlay `tracing`, with a collector beside it: a checkout is one tree from the edge on."""

import asyncio
from base64 import b64decode
from collections.abc import AsyncGenerator, Sequence

import httpx2
import pytest
from kr8s.asyncio.objects import Pod, Service

from deploy.target import NAMESPACE
from drills.cluster import Cluster
from tests.cluster.inside import Inside, restricted
from tests.cluster.operated import Customer, overlay
from tests.collector import PATH, Collected, Collector, tree
from tests.test_traces import CHECKOUT

pytestmark = pytest.mark.cluster

PORT = 4318
COMES_WITHIN_S = 30.0
COLLECTS = f"""
from base64 import b64encode
from gzip import decompress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
taken = []
class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        content = self.content()
        if self.headers["Content-Encoding"] == "gzip":
            content = decompress(content)
        taken.append(b64encode(content) + b"\\n")
        self.answer(200 if self.path == "{PATH}" else 404, b"")
    def content(self):
        if "Content-Length" in self.headers:
            return self.rfile.read(int(self.headers["Content-Length"]))
        content = b""  # the edge sends it in chunks, and compressed
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        return content
    def do_GET(self):
        self.answer(200, b"".join(taken))
    def answer(self, status, content):
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
ThreadingHTTPServer(("", {PORT}), Handler).serve_forever()
"""
"""A collector that keeps what it takes, a line for each request, and tells it to whoever asks."""


@pytest.fixture
async def origin(cluster: Cluster, inside: Inside) -> AsyncGenerator[str]:
    """The platform with traces and a collector for them, which is reached here."""
    pod = await Pod(restricted("collector", await inside.image("order"), COLLECTS, port=PORT), api=inside.api)
    spec = {"selector": {"app.kubernetes.io/name": "collector"}, "ports": [{"port": PORT}]}
    metadata = {"name": "collector", "namespace": NAMESPACE}
    service = await Service({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}, api=inside.api)
    await pod.create()
    await service.create()
    try:
        await pod.wait("condition=Ready", timeout=60)
        async with overlay(cluster, "tracing"):
            way = cluster.kubectl.forwarded("pod/collector", PORT)
            try:
                yield await asyncio.to_thread(way.__enter__)
            finally:
                await asyncio.to_thread(way.__exit__, None, None, None)
    finally:
        await service.delete()
        await pod.delete()


async def trace_of(order_id: str, origin: str) -> list[Collected]:
    """The spans of the trace in which an order was placed, when all have come; raises TimeoutError."""
    async with asyncio.timeout(COMES_WITHIN_S), httpx2.AsyncClient(base_url=origin, timeout=10) as client:
        while True:
            collector = Collector(origin)
            for line in (await client.get("/")).content.splitlines():
                collector.take(b64decode(line))
            traces = {span.trace_id for span in collector.spans if span.attributes.get("souk.order_id") == order_id}
            if traces:
                (trace_id,) = traces
                spans = collector.of(trace_id)
                if _whole(spans):
                    return spans
            await asyncio.sleep(0.5)


def _whole(spans: Sequence[Collected]) -> bool:
    """Whether the root is there and no span's parent is missing, and below each call what was called has sent."""
    parents = {span.parent_id for span in spans}
    known = {span.span_id for span in spans}
    calls = {span.span_id for span in spans if "service.peer.name" in span.attributes}
    return "" in parents and parents <= known | {""} and calls <= parents


async def test_a_checkout_is_one_tree_from_the_edge_on(cluster: Cluster, origin: str) -> None:
    customer = Customer(cluster)
    await customer.register()
    spans = await trace_of(await customer.buy(), origin)
    print("\n".join(tree(spans, "")))
    (root,) = (span for span in spans if not span.parent_id)
    assert (root.service, root.kind) == ("edge", "server")
    (request,) = (span for span in spans if span.title == "order server POST /api/v1/orders")
    (caller,) = (span for span in spans if span.span_id == request.parent_id)
    assert (caller.service, caller.kind) == ("edge", "client")
    assert tree(spans, caller.span_id) == CHECKOUT.splitlines()
    assert all(span.began_ns >= root.began_ns for span in spans)
