"""What is an e-mail, and what two of them share."""

import pytest

from services.user.domain import email_digest, normal_email


@pytest.mark.parametrize(
    ("text", "email"),
    [
        ("Ada@Example.COM", "ada@example.com"),
        ("o'hara+shop@mail.example.com", "o'hara+shop@mail.example.com"),
        ("STRASSE@example.com", "strasse@example.com"),
        ("STRAßE@example.com", "strasse@example.com"),
        ("Ζωή@Παράδειγμα.ΕΛ", "ζωή@παράδειγμα.ελ"),
        ("root@localhost", "root@localhost"),
    ],
)
def test_an_email_is_case_folded(text: str, email: str) -> None:
    assert normal_email(text) == email


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ada",
        "@example.com",
        "ada@",
        "a@b@example.com",
        "ada lovelace@example.com",
        "ada@exa mple.com",
        "ada@example..com",
        "ada@.example.com",
        "ada@example.com.",
        "ada@-example.com",
        "ada@example-.com",
        "ada\n@example.com",
        "ada\u00a0@example.com",
        "ada\u200b@example.com",
        f"{'a' * 243}@example.com",
        f"{'ß' * 122}@example.com",  # 134 characters, 256 when case-folded
    ],
)
def test_what_no_mail_system_takes_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        normal_email(text)


def test_an_email_of_254_characters_is_taken() -> None:
    assert len(normal_email(f"{'a' * 242}@example.com")) == 254


def test_attempts_for_one_email_share_a_digest_in_any_case() -> None:
    assert email_digest("Ada@Example.com") == email_digest("aDA@example.COM")
    assert email_digest("ada@example.com") != email_digest("ada@example.org")
