"""The keys that sign access tokens are rotated ten times while everybody shops and signs in."""

import asyncio
import os
import subprocess
import sys

from chassis.migrations import ROOT
from drills.stage import Drill, Stage, processes, storm

ROTATIONS = 10


async def harm(stage: Stage) -> None:
    """Rotate, wait, rotate."""
    (user, *_) = stage.platform.of("user")
    kids: set[str] = set()
    for number in range(ROTATIONS):
        with stage.harm(f"rotation {number + 1}"):
            rotation = await asyncio.to_thread(_rotate, user.environment)
            if rotation.returncode != 0:
                stage.violations.append(f"rotate-keys failed: {rotation.stderr[-300:]}")
        await asyncio.sleep(stage.length.seconds / ROTATIONS)
        kids |= await _published(stage)
    stage.promise("new keys were published", f"{len(kids)} keys seen", len(kids) > 1)


def _rotate(environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    command = (sys.executable, "-m", "services.user", "rotate-keys")
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False)


async def _published(stage: Stage) -> set[str]:
    answer = await stage.client.call("GET", "/api/v1/auth/jwks")
    return {key["kid"] for key in answer.body["keys"]} if answer.status == 200 else set()


async def run(stage: Stage) -> None:
    """Shop while keys are rotated."""
    await storm(stage, harm)
    failed = sum(each.failure is not None for each in stage.client.exchanges)
    stage.promise("no request fails", f"{failed} of {len(stage.client.exchanges)}", failed == 0)


ROTATE = Drill("rotate", "Signing keys are rotated ten times under load: no request fails.", 60, run, processes())
