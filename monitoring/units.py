"""Numbers as Grafana writes them, in the units that the dashboards use.

https://github.com/grafana/grafana/blob/main/packages/grafana-data/src/valueFormats/categories.ts
"""

import math
from collections.abc import Sequence

TIMES = (
    (1e-3, 1e-6, " µs"),
    (1.0, 1e-3, " ms"),
    (60.0, 1.0, " s"),
    (3600.0, 60.0, " min"),
    (86400.0, 3600.0, " h"),
    (math.inf, 86400.0, " d"),
)
SIZES = ((2.0**10, 1.0, " B"), (2.0**20, 2.0**10, " KiB"), (2.0**30, 2.0**20, " MiB"), (math.inf, 2.0**30, " GiB"))
COUNTS = ((1e3, 1.0, ""), (1e6, 1e3, " K"), (1e9, 1e6, " Mil"), (math.inf, 1e9, " Bil"))
SUFFIX = "suffix:"


def shown(value: float, unit: str, decimals: int | None = None) -> str:
    """A value with its unit; without `decimals` as many as three digits need."""
    if not math.isfinite(value):
        return "no data"
    match unit:
        case "percentunit":
            return _digits(value * 100, decimals) + "%"
        case "s":
            # Grafana gives nought no smaller unit.
            return _scaled(value, TIMES, decimals) if value else "0 s"
        case "bytes":
            return _scaled(value, SIZES, decimals)
        case "reqps":
            return _scaled(value, COUNTS, decimals) + " req/s"
        case "short":
            return _scaled(value, COUNTS, decimals)
        case _ if unit.startswith(SUFFIX):
            return _scaled(value, COUNTS, decimals) + unit.removeprefix(SUFFIX)
        case _:
            raise ValueError(f"no dashboard has the unit {unit}")


def _scaled(value: float, scale: Sequence[tuple[float, float, str]], decimals: int | None) -> str:
    divisor, name = next((divisor, name) for below, divisor, name in scale if abs(value) < below)
    return _digits(value / divisor, decimals) + name


def _digits(value: float, decimals: int | None) -> str:
    if decimals is None:
        decimals = 0 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
        return f"{value:.{min(decimals, 6)}f}".rstrip("0").rstrip(".") if decimals else f"{value:.0f}"
    return f"{value:.{decimals}f}"
