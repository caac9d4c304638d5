"""Reading a page back, to see what a browser would be told."""

from dataclasses import dataclass, field
from html.parser import HTMLParser


@dataclass(slots=True)
class Element:
    """An element, with all the text inside it and the ids and classes of what it stands in."""

    tag: str
    attributes: dict[str, str]
    around: frozenset[str]
    pieces: list[str] = field(default_factory=list[str])

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def classes(self) -> list[str]:
        return self.attributes.get("class", "").split()


class Page(HTMLParser):
    """All elements of a page, in order; one that is not closed, or closed twice, is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.feed(text)
        self.close()
        assert not self._open, f"not closed: {[each.tag for each in self._open]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        assert len(attributes) == len(attrs), f"an attribute stands twice in {attrs}"
        around = frozenset(
            name for each in self._open for name in (each.attributes.get("id", ""), *each.classes) if name
        )
        element = Element(tag, attributes, around)
        self.elements.append(element)
        self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        for each in self._open:
            each.pieces.append(data)

    def all(self, tag: str, style: str | None = None, inside: str | None = None) -> list[Element]:
        """The elements of a tag, where so asked of exactly these classes and inside of an id or class."""
        return [
            each
            for each in self.elements
            if each.tag == tag
            and (style is None or each.attributes.get("class") == style)
            and (inside is None or inside in each.around)
        ]

    def table(self, caption: str) -> list[list[str]]:
        """The cells of the table with this caption, its head first."""
        rows: list[list[str]] = []
        within = False
        for each in self.elements:
            if each.tag == "caption":
                within = each.text == caption
            elif within and each.tag == "tr":
                rows.append([])
            elif within and each.tag in {"th", "td"}:
                rows[-1].append(each.text)
        return rows


def parse(text: str) -> Page:
    """Read a page or a part of one."""
    return Page(text)
