"""The OpenAPI documents say what a client needs: every operation, its answers, and who may call it."""

from typing import Any

import pytest

from chassis.problems import MEDIA_TYPE
from tests.openapi import create_services

DOCUMENTS: dict[str, dict[str, Any]] = {service.service_name: service.openapi() for service in create_services()}
OPERATIONS = [
    pytest.param(service, path, method, id=f"{method.upper()} {path} ({service})")
    for service, document in DOCUMENTS.items()
    for path, operations in document["paths"].items()
    for method in operations
]
OPEN_TO_ALL = {
    ("post", "/api/v1/auth/register"),
    ("post", "/api/v1/auth/token"),
    ("post", "/api/v1/auth/revoke"),
    ("get", "/api/v1/auth/jwks"),
    ("get", "/api/v1/products"),
    ("get", "/api/v1/products/{product_id}"),
    ("get", "/api/v1/products/pictures/{name}.svg"),
    ("get", "/api/v1/categories"),
}


@pytest.mark.parametrize(("service", "path", "method"), OPERATIONS)
def test_an_operation_documents_its_answers(service: str, path: str, method: str) -> None:
    operation = DOCUMENTS[service]["paths"][path][method]
    responses = operation["responses"]
    assert operation["summary"]
    assert operation["description"], "the route has no docstring"
    assert any(status.startswith("2") for status in responses)
    assert "503" in responses
    for status, response in responses.items():
        assert response["description"]
        assert response["description"] != "Successful Response" or status.startswith("2")
        if int(status) >= 400:
            assert set(response["content"]) == {MEDIA_TYPE}
            assert "`)" in response["description"], "no problem's code is named"
    if "requestBody" in operation:
        assert {"413", "415", "422"} <= set(responses)


@pytest.mark.parametrize(("service", "path", "method"), OPERATIONS)
def test_an_operation_says_who_may_call_it(service: str, path: str, method: str) -> None:
    operation = DOCUMENTS[service]["paths"][path][method]
    schemes = {scheme for requirement in operation.get("security", []) for scheme in requirement}
    if (method, path) in OPEN_TO_ALL:
        assert not schemes
    elif path.startswith("/internal/"):
        assert schemes == {"service"}
        assert {"401", "403"} <= set(operation["responses"])
    else:
        assert schemes == {"user"}
        assert "401" in operation["responses"]


@pytest.mark.parametrize("service", DOCUMENTS)
def test_a_document_describes_the_problem_document_and_not_the_framework_s(service: str) -> None:
    schemas = DOCUMENTS[service]["components"]["schemas"]
    assert set(schemas["Problem"]["required"]) == {"type", "title", "status", "detail", "instance", "trace_id"}
    assert "HTTPValidationError" not in schemas


def test_operation_ids_are_unique() -> None:
    for document in DOCUMENTS.values():
        ids = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
        assert len(set(ids)) == len(ids)
