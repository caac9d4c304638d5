"""A browser without scripts: it follows links, fills in forms, keeps cookies, and goes on where it is sent."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

import httpx2

VOID = frozenset({"input", "img", "link", "meta", "br"})


@dataclass
class Form:
    """A form of a page: where it is sent, and what it holds before somebody fills it in."""

    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict[str, str])


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.links: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self._form: Form | None = None
        self._area = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags.append((tag, given))
        if tag == "form":
            self._form = Form(given["action"], given.get("method", "get"))
            self.forms.append(self._form)
        elif tag == "a" and "href" in given:
            self.links.append(given["href"])
        if self._form is None or "name" not in given:
            return
        if tag == "input" and (given.get("type") not in {"checkbox", "radio"} or "checked" in given):
            self._form.fields[given["name"]] = given.get("value", "")
        elif tag == "textarea":
            self._area = given["name"]
            self._form.fields[self._area] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._form = None
        elif tag == "textarea":
            self._area = ""

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if self._area and self._form is not None:
            self._form.fields[self._area] += data


class Page:
    """A page that was answered."""

    def __init__(self, answer: httpx2.Response) -> None:
        self.answer = answer
        self.status = answer.status_code
        self.path = answer.url.path
        parser = _Parser()
        parser.feed(answer.text)
        self.forms, self.links, self.tags = parser.forms, parser.links, parser.tags
        self.text = " ".join(" ".join(parser.text).split())

    def form(self, action: str) -> Form:
        """The one form that is sent there."""
        [found] = [form for form in self.forms if form.action.partition("?")[0] == action]
        return found


class Reader:
    """Somebody who reads the shop."""

    def __init__(self, origin: str, **headers: str) -> None:
        self.client = httpx2.Client(base_url=origin, timeout=30, trust_env=False, follow_redirects=True)
        self.client.headers.update(headers)

    def get(self, path: str, **options: Any) -> Page:
        """Go to a page."""
        return Page(self.client.get(path, **options))

    def send(self, form: Form, **filled: str) -> Page:
        """Send a form, filled in."""
        return Page(self.client.post(form.action, data=form.fields | filled))

    def sign_in(self, email: str, password: str, next_page: str = "/") -> Page:
        """Sign in."""
        page = self.get("/sign-in", params={"next": next_page})
        return self.send(page.form("/sign-in"), email=email, password=password)
