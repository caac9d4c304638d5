"""What is made of the kubelets' figures."""

from bench.cluster import Row, Usage, note, table
from deploy.manifests import MEBI


def said(second: int, used_s: float, mebibytes: float) -> dict[str, dict[str, object]]:
    """A pod as a kubelet tells of it."""
    return {
        "cpu": {"time": f"2026-11-25T10:00:{second:02}Z", "usageCoreNanoSeconds": used_s * 1e9},
        "memory": {"workingSetBytes": mebibytes * MEBI},
    }


def test_a_usage_is_the_cpu_between_two_looks_by_the_kubelets_own_clock() -> None:
    usage = Usage("order")
    for second, used_s in ((0, 5.0), (0, 5.0), (10, 6.0), (30, 6.5)):
        note(usage, said(second, used_s, 60 + second))
    assert usage.rates == [0.1, 0.025]
    assert usage.mean == 0.05
    assert max(usage.memory) == 90 * MEBI


def test_the_last_line_is_the_sum_over_all_pods() -> None:
    rows = [
        Row("order", 3, (0.05, 68 * MEBI), (1.0, 256 * MEBI), 0.1, 0.2, 70 * MEBI),
        Row("postgres", 1, (0.15, 192 * MEBI), (2.0, 512 * MEBI), 0.4, 0.5, 150 * MEBI),
    ]
    assert table(rows).splitlines()[2:] == [
        "| order | 3 | 50m | 100m | 200m | 1000m | 68 Mi | 70 Mi | 256 Mi |",
        "| postgres | 1 | 150m | 400m | 500m | 2000m | 192 Mi | 150 Mi | 512 Mi |",
        "| all | 4 | 300m | 700m | | | 396 Mi | 360 Mi | |",
    ]
