"""Registering, tokens, their rotation and revocation, the public keys, throttling."""

import base64
import json
import time
from typing import Any

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.contract.client import Answer, Storefront, Tokens
from tests.contract.shopping import PASSWORD, Customer, new_customer, short, unique, unique_email, unique_sku

LONGEST_EMAIL_DOMAIN = f"{'d' * 59}.{'d' * 59}.{'d' * 57}.example.com"


def email_of_length(length: int) -> str:
    """Give a well-formed e-mail that nobody has, of up to 254 characters, and one longer."""
    local = unique()
    return f"{local.ljust(length - len(LONGEST_EMAIL_DOMAIN) - 1, 'x')}@{LONGEST_EMAIL_DOMAIN}"


def refused(answer: Answer[Tokens]) -> str:
    """Check the 401 of the token call and give its words."""
    problem = answer.problem(401, "unauthenticated")
    assert problem.facts["error"] == "invalid_grant"
    return f"{problem.title}: {problem.detail}"


def claims(token: str) -> dict[str, Any]:
    """Read a token's claims without verifying it."""
    return jwt.decode(token, options={"verify_signature": False})


# Register


def test_registering_makes_a_customer(anyone: Storefront) -> None:
    email = unique_email()
    answer = anyone.register(email=email, password=PASSWORD, name="Ada Example")
    user = answer.expect(201)
    assert (user.email, user.name, user.role) == (email, "Ada Example", "customer")
    assert PASSWORD not in answer.response.text
    assert "argon2" not in answer.response.text


def test_an_email_is_case_folded(anyone: Storefront) -> None:
    email = unique_email()
    user = anyone.register(email=email.upper(), password=PASSWORD, name="Ada").expect(201)
    assert user.email == email
    anyone.register(email=email.title(), password=PASSWORD, name="Ada").problem(409, "email-taken")
    anyone.log_in(email.upper(), PASSWORD).expect(200)


def test_an_email_is_taken_once(customer: Customer, anyone: Storefront) -> None:
    anyone.register(email=customer.email, password="another password", name="B").problem(409, "email-taken")
    anyone.log_in(customer.email, customer.password).expect(200)


@pytest.mark.parametrize("missing", ["email", "password", "name"])
def test_registering_needs_every_field(anyone: Storefront, missing: str) -> None:
    body = {"email": unique_email(), "password": PASSWORD, "name": "Ada"}
    del body[missing]
    anyone.register(**body).invalid(missing)


@pytest.mark.parametrize("field", ["email", "password", "name"])
@pytest.mark.parametrize("value", [None, 1, True, [], {}, "has a NUL \0 in it", "lone surrogate \ud800"])
def test_registering_refuses_what_is_no_text(anyone: Storefront, field: str, value: object) -> None:
    body = {"email": unique_email(), "password": PASSWORD, "name": "Ada", field: value}
    anyone.call(
        "POST",
        "/api/v1/auth/register",
        content=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    ).invalid(*([] if value == "lone surrogate \ud800" else [field]))


@pytest.mark.parametrize(
    "email",
    ["", "nobody", "@example.com", "nobody@", "a b@example.com", "a@b@example.com", "nobody@exa mple.com"],
)
def test_registering_refuses_what_is_no_email(anyone: Storefront, email: str) -> None:
    anyone.register(email=email, password=PASSWORD, name="Ada").invalid("email")


def test_an_email_of_254_characters_is_taken_and_a_longer_one_is_not(anyone: Storefront) -> None:
    email = email_of_length(254)
    assert anyone.register(email=email, password=PASSWORD, name="Ada").expect(201).email == email
    anyone.register(email=email_of_length(255), password=PASSWORD, name="Ada").invalid("email")


@pytest.mark.parametrize("password", ["8 letter", "x" * 128, "пароль-пароль", "\U0001f511" * 8], ids=short)
def test_a_password_of_8_to_128_characters_is_taken(anyone: Storefront, password: str) -> None:
    new_customer(anyone, password=password)


@pytest.mark.parametrize("password", ["", "7 chars", "x" * 129, "\U0001f511" * 7], ids=short)
def test_a_password_of_another_length_is_refused(anyone: Storefront, password: str) -> None:
    anyone.register(email=unique_email(), password=password, name="Ada").invalid("password")


def test_a_name_of_100_characters_is_taken_and_a_longer_one_is_not(anyone: Storefront) -> None:
    name = "é" * 100
    assert anyone.register(email=unique_email(), password=PASSWORD, name=name).expect(201).name == name
    anyone.register(email=unique_email(), password=PASSWORD, name=name + "e").invalid("name")


@pytest.mark.parametrize("field", ["role", "id", "created_at", "is_admin"])
def test_nobody_registers_as_more_than_a_customer(anyone: Storefront, field: str) -> None:
    body = {"email": unique_email(), "password": PASSWORD, "name": "Ada", field: "admin"}
    anyone.register(**body).invalid(field)
    refused(anyone.log_in(body["email"], PASSWORD))


# Tokens


