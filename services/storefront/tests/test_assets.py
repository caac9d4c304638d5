"""Static files under names with digests."""

import re
from gzip import decompress
from pathlib import Path

import pytest

from services.storefront.assets import FOR_EVER, Assets


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.js").write_text('import { b } from "./b.js";\n')
    (tmp_path / "b.js").write_text("export const b = 1;\n")
    (tmp_path / "page.css").write_text("body { background: url(mark.svg); }\n")
    (tmp_path / "mark.svg").write_text("<svg/>\n")
    (tmp_path / "notes.txt").write_text("not served\n")
    return tmp_path


def text_of(assets: Assets, name: str) -> str:
    served = assets.url(name).removeprefix("/static/")
    answer, zipped = assets.find(served, ""), assets.find(served, "br, gzip")
    assert answer is not None
    assert zipped is not None
    assert "content-encoding" not in answer.headers
    assert zipped.headers["content-encoding"] == "gzip"
    assert decompress(bytes(zipped.body)) == answer.body
    assert answer.headers["cache-control"] == FOR_EVER
    return bytes(answer.body).decode()


def test_what_a_file_refers_to_is_named_with_its_digest(folder: Path) -> None:
    assets = Assets(folder)
    assert re.fullmatch(r"/static/a\.[0-9a-f]{10}\.js", assets.url("a.js"))
    assert f'from "./{assets.url("b.js").removeprefix("/static/")}"' in text_of(assets, "a.js")
    assert f"url({assets.url('mark.svg').removeprefix('/static/')})" in text_of(assets, "page.css")


def test_a_change_renames_what_changed_and_what_refers_to_it(folder: Path) -> None:
    before = Assets(folder)
    (folder / "b.js").write_text("export const b = 2;\n")
    after = Assets(folder)
    changed = {name for name in ("a.js", "b.js", "page.css", "mark.svg") if before.url(name) != after.url(name)}
    assert changed == {"a.js", "b.js"}
    assert after.find(before.url("b.js").removeprefix("/static/"), "") is None


@pytest.mark.parametrize("name", ["a.js", "b.0000000000.js", "notes.txt", "../app.py", ""])
def test_no_other_name_is_served(folder: Path, name: str) -> None:
    assert Assets(folder).find(name, "") is None
