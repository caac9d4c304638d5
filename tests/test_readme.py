"""The README's purchase, word for word."""

import os
import subprocess
from pathlib import Path

import httpx2

from chassis.migrations import ROOT
from local.seed import CATALOGUE
from tests.pages import fenced
from tests.shop import Shop


def import_catalogue(shop: Shop, file: Path) -> dict[str, object]:
    """Import a file as the shop's admin and return the answer."""
    credentials = {"grant_type": "password", "username": shop.admin_email, "password": shop.admin_password}
    with httpx2.Client(base_url=shop.origin, timeout=60) as client:
        token = client.post("/api/v1/auth/token", data=credentials).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/x-ndjson"}
        answer = client.post("/api/v1/products/import", content=file.read_bytes(), headers=headers)
    assert answer.status_code == 200
    return answer.json()


def test_the_purchase_of_the_readme_runs_as_it_is_written(shop: Shop) -> None:
    import_catalogue(shop, CATALOGUE)
    (walk,) = fenced(ROOT / "README.md", "sh")
    environment = os.environ | {"SHOP": shop.origin}
    ran = subprocess.run(("bash", "-eu", "-c", walk), env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "\nconfirmed\ncaptured\n" in ran.stdout.replace("}confirmed", "}\nconfirmed")
    assert ran.stdout.count("event: status") == 4
    assert ran.stdout.endswith("\ncancelled\n")
