"""The storefront contract, walked from outside: written from the API's page alone, run against a whole shop."""

import pytest

# Before their first import, so that a failing check in them shows the values that it compared.
pytest.register_assert_rewrite("tests.contract.client", "tests.contract.shopping")
