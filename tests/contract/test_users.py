"""The profile, the address book, and the list of users."""

from typing import Any

import pytest

from tests.contract.client import Json, SavedAddress, Storefront, pages
from tests.contract.shopping import ADDRESS, PASSWORD, Customer, new_customer, short, unique_email

NEW_PASSWORD = "a password of another kind"


# Profile


def test_the_profile_is_the_registered_user(anyone: Storefront) -> None:
    email = unique_email()
    registered = anyone.register(email=email, password=PASSWORD, name="Ada").expect(201)
    tokens = anyone.log_in(email, PASSWORD).expect(200)
    assert anyone.bearing(tokens.access_token).me().expect(200) == registered


def test_a_name_is_changed(customer: Customer) -> None:
    changed = customer.shop.change_me(name="Grace Example").expect(200)
    assert changed.name == "Grace Example"
    assert customer.shop.me().expect(200) == changed


@pytest.mark.parametrize("name", [None, 1, [], "x" * 101, "NUL \0"], ids=short)
def test_a_name_that_cannot_be_is_422(customer: Customer, name: Any) -> None:
    customer.shop.change_me(name=name).invalid("name")
    assert customer.shop.me().expect(200).name == customer.name


@pytest.mark.parametrize("field", ["email", "role", "id", "created_at"])
def test_the_rest_of_the_profile_is_not_the_callers_to_change(customer: Customer, field: str) -> None:
    before = customer.shop.me().expect(200)
    customer.shop.change_me(**{field: "admin"}).invalid(field)
    assert customer.shop.me().expect(200) == before


def test_a_password_change_ends_every_refresh_token(customer: Customer, anyone: Storefront) -> None:
    other_session = anyone.log_in(customer.email, customer.password).expect(200)
    customer.shop.change_me(password=NEW_PASSWORD, current_password=customer.password).expect(200)
    for ended in (customer.tokens, other_session):
        anyone.refresh(ended.refresh_token).problem(401, "unauthenticated")
    anyone.log_in(customer.email, customer.password).problem(401, "unauthenticated")
    anyone.log_in(customer.email, NEW_PASSWORD).expect(200)


def test_a_password_is_not_changed_by_a_wrong_one(customer: Customer, anyone: Storefront) -> None:
    answer = customer.shop.change_me(password=NEW_PASSWORD, current_password="wrong password")
    answer.problem(403, "wrong-password")
    anyone.refresh(customer.tokens.refresh_token).expect(200)
    anyone.log_in(customer.email, customer.password).expect(200)


def test_a_password_is_not_changed_without_the_current_one(customer: Customer, anyone: Storefront) -> None:
    customer.shop.change_me(password=NEW_PASSWORD).invalid("current_password")
    anyone.log_in(customer.email, customer.password).expect(200)


@pytest.mark.parametrize("password", ["7 chars", "x" * 129, 1, "NUL in the middle \0"], ids=short)
def test_a_new_password_keeps_the_limits(customer: Customer, password: Any) -> None:
    customer.shop.change_me(password=password, current_password=customer.password).invalid("password")


def test_a_deleted_user_is_gone_and_the_email_free(customer: Customer, anyone: Storefront) -> None:
    customer.shop.delete_me().empty(204)
    anyone.refresh(customer.tokens.refresh_token).problem(401, "unauthenticated")
    anyone.log_in(customer.email, customer.password).problem(401, "unauthenticated")
    successor = new_customer(anyone, email=customer.email)
    assert successor.id != customer.id
    assert successor.shop.addresses().expect(200).items == []


# Address book


def shape_of(address: SavedAddress) -> Json:
    """Give an address as it was sent."""
    return address.model_dump(exclude={"id"})


def test_an_address_is_kept_replaced_and_deleted(customer: Customer) -> None:
    shop = customer.shop
    added = shop.add_address(ADDRESS).expect(201)
    assert shape_of(added) == ADDRESS
    assert shop.addresses().expect(200).items == [added]
    replacement = {**ADDRESS, "name": "Grace Example", "country": "NO", "postal_code": "0150"}
    replaced = shop.replace_address(added.id, replacement).expect(200)
    assert replaced.id == added.id
    assert shape_of(replaced) == replacement
    assert shop.addresses().expect(200).items == [replaced]
    shop.delete_address(added.id).empty(204)
    assert shop.addresses().expect(200).items == []
    shop.delete_address(added.id).problem(404, "not-found")
    shop.replace_address(added.id, ADDRESS).problem(404, "not-found")


