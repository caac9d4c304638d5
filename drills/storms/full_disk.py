"""The disk of the database is full for a while: a small file system of its own, and a file that fills it."""

import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from drills.platform import NotHere
from drills.stage import Drill, Stage, processes, storm
from local.postgres import EmbeddedPostgresError

SIZE = "300m"
"""More than the databases and their write-ahead log take in a minute."""
RECOVERED_WITHIN_S = 30.0
PIECE = b"\0" * 2**20


@asynccontextmanager
async def small_disk(stage: Stage) -> AsyncGenerator[None]:
    """A file system in memory for the platform's data; raises NotHere where none can be mounted."""
    folder = stage.platform.folder / "disk"
    _mount(folder)
    stage.platform.move_data(folder / "postgres")
    try:
        yield
    finally:
        _unmount(folder)


def _mount(folder: Path) -> None:
    if sys.platform != "linux" or os.geteuid() != 0:
        raise NotHere("a small file system can only be mounted by root on Linux")
    folder.mkdir(parents=True)
    command = ("mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=755", "tmpfs", str(folder))
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise NotHere("there is no mount") from None
    if mounted.returncode != 0:
        raise NotHere(f"no small file system could be mounted: {mounted.stderr.strip()}")


def _unmount(folder: Path) -> None:
    subprocess.run(("umount", "--lazy", str(folder)), check=False)


def _fill(ballast: Path) -> None:
    """Write until there is no room."""
    try:
        with ballast.open("ab", buffering=0) as file:
            while file.write(PIECE):
                pass
    except OSError:
        pass  # which is what is wanted


async def harm(stage: Stage) -> None:
    """Fill the disk, keep it full, make room, and start the server where it gave up."""
    ballast = stage.platform.postgres.data_dir.with_name("ballast")
    until_s = stage.now_s() + stage.length.seconds
    ended = 0
    with stage.harm("the database's disk is full"):
        while stage.now_s() < until_s:
            await asyncio.to_thread(_fill, ballast)
            ended += await _kept_up(stage)
            await asyncio.sleep(0.5)
        ballast.unlink()
    while await _kept_up(stage):
        ended += 1
        await asyncio.sleep(0.5)
    stage.say(f"the server ended {ended} times")


async def _kept_up(stage: Stage) -> bool:
    """Start the server where it has ended, as whoever runs it would; whether it had."""
    if stage.platform.postgres.pid is not None:
        return False
    with suppress(EmbeddedPostgresError):  # there may be no room to start in
        await asyncio.to_thread(stage.platform.postgres.start)
    return True


async def run(stage: Stage) -> None:
    """Shop while the disk is full."""
    await storm(stage, harm)
    (full,) = stage.harms
    failed = Counter(each.failure for each in stage.during(full.began_s, full.ended_s) if each.failure)
    stage.promise("requests were refused while there was no room", f"{dict(failed)}", failed["503"] > 0)
    stage.promise_clear_refusals()
    stage.promise_recovery(RECOVERED_WITHIN_S, "there is room")


FULL_DISK = Drill(
    "full-disk",
    "The database's disk is full for a while: no wrong answer, and all goes on when there is room.",
    30,
    run,
    processes(),
    setting=small_disk,
)
