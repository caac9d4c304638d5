"""`python -m drills.harmed order`: a service as it is, with harm built into its process before it is imported.

`DOOM` names a file that says where the process is to die: `{"point": ..., "trace_id": ...}`, at that crash point and,
where a trace is named, only in that trace. Whoever gets there first of all processes that read the file leaves a mark
beside it and is killed by SIGKILL; afterwards the point is harmless again. `CLOCK_OFFSET_S` sets the process's clock
forward, or back where it is negative; durations stay right, as on a machine whose clock is wrong.
"""

import json
import os
import runpy
import signal
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import time_machine

from chassis import crash_points
from chassis.context import context


def struck_by(doom: Path) -> Path:
    """The mark that the process leaves which died by this file."""
    return doom.with_suffix(".struck")


def arm(file: Path, point: str, trace_id: str | None = None) -> None:
    """Let the next process die that reaches the point, in this trace or in any, of those whose `DOOM` is `file`."""
    struck_by(file).unlink(missing_ok=True)
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_text(json.dumps({"point": point, "trace_id": trace_id}))
    unfinished.replace(file)


def doomed(doom: Path, name: str) -> None:
    with suppress(FileNotFoundError):  # nobody is to die now
        wanted = json.loads(doom.read_text())
        if wanted["point"] == name and wanted["trace_id"] in {None, context().trace_id}:
            with suppress(FileExistsError):
                struck_by(doom).open("x").close()
                os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Run the service that the command line names."""
    service = sys.argv.pop(1)
    doom = os.environ.get("DOOM")
    if doom is not None:
        crash_points.crash_point = lambda name: doomed(Path(doom), name)
    offset_s = float(os.environ.get("CLOCK_OFFSET_S", "0"))
    if offset_s:
        time_machine.travel(datetime.now(UTC) + timedelta(seconds=offset_s), tick=True).start()
    runpy.run_module(f"services.{service}", run_name="__main__")


if __name__ == "__main__":
    main()
