"""`python -m bench [--write | ROW ...]`: measure, print the tables, and keep them in docs/benchmarks.md if so asked."""

import argparse
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from bench import measure
from bench.rows import TABLES, Row
from bench.shop import Shop
from local.postgres import EmbeddedPostgres

PAGE = measure.ROOT / "docs" / "benchmarks.md"
INTRODUCTION = """\
# Benchmarks

What the shop costs, in units of what *bare* costs: uvicorn and a ten-line application that sends the same bytes,
measured in turns with it on the same core. One process of each service, all on one core; the load and PostgreSQL,
which waits for its disk, on another. CPU is user and system time of all threads.
"""


def tables(shop: Shop, chosen: frozenset[str]) -> Iterator[str]:
    """Measure, and give each table as Markdown as soon as it stands."""
    for title, functions in TABLES.items():
        rows = [row for function in functions if not chosen or function.__name__ in chosen for row in function(shop)]
        if rows:
            yield f"## {title}\n\n" + "\n".join(_table(rows)) + "\n"


def _table(rows: Iterable[Row]) -> Iterator[str]:
    yield "| work | measured | promise | kept |"
    yield "|---|---|---|---|"
    for row in rows:
        yield f"| {row.work} | {row.measured} | {row.promise} | {'yes' if row.kept else 'no'} |"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure the shop against bare uvicorn.")
    parser.add_argument("--write", action="store_true", help="keep the tables in docs/benchmarks.md")
    known = {function.__name__ for functions in TABLES.values() for function in functions}
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"only these: {', '.join(sorted(known))}")
    options = parser.parse_args()
    if unknown := set(options.rows) - known:
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    if options.write and options.rows:
        parser.error("--write keeps all the tables, so it takes no rows")
    if measure.SERVER_CORE == measure.LOAD_CORE:
        sys.exit("the benchmark needs Linux and two cores: one for the servers, one for the load")

    measure.pin(0, measure.LOAD_CORE)  # PostgreSQL, started from here, stays on this core too
    with tempfile.TemporaryDirectory(prefix="souk-bench-") as folder:
        postgres = EmbeddedPostgres(Path(folder, "postgres"))
        postgres.start()
        try:
            page = [INTRODUCTION, measure.surroundings("python -m bench --write", postgres)]
            print(page[1], flush=True)
            for table in tables(Shop(Path(folder), postgres), frozenset(options.rows)):
                print(table, flush=True)
                page.append(table)
        finally:
            postgres.stop()
    if options.write:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text("\n".join(page))


if __name__ == "__main__":
    main()
