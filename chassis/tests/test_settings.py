"""Where settings come from, and what keeps a service from starting."""

from pathlib import Path

import pytest

from chassis.origins import origins
from chassis.settings import PLACEHOLDERS, InvalidSettings, ServiceSettings
from chassis.testing import JWKS, KEYS

COMPLETE = {
    "PORT": "8004",
    "DATABASE_URL": "postgresql://souk:the-database-password@db/souk",
    "SERVICE_KEY": KEYS["order"],
    "SERVICE_JWKS": JWKS,
}


@pytest.fixture(autouse=True)
def _nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*ServiceSettings.model_fields, "secrets_dir"):
        monkeypatch.delenv(name.upper(), raising=False)


def set_all(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in (COMPLETE | variables).items():
        monkeypatch.setenv(name, value)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, MAX_IN_FLIGHT="7")
    settings = ServiceSettings.load()
    assert (settings.port, settings.max_in_flight) == (8004, 7)
    assert settings.service_key.get_secret_value() == KEYS["order"]


def test_everything_missing_is_named_in_one_line() -> None:
    with pytest.raises(InvalidSettings) as refused:
        ServiceSettings.load()
    message = str(refused.value)
    assert "\n" not in message
    for name in COMPLETE:
        assert f"{name}: Field required" in message


@pytest.mark.parametrize("placeholder", sorted(PLACEHOLDERS | {"CHANGEME", " Secret "}), ids=repr)
def test_a_placeholder_is_no_secret(monkeypatch: pytest.MonkeyPatch, placeholder: str) -> None:
    set_all(monkeypatch, SERVICE_KEY=placeholder)
    with pytest.raises(InvalidSettings, match="SERVICE_KEY: Value error, is a placeholder"):
        ServiceSettings.load()


@pytest.mark.parametrize(
    "url",
    ["postgresql://souk:changeme@db/souk", "postgresql://souk:@db/souk", "postgresql://souk@/souk?password=Secret"],
)
def test_a_placeholder_is_no_database_password(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    set_all(monkeypatch, DATABASE_URL=url)
    with pytest.raises(InvalidSettings, match="DATABASE_URL: Value error, is a placeholder"):
        ServiceSettings.load()


def test_a_database_url_needs_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, DATABASE_URL="postgresql://souk@/souk?host=/run/postgresql")
    assert ServiceSettings.load().database_url.get_secret_value() == "postgresql://souk@/souk?host=/run/postgresql"


def test_a_broken_database_url_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, DATABASE_URL="postgresql://souk:the-database-password@d\u2100b/souk")
    with pytest.raises(InvalidSettings, match="DATABASE_URL: Value error, is not a URL") as refused:
        ServiceSettings.load()
    assert "the-database-password" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"), [("PORT", "http"), ("MAX_IN_FLIGHT", "0"), ("DATABASE_POOL_SIZE", "-1"), ("LOG_LEVEL", "loud")]
)
def test_a_wrong_value_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    set_all(monkeypatch, **{name: value})
    with pytest.raises(InvalidSettings, match=f"{name}: "):
        ServiceSettings.load()


def test_a_refusal_shows_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, PORT="not-a-port")
    with pytest.raises(InvalidSettings) as refused:
        ServiceSettings.load()
    assert "not-a-port" not in str(refused.value)
    assert "the-database-password" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_secrets_come_from_files_and_the_environment_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "service_key").write_text(KEYS["order"])
    (tmp_path / "service_jwks").write_text(JWKS)
    (tmp_path / "database_url").write_text("postgresql://from-the-file/souk\n")
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("PORT", "8004")
    settings = ServiceSettings.load()
    assert settings.service_key.get_secret_value() == KEYS["order"]
    assert settings.database_url.get_secret_value() == "postgresql://from-the-file/souk"
    monkeypatch.setenv("DATABASE_URL", "postgresql://from-the-environment/souk")
    assert ServiceSettings.load().database_url.get_secret_value() == "postgresql://from-the-environment/souk"


def test_settings_are_frozen_and_do_not_show_their_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch)
    settings = ServiceSettings.load()
    with pytest.raises(ValueError, match="frozen"):
        settings.port = 1  # pyright: ignore[reportAttributeAccessIssue]
    assert "the-database-password" not in repr(settings)
    assert '"d"' not in repr(settings), "the private part of a key"


@pytest.mark.parametrize(
    "urls", ["", "product:8002", "https://a", "http://a/path", "http://u:p@a", "http://a,", "http://a:x"]
)
def test_what_is_no_list_of_origins_is_refused(urls: str) -> None:
    with pytest.raises(ValueError, match=r"origins|credential|Port"):
        origins(urls)


def test_a_peer_may_have_several_origins() -> None:
    assert origins("http://127.0.0.1:8002, http://product") == [("127.0.0.1", 8002), ("product", 80)]