def test_replacing_an_address_leaves_nothing_of_the_old_one(customer: Customer) -> None:
    added = customer.shop.add_address(ADDRESS).expect(201)
    body = {name: value for name, value in ADDRESS.items() if name not in {"line2", "region"}}
    replaced = customer.shop.replace_address(added.id, body).expect(200)
    assert replaced.line2 is None
    assert replaced.region is None


@pytest.mark.parametrize("missing", ["name", "line1", "city", "postal_code", "country"])
def test_an_address_needs_its_fields(customer: Customer, missing: str) -> None:
    body = {name: value for name, value in ADDRESS.items() if name != missing}
    customer.shop.add_address(body).invalid(missing)
    added = customer.shop.add_address(ADDRESS).expect(201)
    customer.shop.replace_address(added.id, body).invalid(missing)


@pytest.mark.parametrize("left_out", ["line2", "region"])
def test_an_address_may_do_without_the_second_line_and_the_region(customer: Customer, left_out: str) -> None:
    body = {name: value for name, value in ADDRESS.items() if name != left_out}
    assert shape_of(customer.shop.add_address(body).expect(201)) == {**ADDRESS, left_out: None}


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", "n" * 100), ("line1", "é" * 200), ("line2", "l" * 200), ("postal_code", "1" * 20)],
    ids=short,
)
def test_the_longest_parts_of_an_address_are_taken(customer: Customer, field: str, value: str) -> None:
    body = {**ADDRESS, field: value}
    assert shape_of(customer.shop.add_address(body).expect(201)) == body


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "n" * 101),
        ("line1", "l" * 201),
        ("line2", "l" * 201),
        ("postal_code", "1" * 21),
        ("country", "USA"),
        ("country", "U"),
        ("country", "12"),
        ("country", ""),
        ("country", "Ŭ§"),
        ("name", 1),
        ("line1", None),
        ("city", ["Oslo"]),
        ("city", "NUL \0"),
        ("region", "NUL \0"),
        ("id", "01890a5d-ac96-774b-bcce-b302099a8057"),
    ],
    ids=short,
)
def test_an_address_that_cannot_be_is_422(customer: Customer, field: str, value: Any) -> None:
    customer.shop.add_address({**ADDRESS, field: value}).invalid(field)
    assert customer.shop.addresses().expect(200).items == []


def test_the_address_book_is_paged(customer: Customer) -> None:
    added = {customer.shop.add_address({**ADDRESS, "name": f"Name {n}"}).expect(201).id for n in range(5)}
    read = pages(customer.shop.addresses, limit=2)
    assert [len(page) for page in read][:2] == [2, 2]
    listed = [address.id for page in read for address in page]
    assert len(listed) == len(added)
    assert set(listed) == added


# List of users


def test_admins_find_a_user_by_email_in_any_case(admin: Storefront, customer: Customer) -> None:
    user = customer.shop.me().expect(200)
    for email in (customer.email, customer.email.upper()):
        page = admin.users(email=email).expect(200)
        assert page.items == [user]
        assert page.next_cursor is None


def test_an_email_that_nobody_has_finds_nobody(admin: Storefront) -> None:
    assert admin.users(email=unique_email()).expect(200).items == []


def test_nul_in_the_email_asked_for_is_refused(admin: Storefront) -> None:
    admin.users(email="a\0@example.com").invalid("email")


def test_users_are_paged(admin: Storefront, customer: Customer, stranger: Customer) -> None:
    listed = [user.id for page in pages(admin.users, limit=100) for user in page]
    assert len(listed) == len(set(listed))
    assert {customer.id, stranger.id} <= set(listed)


def test_a_cursor_of_users_holds_for_its_filter_only(admin: Storefront, customer: Customer) -> None:
    cursor = admin.users(limit=1).expect(200).next_cursor
    assert cursor is not None
    admin.users(cursor=cursor, limit=2).expect(200)
    admin.users(cursor=cursor, email=customer.email).problem(400, "invalid-cursor")


def test_the_admin_has_the_role_of_admin(admin: Storefront) -> None:
    assert admin.me().expect(200).role == "admin"