def test_the_password_form_gives_tokens(customer: Customer, anyone: Storefront) -> None:
    tokens = anyone.log_in(customer.email, customer.password).expect(200)
    assert tokens.token_type.lower() == "bearer"
    assert tokens.expires_in == 900
    assert anyone.bearing(tokens.access_token).me().expect(200).id == customer.id


def test_an_access_token_lives_15_minutes(customer: Customer) -> None:
    remaining_s = claims(customer.tokens.access_token)["exp"] - time.time()
    assert 800 < remaining_s <= 901


def test_the_forms_ignore_what_they_do_not_know(customer: Customer, anyone: Storefront) -> None:
    tokens = anyone.token(
        grant_type="password",
        username=customer.email,
        password=customer.password,
        scope="everything",
        client_id="swagger",
        surprise="1",
    ).expect(200)
    anyone.revoke(token=tokens.refresh_token, token_type_hint="refresh_token", surprise="1").succeeds(200)


def test_an_unknown_email_and_a_wrong_password_are_told_the_same(customer: Customer, anyone: Storefront) -> None:
    wrong = anyone.log_in(customer.email, "wrong password")
    unknown = anyone.log_in(unique_email(), "wrong password")
    assert refused(wrong) == refused(unknown)
    varying = {"date", "x-request-id", "traceparent", "content-length", "server-timing"}
    assert set(wrong.headers) - varying == set(unknown.headers) - varying
    assert wrong.response.json().keys() == unknown.response.json().keys()


@pytest.mark.parametrize("field", ["username", "password"])
def test_the_password_form_needs_every_field(anyone: Storefront, field: str) -> None:
    form = {"grant_type": "password", "username": unique_email(), "password": PASSWORD}
    del form[field]
    anyone.token(**form).invalid(field)


def test_the_refresh_form_needs_its_token(anyone: Storefront) -> None:
    anyone.token(grant_type="refresh_token").invalid("refresh_token")


@pytest.mark.parametrize("grant_type", ["client_credentials", "authorization_code", "PASSWORD", "nonsense"])
def test_another_grant_is_400(customer: Customer, anyone: Storefront, grant_type: str) -> None:
    answer = anyone.token(grant_type=grant_type, username=customer.email, password=customer.password)
    problem = answer.problem(400, "unsupported-grant-type")
    assert problem.facts["error"] == "unsupported_grant_type"


@pytest.mark.parametrize("field", ["username", "password"])
def test_nul_in_the_password_form_is_refused(customer: Customer, anyone: Storefront, field: str) -> None:
    form = {"grant_type": "password", "username": customer.email, "password": customer.password}
    form[field] += "\0"
    anyone.token(**form).invalid(field)


def test_the_eleventh_attempt_is_throttled_whatever_the_password(anyone: Storefront) -> None:
    victim = new_customer(anyone)
    for attempt in range(10):
        email = victim.email.upper() if attempt % 2 else victim.email
        refused(anyone.log_in(email, "wrong password"))
    for password in (victim.password, "wrong password"):
        answer = anyone.log_in(victim.email, password)
        answer.problem(429, "too-many-attempts")
        assert 0 < int(answer.headers["retry-after"]) <= 15 * 60
    assert victim.shop.me().expect(200).id == victim.id


def test_an_unknown_email_is_throttled_alike(anyone: Storefront) -> None:
    email = unique_email()
    for _ in range(10):
        refused(anyone.log_in(email, "wrong password"))
    anyone.log_in(email, "wrong password").problem(429, "too-many-attempts")


def test_a_success_clears_the_count_of_failures(customer: Customer, anyone: Storefront) -> None:
    for _ in range(2):
        for _ in range(9):
            refused(anyone.log_in(customer.email, "wrong password"))
        anyone.log_in(customer.email, customer.password).expect(200)


def test_refreshing_is_not_throttled_with_the_password(anyone: Storefront) -> None:
    victim = new_customer(anyone)
    for _ in range(10):
        refused(anyone.log_in(victim.email, "wrong password"))
    anyone.log_in(victim.email, victim.password).problem(429, "too-many-attempts")
    anyone.refresh(victim.tokens.refresh_token).expect(200)


def test_a_refresh_token_rotates(customer: Customer, anyone: Storefront) -> None:
    tokens = customer.tokens
    for _ in range(3):
        rotated = anyone.refresh(tokens.refresh_token).expect(200)
        assert rotated.refresh_token != tokens.refresh_token
        assert rotated.expires_in == 900
        assert anyone.bearing(rotated.access_token).me().expect(200).id == customer.id
        tokens = rotated


def test_a_refresh_token_used_twice_ends_its_family_and_no_other(customer: Customer, anyone: Storefront) -> None:
    other_session = anyone.log_in(customer.email, customer.password).expect(200)
    first = anyone.refresh(customer.tokens.refresh_token).expect(200)
    second = anyone.refresh(first.refresh_token).expect(200)
    refused(anyone.refresh(customer.tokens.refresh_token))
    refused(anyone.refresh(first.refresh_token))
    refused(anyone.refresh(second.refresh_token))
    anyone.refresh(other_session.refresh_token).expect(200)
    anyone.log_in(customer.email, customer.password).expect(200)


