"""What an account may be and do, and the problems of this service.

    Problem
    ├── EmailTaken                409  email-taken
    ├── WrongPassword             403  wrong-password
    ├── AddressBookFull           409  address-book-full
    ├── UnsupportedGrantType      400  unsupported-grant-type
    └── Unauthenticated
        └── InvalidGrant          401  unauthenticated

The rest of the tree is in `chassis.problems`.
"""

from hashlib import sha256

from chassis.problems import Problem, Unauthenticated

MOST_EMAIL_CHARACTERS = 254
"""The longest that fits a path of SMTP, RFC 5321, 4.5.3.1.3."""
MOST_ADDRESSES = 100
"""Addresses in one address book."""
MOST_FAILED_LOGINS = 10
FAILED_LOGINS_WINDOW_S = 15 * 60
"""So many failures for one e-mail in such a time, and no password is looked at any more."""
ACCESS_TOKEN_LIFE_S = 15 * 60
REFRESH_TOKEN_LIFE_DAYS = 30


class EmailTaken(Problem):
    status, code, title = 409, "email-taken", "Another account has this e-mail"


class WrongPassword(Problem):
    status, code, title = 403, "wrong-password", "The current password is another one"


class AddressBookFull(Problem):
    status, code, title = 409, "address-book-full", f"An address book holds {MOST_ADDRESSES} addresses"


class UnsupportedGrantType(Problem):
    """RFC 6749, 5.2, whose `error` it carries."""

    status, code, title = 400, "unsupported-grant-type", "The grant type is neither password nor refresh_token"

    def __init__(self) -> None:
        super().__init__(error="unsupported_grant_type")


class InvalidGrant(Unauthenticated):
    """Wrong credentials, or a refresh token that is not good; RFC 6749, 5.2, whose `error` it carries."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, error="invalid_grant")


def normal_email(text: str) -> str:
    """An e-mail as it is kept and compared: case-folded. Raises ValueError where it is none.

    Only what no mail system takes is refused: whether a mailbox exists can be told by a message to it alone, and
    patterns that claim more turn working addresses away.
    """
    email = text.casefold()
    local, at, domain = email.rpartition("@")
    labels = domain.split(".")
    if not at or not local or "@" in local or not all(labels):
        raise ValueError("must be an e-mail such as name@example.com")
    if " " in email or not email.isprintable():
        raise ValueError("must not contain spaces or control characters")
    if any(label.startswith("-") or label.endswith("-") for label in labels):
        raise ValueError("must have a domain whose labels do not begin or end with a hyphen")
    if len(email) > MOST_EMAIL_CHARACTERS:
        raise ValueError(f"must have at most {MOST_EMAIL_CHARACTERS} characters, case-folded")
    return email


def email_digest(email: str) -> bytes:
    """What attempts are counted under: nothing is kept of an e-mail that no account has."""
    return sha256(email.casefold().encode()).digest()
