"""The admin's corner."""

import pytest

from tests.contract.client import Storefront
from tests.contract.shopping import Catalogue, Customer, buy, unique_sku
from tests.storefront.reader import Reader

PAGES = ["/admin", "/admin/products/new", "/admin/import", "/admin/orders"]


@pytest.mark.parametrize("path", PAGES)
def test_the_corner_is_for_admins(reader: Reader, customer: Customer, path: str) -> None:
    assert reader.get(path).path == "/sign-in"
    assert reader.sign_in(customer.email, customer.password, path).status == 403


def test_a_product_is_made_stocked_changed_and_retired(staff: Reader, reader: Reader, admin: Storefront) -> None:
    form = staff.get("/admin/products/new").form("/admin/products/new")
    sku = unique_sku()
    wrong = staff.send(form, sku=sku, name="", price="much", category="No Slug", attributes="colour")
    assert wrong.status == 422
    made = staff.send(
        form,
        sku=sku,
        name="Brass lantern",
        price="24,50",
        category="lamps",
        tags="brass, light",
        attributes="colour: gold\nheight_mm: 300",
    )
    product_id = made.path.rpartition("/")[2]
    product = admin.product(product_id).expect(200)
    assert (product.price.amount_minor, product.tags) == (2450, ["brass", "light"])
    assert product.attributes == {"colour": "gold", "height_mm": "300"}
    again = staff.send(form, sku=sku, name="Brass lantern", price="1", category="lamps")
    assert "belongs to a product already" in again.text
    stocked = staff.send(made.form(f"/admin/products/{product_id}/stock"), delta="+20", reason="received")
    assert "20 available" in stocked.text
    short = staff.send(made.form(f"/admin/products/{product_id}/stock"), delta="-21", reason="lost")
    assert (short.status, "less than what is reserved" in short.text) == (422, True)
    for delta in ("--5", "²", "-", "1.5", "ten", "1" * 10):
        refused = staff.send(made.form(f"/admin/products/{product_id}/stock"), delta=delta, reason="counted")
        assert (refused.status, "must be a number" in refused.text) == (422, True)
    stale = stocked.form(f"/admin/products/{product_id}")
    assert "Saved" in staff.send(stale, name="Brass lamp").text
    conflict = staff.send(stale, name="Copper lamp")
    assert (conflict.status, "Somebody else has changed" in conflict.text) == (409, True)
    assert admin.product(product_id).expect(200).name == "Brass lamp"
    staff.send(conflict.form(f"/admin/products/{product_id}/retire"))
    assert admin.product(product_id).problem(404, "not-found")
    assert reader.get(f"/products/{product_id}").status == 404


def test_an_import_says_what_became_of_its_lines(staff: Reader) -> None:
    skus = unique_sku(), unique_sku()
    lines = (
        "sku,name,category,price_minor,currency,on_hand\n"
        f"{skus[0]},Thing,things,1999,USD,7\n"
        f"{skus[1]},,things,1,USD,1\n"
    )
    form = staff.get("/admin/import").form("/admin/import")
    answer = staff.client.post(form.action, files={"file": ("goods.csv", lines, "text/csv")})
    assert answer.status_code == 200
    assert "1 created, 0 updated, 1 rejected" in answer.text
    assert '<td class="number">3</td>' in answer.text
    refused = staff.client.post(form.action, files={"file": ("goods.exe", b"MZ", "text/csv")})
    assert (refused.status_code, "ends in .csv" in refused.text) == (422, True)
    nonsense = staff.client.post(form.action, files={"file": ("goods.csv", b"no,such,columns\n1,2,3\n", "text/csv")})
    assert (nonsense.status_code, "The file was not taken" in nonsense.text) == (422, True)


def test_an_order_is_shipped_delivered_and_paid_back_in_part(
    staff: Reader, customer: Customer, catalogue: Catalogue
) -> None:
    order = buy(customer, (catalogue.product(stock=3, price_minor=3000), 1))
    path = f"/admin/orders/{order.id}"
    listed = staff.get("/admin/orders")
    assert path in listed.links
    shipped = staff.send(listed.form(f"{path}/ship"))
    assert "On its way" in shipped.text
    assert staff.send(listed.form(f"{path}/ship")).status == 409
    staff.send(shipped.form(f"{path}/deliver"))
    assert customer.shop.order(order.id).expect(200).status == "delivered"
    refund = staff.get(path).form(f"{path}/payments/{order.payment_id}/refund")
    assert "more than what is left" in staff.send(refund, amount="30.01", reason="scratched").text
    part = staff.send(refund, amount="10.00", reason="scratched")
    assert "$10.00 came back" in part.text
    assert "$10.00 came back" in staff.send(refund, amount="10.00", reason="scratched").text, "the same form is once"
    other = staff.send(refund, amount="5.00", reason="bent")
    assert (other.status, "some other was meanwhile" in other.text) == (422, True)
    rest = staff.get(path).form(f"{path}/payments/{order.payment_id}/refund")
    assert "$30.00 came back" in staff.send(rest, amount="", reason="broken").text
