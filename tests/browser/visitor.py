"""Somebody in front of the shop: a browser of their own, and what they do in it.

Whatever a browser has to say about the shop while somebody is there is kept, and a test fails where there is anything:
a script that failed, something that the Content-Security-Policy refused, a request to another host.
"""

import re
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, cast
from urllib.parse import urlsplit
from uuid import uuid4

from playwright.async_api import BrowserContext, ConsoleMessage, Page, Request, expect

PASSWORD = "correct horse battery staple"
ADDRESS = {
    "name": "Ada Lovelace",
    "line1": "12 St James Square",
    "city": "London",
    "postal_code": "SW1Y 4JH",
    "country": "GB",
}
OBSERVE_SHIFTS = """
window.souk_shift = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.souk_shift += entry.value;
}).observe({type: "layout-shift", buffered: true});
"""
MOST_SHIFT = 0.01
"""Google's Core Web Vitals call 0.1 good; here nothing has a reason to move at all."""
AXE = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
EXPECTED = re.compile(r"^Failed to load resource")
"""What the console says of an answer that is no 2xx, which a test looks at itself."""


@dataclass
class Visitor:
    """A browser with one page open, of somebody who has not been here before."""

    context: BrowserContext
    page: Page
    origin: str
    complaints: list[str] = field(default_factory=list[str])
    email: str = field(default_factory=lambda: f"ada-{uuid4().hex}@souk.example")

    def listen(self, page: Page | None = None) -> None:
        """Keep what the browser complains of, on this page or another one of theirs."""
        page = page or self.page
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.complaints.append(f"a script failed: {error}"))
        page.on("request", self._on_request)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not EXPECTED.match(message.text):
            self.complaints.append(f"console: {message.text}")

    def _on_request(self, request: Request) -> None:
        if urlsplit(request.url).scheme in {"http", "https"} and not request.url.startswith(f"{self.origin}/"):
            self.complaints.append(f"asked another host: {request.url}")

    async def go(self, path: str) -> int:
        """Open a page of the shop, and return its status."""
        answer = await self.page.goto(f"{self.origin}{path}")
        assert answer is not None
        return answer.status

    async def go_and_settle(self, path: str) -> None:
        """Open a page, past the one between that renews a sign-in and goes on by itself."""
        await self.page.goto(f"{self.origin}{path}", wait_until="commit")
        await self.page.wait_for_url(lambda url: urlsplit(url).path != "/session/renew")

    @property
    def path(self) -> str:
        """Where they are, without the query."""
        return urlsplit(self.page.url).path

    async def cookies(self) -> dict[str, dict[str, Any]]:
        """What the browser keeps of this shop, by name."""
        return {each["name"]: each for each in cast("list[dict[str, Any]]", await self.context.cookies(self.origin))}

    async def another_tab(self, path: str) -> Page:
        """Open a page in a second tab of the same browser."""
        page = await self.context.new_page()
        self.listen(page)
        await page.goto(f"{self.origin}{path}")
        return page

    async def fill(self, **fields: str) -> None:
        """Fill in fields by their names, in the form that has them all."""
        for name, value in fields.items():
            await self.page.locator(f"main [name={name}]:visible").first.fill(value)

    async def send(self, action: str, *, button: str | None = None) -> None:
        """Send the form with this action by its button, and wait for the page that answers."""
        form = self.page.locator(f"form[action='{action}']").first
        await (form.locator(button) if button else form.locator("button:not([type=button])")).first.click()

    async def register(self) -> None:
        """Open an account, which also signs in."""
        await self.go("/register")
        await self.fill(name="Ada Lovelace", email=self.email, password=PASSWORD)
        await self.send("/register")
        await expect(self.page).not_to_have_url(re.compile("/register"))

    async def sign_in(self, email: str, password: str) -> None:
        """Sign in to an account that there is."""
        await self.go("/sign-in")
        await self.fill(email=email, password=password)
        await self.send("/sign-in")
        await expect(self.page).not_to_have_url(re.compile("/sign-in"))

    async def put_in_cart(self, product_id: str, quantity: int = 1) -> None:
        """Put so many of a product into the cart, from its page."""
        await self.go(f"/products/{product_id}")
        await self.fill(quantity=str(quantity))
        before = await self.cart_count()
        await self.send(f"/cart/items/{product_id}/add")
        await expect(self.page.locator("#cart-count")).to_have_text(re.compile(rf"\b{before + quantity}$"))

    async def cart_count(self) -> int:
        """How many things the head of the page says are in the cart."""
        found = re.search(r"\d+", await self.page.locator("#cart-count").inner_text() or "0")
        return int(found[0]) if found else 0

    async def fill_checkout(self, method: str = "tok_visa") -> None:
        """Fill the checkout in, with an address where none was kept."""
        await self.go("/checkout")
        if await self.page.locator("main [name=line1]").is_visible():
            await self.fill(**ADDRESS)
        await self.choose("payment_method", method)

    async def choose(self, name: str, value: str) -> None:
        """Choose one of some radio buttons."""
        await self.page.locator(f"main [name={name}][value='{value}']").check()

    async def buy(self, product_id: str, method: str = "tok_visa", quantity: int = 1) -> str:
        """Buy so many of a product, and return the order's page."""
        await self.put_in_cart(product_id, quantity)
        await self.fill_checkout(method)
        await self.send("/checkout")
        await expect(self.page).to_have_url(re.compile(r"/orders/[0-9a-f-]{36}"), timeout=20_000)
        return self.path

    async def shift(self) -> float:
        """The cumulative layout shift of the page that is open (Core Web Vitals: at most 0.1 is good)."""
        return await self.page.evaluate("window.souk_shift")

    async def scrolls_sideways(self) -> int:
        """By how many pixels the page is wider than the window."""
        return await self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")

    async def barriers(self, page: Page | None = None) -> list[str]:
        """What axe finds on the page that is open, each with where."""
        page = page or self.page
        await page.evaluate(AXE)
        found: dict[str, Any] = await page.evaluate("rules => axe.run({runOnly: rules})", RULES)
        return [
            f"{violation['id']}: {' '.join(map(str, node['target']))}: {node['failureSummary']}"
            for violation in found["violations"]
            for node in violation["nodes"]
        ]
