"""Static files under names that carry a digest of their content, so that a browser may keep them for ever.

A module that imports another names it `./name.js`, a style sheet its pictures `url(name.svg)`; both are rewritten to
the names with digests, so that a change of the one changes the name of the other too.
"""

import re
from dataclasses import dataclass
from gzip import compress
from hashlib import sha256
from pathlib import Path

from fastapi import Response

FOLDER = Path(__file__).resolve().parent / "static"
MEDIA_TYPES = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}
FOR_EVER = "public, max-age=31536000, immutable"
REFERENCE = re.compile(r'(?<=from "\./)[\w-]+\.js|(?<=url\()[\w-]+\.svg')


@dataclass(frozen=True, slots=True)
class Asset:
    """A file as it is served."""

    name: str
    content: bytes
    compressed: bytes
    media_type: str

    def answer(self, accepted: str, cache_control: str) -> Response:
        """The file for a browser that accepts these codings (RFC 9110, 12.5.3)."""
        headers = {"Cache-Control": cache_control, "Vary": "Accept-Encoding"}
        if "gzip" not in accepted:
            return Response(self.content, media_type=self.media_type, headers=headers)
        headers["Content-Encoding"] = "gzip"
        return Response(self.compressed, media_type=self.media_type, headers=headers)


class Assets:
    """The files of the static folder, read once."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._sources = {path.name: path for path in sorted(folder.iterdir()) if path.suffix in MEDIA_TYPES}
        self._made: dict[str, Asset] = {}
        for name in self._sources:
            self._make(name)
        self._served = {asset.name: asset for asset in self._made.values()}

    def _make(self, name: str) -> Asset:
        if name not in self._made:
            path = self._sources[name]
            text = REFERENCE.sub(lambda found: self._make(found[0]).name, path.read_text(encoding="utf-8"))
            content = text.encode("utf-8")
            digest = sha256(content).hexdigest()[:10]
            served = f"{path.stem}.{digest}{path.suffix}"
            self._made[name] = Asset(served, content, compress(content, 9, mtime=0), MEDIA_TYPES[path.suffix])
        return self._made[name]

    def url(self, name: str) -> str:
        """Where a file is served. Raises KeyError for one that is not there."""
        return f"/static/{self._made[name].name}"

    def find(self, served: str, accepted: str) -> Response | None:
        """The answer for the name with its digest; none for any other name."""
        asset = self._served.get(served)
        return None if asset is None else asset.answer(accepted, FOR_EVER)

    def plain(self, name: str, accepted: str, max_age_s: int) -> Response:
        """A file under a name of its own, which a browser asks for again after a while."""
        return self._made[name].answer(accepted, f"public, max-age={max_age_s}")
