"""Chromium, as the distribution installs it: no browser is ever downloaded for these tests."""

import os
import shutil

from playwright.async_api import Browser, Playwright

from drills.platform import NotHere

PROGRAM = "chromium"


def program() -> str:
    """Where Chromium is. Raises NotHere, with what to install."""
    found = shutil.which(PROGRAM)
    if found is None:
        raise NotHere("chromium is missing: .ci/browser, or apt-get install chromium, brings it")
    return found


async def launched(playwright: Playwright, *switches: str) -> Browser:
    """Chromium without a window, with these switches beyond the usual ones."""
    # As root it has no sandbox of its own, and refuses to run with one; what it opens here is this shop alone.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    return await playwright.chromium.launch(executable_path=program(), args=[*arguments, *switches])
