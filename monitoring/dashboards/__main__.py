"""`python -m monitoring.dashboards [--check]`: write k8s/monitoring/dashboards from the code, or compare."""

import argparse
import sys

from chassis.migrations import ROOT
from monitoring.dashboards import BOARDS

FOLDER = ROOT / "k8s" / "monitoring" / "dashboards"


def main() -> None:
    """Write each dashboard into its file; with `--check` exit 1 where a file is not what the code makes."""
    parser = argparse.ArgumentParser(prog="python -m monitoring.dashboards")
    parser.add_argument("--check", action="store_true", help="write nothing, and fail where a file differs")
    made = {board.file_name: board.json() for board in BOARDS}
    found = {path.name: path.read_text() for path in FOLDER.glob("*.json")}
    if parser.parse_args().check:
        differ = sorted(name for name in made.keys() | found.keys() if made.get(name) != found.get(name))
        if differ:
            sys.exit(f"not what the code makes, run `make dashboards`: {', '.join(differ)}")
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in found.keys() - made.keys():
        (FOLDER / name).unlink()
    for name, text in made.items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()
