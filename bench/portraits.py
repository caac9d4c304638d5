"""Pictures of the shop's pages: a few for the documents, or each in light, in dark and on a phone, to be looked at.

`python -m bench.portraits FOLDER` takes all of them, of a shop that it starts and buys from.
"""

import argparse
import base64
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from uuid import uuid4

from playwright.sync_api import Browser, Page, sync_playwright

from chassis.migrations import ROOT
from chassis.server import GRACE_S
from local.__main__ import ADMIN_EMAIL, ADMIN_PASSWORD
from local.ports import free_ports

Scheme = Literal["light", "dark"]
PORTS = 6
UNBOXED = [] if os.geteuid() else ["--no-sandbox"]
"""Chromium refuses its sandbox to root; what it opens here is this shop alone."""
DESKTOP = (1200, 820)
PHONE = (360, 740)
SHOWN_S = 20
PASSWORD = "a password for the pictures"  # noqa: S105 - of a shop that lives for a minute, on this machine only
ADDRESS = {
    "name": "Ada Lovelace",
    "line1": "12 St James Square",
    "postal_code": "SW1Y 4JH",
    "city": "London",
    "country": "GB",
}
LOOKS: dict[str, tuple[Scheme, tuple[int, int]]] = {
    "light": ("light", DESKTOP),
    "dark": ("dark", DESKTOP),
    "phone": ("light", PHONE),
    "phone-dark": ("dark", PHONE),
}


def chromium() -> str:
    """Where Chromium is; ends the program, with what to install, where it is not."""
    found = shutil.which("chromium")
    if found is None:
        sys.exit("this needs Chromium: .ci/browser installs Debian's")
    return found


@contextmanager
def running(folder: Path) -> Generator[str, None, None]:
    """A shop with the demo catalogue, at the origin that is given."""
    port = free_ports(PORTS)
    command = (sys.executable, "-m", "local", "--port", str(port), "--data", str(folder))
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            if not any("Ctrl-C" in line for line in process.stdout):
                sys.exit("the shop does not start: make run says why")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(2 * GRACE_S)


@contextmanager
def opened(browser: Browser, scheme: Scheme, size: tuple[int, int]) -> Generator[Page]:
    """A page of a browser that nobody has used."""
    viewport = {"width": size[0], "height": size[1]}
    context = browser.new_context(color_scheme=scheme, viewport=viewport, locale="en-GB", timezone_id="Europe/London")  # pyright: ignore[reportArgumentType] - Playwright names no type for it
    try:
        yield context.new_page()
    finally:
        context.close()


def settle(page: Page, url: str) -> None:
    """Open a page and wait until its pictures are there."""
    page.goto(url)
    page.wait_for_load_state("networkidle")


def for_the_documents(browser: Browser, origin: str, product: str, folder: Path) -> None:
    """The pictures that docs/storefront.md and the README show."""
    with opened(browser, "light", DESKTOP) as page:
        settle(page, origin)
        page.screenshot(path=folder / "storefront.png")
    with opened(browser, "dark", DESKTOP) as page:
        settle(page, origin + product)
        page.screenshot(path=folder / "storefront-dark.png")
    on_phones: list[bytes] = []
    for scheme in ("light", "dark"):
        with opened(browser, scheme, PHONE) as page:
            settle(page, origin)
            on_phones.append(page.screenshot())
    images = "".join(f'<img src="data:image/png;base64,{base64.b64encode(shot).decode()}">' for shot in on_phones)
    with opened(browser, "light", (2 * PHONE[0] + 48, PHONE[1] + 32)) as page:
        page.set_content(f"<body style='margin:16px;display:flex;gap:16px;background:#888'>{images}</body>")
        page.screenshot(path=folder / "storefront-phone.png")
    with opened(browser, "light", DESKTOP) as page:
        settle(page, origin)
        strip = page.locator("#strip")
        strip.locator("summary").click()
        page.locator("#strip-pulse").check()
        page.wait_for_timeout(SHOWN_S * 1000)
        strip.screenshot(path=folder / "storefront-strip.png")


def bought(page: Page, origin: str, product: str) -> dict[str, str]:
    """Buy something as a new customer, and name the pages that are theirs."""
    page.goto(f"{origin}/register")
    page.locator("main [name=name]").fill("Ada Lovelace")
    page.locator("main [name=email]").fill(f"ada-{uuid4().hex}@souk.example")
    page.locator("main [name=password]").fill(PASSWORD)
    page.locator("form[action='/register'] button").click()
    page.wait_for_url(f"{origin}/")
    page.goto(origin + product)
    page.locator("form[data-add] button").click()
    page.locator("#cart-count:not([hidden])").wait_for()
    page.goto(f"{origin}/checkout")
    for name, value in ADDRESS.items():
        page.locator(f"main [name={name}]").fill(value)
    page.locator("#buy").click()
    page.wait_for_url("**/orders/*")
    order = page.url.removeprefix(origin).partition("?")[0]
    page.goto(origin + product)
    page.locator("form[data-add] button").click()
    page.locator("#cart-count:not([hidden])").wait_for()
    return {"order": order, "orders": "/orders", "cart": "/cart", "checkout": "/checkout", "account": "/account"}


def of_everything(browser: Browser, origin: str, product: str, folder: Path) -> None:
    """Each page, in each look."""
    anybody = {
        "shelves": "/",
        "search": "/?q=kettle",
        "nothing-found": "/?q=nothing-of-that-name",
        "product": product,
        "empty-cart": "/cart",
        "sign-in": "/sign-in",
        "register": "/register",
        "not-found": "/nothing-here",
    }
    for look, (scheme, size) in LOOKS.items():
        with opened(browser, scheme, size) as page:
            for name, path in anybody.items():
                settle(page, origin + path)
                page.screenshot(path=folder / f"{name}-{look}.png", full_page=name != "shelves")
            own = bought(page, origin, product)
            for name, path in own.items():
                settle(page, origin + path)
                page.screenshot(path=folder / f"{name}-{look}.png", full_page=True)
        with opened(browser, scheme, size) as page:
            page.goto(f"{origin}/sign-in")
            page.locator("main [name=email]").fill(ADMIN_EMAIL)
            page.locator("main [name=password]").fill(ADMIN_PASSWORD)
            page.locator("form[action='/sign-in'] button").click()
            page.wait_for_url(f"{origin}/")
            staff = {
                "admin-products": "/admin?q=kettle",
                "admin-product": f"/admin{product}",
                "admin-import": "/admin/import",
                "admin-orders": "/admin/orders",
                "admin-order": f"/admin{own['order']}",
            }
            for name, path in staff.items():
                settle(page, origin + path)
                page.screenshot(path=folder / f"{name}-{look}.png", full_page=True)


def main() -> None:
    """Take a picture of every page."""
    parser = argparse.ArgumentParser(prog="python -m bench.portraits", description="Pictures of the shop's pages.")
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="souk-portraits-") as temporary,
        running(Path(temporary)) as origin,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium(), args=UNBOXED)
        with opened(browser, "light", DESKTOP) as page:
            page.goto(f"{origin}/?q=kettle")
            product = page.locator("#grid a").first.get_attribute("href") or ""
        of_everything(browser, origin, product, folder)
        browser.close()


if __name__ == "__main__":
    main()
