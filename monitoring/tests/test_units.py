import pytest

from monitoring.units import shown


@pytest.mark.parametrize(
    ("value", "unit", "decimals", "text"),
    [
        (0.9987, "percentunit", 2, "99.87%"),
        (1, "percentunit", 0, "100%"),
        (0.05, "percentunit", None, "5%"),
        (0, "s", None, "0 s"),
        (0.00042, "s", None, "420 µs"),
        (0.25, "s", None, "250 ms"),
        (1.5, "s", None, "1.5 s"),
        (90, "s", None, "1.5 min"),
        (7_776_000, "s", 0, "90 d"),
        (104_857_600, "bytes", None, "100 MiB"),
        (512, "bytes", None, "512 B"),
        (1234, "short", None, "1.23 K"),
        (0, "short", None, "0"),
        (2.5, "reqps", None, "2.5 req/s"),
        (12, "suffix:/min", None, "12/min"),
        (float("nan"), "s", None, "no data"),
    ],
)
def test_a_value_is_written_with_its_unit(value: float, unit: str, decimals: int | None, text: str) -> None:
    assert shown(value, unit, decimals) == text


def test_a_unit_that_no_dashboard_has_is_an_error() -> None:
    with pytest.raises(ValueError, match="furlong"):
        shown(1, "furlong")
