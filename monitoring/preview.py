"""`python -m monitoring.preview`: each dashboard as a page, drawn from the queries that Grafana would send.

Without `--prometheus` it runs the platform with what watches it for a while, takes a replica away, and looks at that.
Exit status 2 where that cannot be run.
"""

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from chassis.telemetry import configure_logging
from drills.platform import PlatformError
from local.postgres import EmbeddedPostgresError
from monitoring import pages
from monitoring.pages import Window
from monitoring.prometheus import Prometheus, Series
from monitoring.queries import Document, Query, chosen_in, documents, events_of, filled, panels, queries_of
from monitoring.watched import SCRAPED_EVERY_S, watch

POINTS = 150
"""Of each line, about as many as a panel of Grafana has pixels for on a small screen."""
SCRAPED_EVERY_IN_A_CLUSTER_S = 10
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PICTURE_WIDTH_PX = 1280
SLOWEST = 5
COULD_NOT_RUN = 2


def main() -> None:
    """Do what the command line asks."""
    parser = argparse.ArgumentParser(prog="python -m monitoring.preview", description="Draw the dashboards as pages.")
    parser.add_argument("--prometheus", metavar="URL", help="one that runs already, instead of one of its own")
    parser.add_argument("--minutes", type=float, default=15, help="how far back to look, with --prometheus")
    parser.add_argument("--until", type=datetime.fromisoformat, help="until when, as 2026-11-25T20:32:45Z; now")
    parser.add_argument("--seconds", type=float, default=90, help="how long to run the platform, without it")
    parser.add_argument("--folder", type=Path, default=Path("var/dashboards"), help="where the pages go")
    parser.add_argument("--pictures", type=Path, help="also keep a picture of each page here, by a browser")
    arguments = parser.parse_args()
    configure_logging("preview", "warning")
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if arguments.prometheus:
            until = arguments.until.timestamp() if arguments.until else time.time()
            uvloop.run(
                draw(arguments.prometheus, folder, until - 60 * arguments.minutes, until, SCRAPED_EVERY_IN_A_CLUSTER_S)
            )
        else:
            uvloop.run(_of_its_own(folder, arguments.seconds))
    except (PlatformError, EmbeddedPostgresError) as error:
        print(f"no preview: {error}", file=sys.stderr)
        sys.exit(COULD_NOT_RUN)
    if arguments.pictures:
        _take_pictures(folder, arguments.pictures)
    print(f"preview: {folder / 'souk-shop.html'}")


async def _of_its_own(folder: Path, seconds: float) -> None:
    async def look(url: str, since: float) -> None:
        await draw(url, folder, since, time.time() - SCRAPED_EVERY_S, SCRAPED_EVERY_S)

    await watch(folder / "run", seconds, look)


async def draw(url: str, folder: Path, since: float, until: float, scraped_every_s: int) -> None:
    """Ask a Prometheus for all that the dashboards show of this time, and write a page of each."""
    step_s = max(float(scraped_every_s), (until - since) / POINTS)
    window = Window(since, until, step_s)
    found = documents()
    prometheus = Prometheus(url)
    took: dict[str, float] = {}
    try:
        for document in found:
            asking = Asking(prometheus, window, chosen_in(document), scraped_every_s, took)
            page = await _page(document, asking, pages.titles(found))
            (folder / f"{document['uid']}.html").write_text(page, encoding="utf-8")
    finally:
        await prometheus.aclose()
    slowest = sorted(took.items(), key=lambda item: -item[1])[:SLOWEST]
    print(f"{len(took)} queries; the slowest took Prometheus, by its own account:")
    for query, seconds in slowest:
        print(f"  {seconds * 1000:6.1f} ms  {query}")


@dataclass(frozen=True, slots=True)
class Asking:
    """How a dashboard's queries are asked, and what each of them took."""

    prometheus: Prometheus
    window: Window
    values: Mapping[str, str]
    scraped_every_s: int
    took: dict[str, float]

    async def __call__(self, query: Query) -> Sequence[Series]:
        window = self.window
        expr = filled(query.expr, self.values, window.step_s, self.scraped_every_s)
        if query.instant:
            answer = await self.prometheus.now(expr, window.until)
        else:
            answer = await self.prometheus.over(expr, window.since, window.until, window.step_s)
        self.took[str(query)] = answer.seconds
        return answer.series


async def _page(document: Document, asked: Asking, others: Sequence[tuple[str, str]]) -> str:
    answers: dict[tuple[int, str], Sequence[Series]] = {}
    for panel in panels(document):
        for query in queries_of(document, panel):
            answers[panel["id"], query.ref] = await asked(query)
    window = asked.window
    events = pages.events_in([(event.legend, await asked(event)) for event in events_of(document)], window)
    when = datetime.fromtimestamp(window.until, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    note = f"{window.seconds:.0f} s until {when}, a point every {window.step_s:.0f} s"
    return pages.page(document, answers, events, window, asked.values, others, note)


def _take_pictures(pages_in: Path, folder: Path) -> None:
    """A picture of each page, as high as the page is; says so and ends where there is no browser."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        sys.exit(f"no pictures: none of {', '.join(BROWSERS)} is on the path")
    folder.mkdir(parents=True, exist_ok=True)
    for document in documents():
        # Of the grid's rows of 38 pixels, and what stands above them.
        height_px = 38 * max(each["gridPos"]["y"] + each["gridPos"]["h"] for each in document["panels"]) + 260
        page = (pages_in / f"{document['uid']}.html").resolve()
        command = (
            browser,
            "--headless",
            "--no-sandbox",
            "--hide-scrollbars",
            f"--screenshot={(folder / document['uid']).resolve()}.png",
            f"--window-size={PICTURE_WIDTH_PX},{height_px}",
            page.as_uri(),
        )
        subprocess.run(command, check=True, capture_output=True, timeout=60)


if __name__ == "__main__":
    main()
