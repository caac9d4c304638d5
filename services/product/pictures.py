"""The demo catalogue's pictures: drawn SVG files beside this module, each read when it is first asked for."""

from functools import cache
from pathlib import Path
from typing import NamedTuple

from services.product.conditional import entity_tag

FOLDER = Path(__file__).resolve().parent / "pictures"
HEADERS = {
    "Cache-Control": "public, max-age=86400",
    # An SVG that is opened by itself is a document: it must not run anything.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
}


class Picture(NamedTuple):
    """An SVG image and its entity tag."""

    content: bytes
    tag: str


@cache
def _names() -> frozenset[str]:
    """The pictures that there are. Only what the folder lists is ever opened, so no name leads out of it."""
    return frozenset(file.stem for file in FOLDER.glob("*.svg"))


@cache
def _read(name: str) -> Picture:
    content = (FOLDER / f"{name}.svg").read_bytes()
    return Picture(content, entity_tag(content))


def find(name: str) -> Picture | None:
    """The picture of that name, or none."""
    return _read(name) if name in _names() else None
