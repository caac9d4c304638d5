"""What goes wrong before anything is sent, each in one line."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from deploy.terminal import Failed
from loadtests import preflight
from loadtests.target import Target, find, is_local
from loadtests.tests.servers import PRODUCT, Answering, Reply, serving


def at(origin: str, password: str = "") -> Target:
    return Target(origin, origin, "admin@souk.example", password, None)


def always(reply: Reply) -> Answering:
    """The same answer to everybody."""

    def answer(_method: str, _path: str, _headers: Mapping[str, str], _body: bytes) -> Reply:
        return reply

    return answer


def page(items: list[object]) -> Reply:
    body = json.dumps({"items": items, "next_cursor": None}).encode()
    return Reply(200, body, {"X-Request-Id": "1", "Content-Type": "application/json"})


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True),
        ("shop.localhost", True),
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("::1", True),
        ("10.0.0.5", False),
        ("192.168.1.2", False),
        ("0.0.0.0", False),  # noqa: S104 - nobody listens on it here
        ("shop.example", False),
        ("localhost.example", False),
        ("127.0.0.1.example", False),
    ],
)
def test_what_is_this_machine(host: str, local: bool) -> None:
    assert is_local(host) == local


def test_another_machine_is_loaded_only_by_who_says_so(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="ALLOW_REMOTE=yes") as refusal:
        find("https://shop.example", tmp_path, {})
    assert "\n" not in str(refusal.value)
    with pytest.raises(Failed):
        find("https://shop.example", tmp_path, {"ALLOW_REMOTE": "1"})
    assert find("https://shop.example", tmp_path, {"ALLOW_REMOTE": "yes"}).origin == "https://shop.example"


@pytest.mark.parametrize("name", ["shop", "ftp://127.0.0.1", "http://", "http://127.0.0.1:8000/api", "127.0.0.1:8000"])
def test_what_is_no_target_is_said_to_be_none(name: str, tmp_path: Path) -> None:
    with pytest.raises(Failed, match="is one of local, compose, cluster, inside, or an origin"):
        find(name, tmp_path, {})


def test_a_local_shop_that_was_never_run_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="make run"):
        find("local", tmp_path, {})


def test_an_address_whose_books_are_known_is_audited(tmp_path: Path) -> None:
    (tmp_path / "shop.json").write_text(json.dumps({"edge": "http://127.0.0.1:8000"}))
    known = find("http://127.0.0.1:8000/", tmp_path, {}).audit
    assert known is not None
    assert known[-2:] == ("--data", str(tmp_path))
    assert find("http://127.0.0.1:8001", tmp_path, {}).audit is None
    assert find("local", tmp_path, {}).audit == known


def test_nobody_there_is_said_in_one_line() -> None:
    with serving(always(Reply())) as origin:
        pass
    with pytest.raises(Failed, match="does not answer"):
        preflight.check(at(origin))


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(503, b'{"status": 503}'), "is not healthy"),
        (Reply(502, b"no replica answered"), "is not healthy"),
        (Reply(200, b"<html>It works!</html>"), "is not Souk"),
        (Reply(200, b'{"items": []}'), "is not Souk"),
        (Reply(200, b"[]"), "is not Souk"),
        (Reply(404, b"{}"), "is not Souk"),
        (page([]), "has no products"),
    ],
)
def test_what_is_no_healthy_shop_is_said_in_one_line(reply: Reply, said: str) -> None:
    with serving(always(reply)) as origin, pytest.raises(Failed, match=said) as refusal:
        preflight.check(at(origin))
    assert "\n" not in str(refusal.value)


def test_a_shop_is_known_by_a_page_of_products() -> None:
    with serving(always(page([PRODUCT]))) as origin:
        preflight.check(at(origin))


def test_an_admin_s_journey_needs_an_admin_s_password() -> None:
    with pytest.raises(Failed, match="ADMIN_PASSWORD") as refusal:
        preflight.sign_in(at("http://127.0.0.1:1"))
    assert "\n" not in str(refusal.value)


def test_a_wrong_password_and_a_customer_s_are_refused() -> None:
    with serving(always(Reply(401))) as origin, pytest.raises(Failed, match="cannot sign in"):
        preflight.sign_in(at(origin, "wrong"))

    def customer(_method: str, path: str, _headers: Mapping[str, str], _body: bytes) -> Reply:
        body = {"access_token": "t"} if path.endswith("/token") else {"role": "customer"}
        return Reply(200, json.dumps(body).encode())

    with serving(customer) as origin, pytest.raises(Failed, match="is no admin"):
        preflight.sign_in(at(origin, "right"))