@pytest.mark.parametrize("refresh_token", ["nonsense", "x" * 5000, "Ä"], ids=short)
def test_a_refresh_token_that_is_none_is_401(anyone: Storefront, refresh_token: str) -> None:
    refused(anyone.refresh(refresh_token))


def test_an_access_token_does_not_refresh(customer: Customer, anyone: Storefront) -> None:
    refused(anyone.refresh(customer.tokens.access_token))


def test_a_refresh_token_opens_nothing(customer: Customer, anyone: Storefront) -> None:
    anyone.bearing(customer.tokens.refresh_token).me().problem(401, "unauthenticated")


def test_a_revoked_refresh_token_is_401(customer: Customer, anyone: Storefront) -> None:
    other_session = anyone.log_in(customer.email, customer.password).expect(200)
    for _ in range(2):
        anyone.revoke(token=customer.tokens.refresh_token).succeeds(200)
    refused(anyone.refresh(customer.tokens.refresh_token))
    anyone.refresh(other_session.refresh_token).expect(200)


def test_revoking_what_is_no_token_is_200(anyone: Storefront) -> None:
    anyone.revoke(token="nonsense").succeeds(200)


def test_revoking_needs_a_token(anyone: Storefront) -> None:
    anyone.revoke(surprise="1").invalid("token")


# Keys and forgeries


def test_the_jwks_holds_public_keys_only(anyone: Storefront) -> None:
    for key in anyone.jwks().expect(200).keys:
        assert len(base64.urlsafe_b64decode(key.x + "=" * (-len(key.x) % 4))) == 32
        assert "d" not in (key.model_extra or {})


def test_an_access_token_is_signed_by_a_key_of_the_jwks(customer: Customer, anyone: Storefront) -> None:
    header = jwt.get_unverified_header(customer.tokens.access_token)
    assert header["alg"] == "EdDSA"
    [key] = [key for key in anyone.jwks().expect(200).keys if key.kid == header["kid"]]
    verified = jwt.decode(
        customer.tokens.access_token,
        jwt.PyJWK(key.model_dump()),
        algorithms=["EdDSA"],
        options={"verify_aud": False},
    )
    assert verified == claims(customer.tokens.access_token)
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(
            signed_by_another(customer.tokens.access_token),
            jwt.PyJWK(key.model_dump()),
            algorithms=["EdDSA"],
            options={"verify_aud": False},
        )


def part(value: dict[str, Any]) -> str:
    """Encode a part of a JWT."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def unsigned(token: str) -> str:
    """Swap the algorithm for none."""
    return f"{part({**jwt.get_unverified_header(token), 'alg': 'none'})}.{token.split('.')[1]}."


def signed_with_the_public_key(token: str, public_key: bytes) -> str:
    """Swap the algorithm for HMAC, keyed with what everybody knows."""
    header = jwt.get_unverified_header(token)
    return jwt.encode(claims(token), public_key, algorithm="HS256", headers={"kid": header["kid"]})


def signed_by_another(token: str, kid: str | None = None) -> str:
    """Sign the same claims with a key that is not the shop's."""
    headers = {"kid": kid or jwt.get_unverified_header(token)["kid"]}
    return jwt.encode(claims(token), Ed25519PrivateKey.generate(), algorithm="EdDSA", headers=headers)


def promoted(token: str) -> str:
    """Change the claims under the signature."""
    header, _, signature = token.split(".")
    return f"{header}.{part({**claims(token), 'role': 'admin'})}.{signature}"


def cut(token: str) -> str:
    """Leave the signature away."""
    return token.rpartition(".")[0] + "."


@pytest.mark.parametrize("path", ["/api/v1/users/me", "/api/v1/cart", "/api/v1/payments"])
def test_a_forged_token_is_401_at_every_service(customer: Customer, anyone: Storefront, path: str) -> None:
    token = customer.tokens.access_token
    kid = jwt.get_unverified_header(token)["kid"]
    [key] = [key for key in anyone.jwks().expect(200).keys if key.kid == kid]
    public_key = base64.urlsafe_b64decode(key.x + "=" * (-len(key.x) % 4))
    forgeries = [
        unsigned(token),
        signed_with_the_public_key(token, public_key),
        signed_by_another(token),
        signed_by_another(token, kid="unknown"),
        promoted(token),
        cut(token),
    ]
    customer.shop.call("GET", path).expect(200)
    for forgery in forgeries:
        anyone.bearing(forgery).call("GET", path).problem(401, "unauthenticated")


def test_a_forged_admin_is_401_at_the_catalogue(customer: Customer, anyone: Storefront) -> None:
    body = {
        "sku": unique_sku(),
        "name": "Kettle",
        "category": "never-made",
        "price": {"amount_minor": 1, "currency": "USD"},
    }
    for forgery in (promoted(customer.tokens.access_token), unsigned(promoted(customer.tokens.access_token))):
        anyone.bearing(forgery).create_product(body).problem(401, "unauthenticated")


def test_the_scheme_is_compared_without_case(customer: Customer, wire: httpx2.Client) -> None:
    headers = {"Authorization": f"bearer {customer.tokens.access_token}"}
    assert wire.get("/api/v1/users/me", headers=headers).status_code == 200
