"""Secrets are made once, each for its owner alone."""

import base64
import stat
import subprocess
import sys
from pathlib import Path

import orjson

from chassis.migrations import ROOT
from chassis.secrets import AUDIT, SERVICES, generate
from chassis.settings import PLACEHOLDERS


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_caller_gets_a_key_and_all_public_keys(tmp_path: Path) -> None:
    generate(tmp_path)
    private = {name: orjson.loads((tmp_path / name / "service_key").read_bytes()) for name in (*SERVICES, AUDIT)}
    assert len({key["d"] for key in private.values()}) == 5
    for name in private:
        public = orjson.loads((tmp_path / name / "service_jwks").read_bytes())["keys"]
        assert {key["kid"]: key["x"] for key in public} == {caller: key["x"] for caller, key in private.items()}
        assert not any("d" in key for key in public)
    assert len(base64.b64decode((tmp_path / "user" / "key_encryption_key").read_bytes())) == 32
    assert not PLACEHOLDERS & {content.decode() for content in files(tmp_path).values()}


def test_a_second_time_changes_nothing(tmp_path: Path) -> None:
    generate(tmp_path, database_host="postgres")
    before = files(tmp_path)
    generate(tmp_path, database_host="postgres")
    assert files(tmp_path) == before


def test_only_what_is_missing_is_made(tmp_path: Path) -> None:
    generate(tmp_path)
    before = files(tmp_path)
    (tmp_path / "order" / "service_key").unlink()
    generate(tmp_path)
    after = files(tmp_path)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"order/service_key", *(f"{caller}/service_jwks" for caller in (*SERVICES, AUDIT))}


def test_files_and_folders_are_their_owners_alone(tmp_path: Path) -> None:
    generate(tmp_path / "secrets", database_host="postgres")
    for path in (tmp_path / "secrets").rglob("*"):
        expected = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == expected, path


def test_a_database_host_makes_a_url_and_a_password_for_each_service(tmp_path: Path) -> None:
    generate(tmp_path, database_host="db:5433")
    for service in SERVICES:
        password = (tmp_path / "postgres" / f"{service}_password").read_text()
        url = (tmp_path / service / "database_url").read_text()
        assert url == f"postgresql://souk_{service}:{password}@db:5433/souk_{service}"
    generate(tmp_path, database_host="elsewhere")
    assert "@elsewhere/souk_order" in (tmp_path / "order" / "database_url").read_text()


def test_each_database_may_have_an_owner_of_its_own_and_a_host_of_its_own(tmp_path: Path) -> None:
    generate(tmp_path, database_host="{service}-database", owners=True)
    for service in SERVICES:
        for role in (service, f"{service}_owner"):
            password = (tmp_path / "postgres" / f"{role}_password").read_text()
            url = (tmp_path / role / "database_url").read_text()
            assert url == f"postgresql://souk_{role}:{password}@{service}-database/souk_{service}"


def test_the_command_does_the_same(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "chassis.secrets", str(tmp_path), "--database-host", "postgres")
    for _ in range(2):
        subprocess.run(command, cwd=ROOT, check=True)
    assert (tmp_path / "order" / "database_url").read_text().endswith("@postgres/souk_order")
