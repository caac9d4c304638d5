from collections.abc import Iterator

import orjson
import pytest

from bench import load, measure
from local.ports import free_ports

BODY = "x" * 100_000
"""More than one read of a socket brings."""


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[measure.ServerProcess]:
    answer = tmp_path_factory.mktemp("bare") / "answer.json"
    answer.write_bytes(orjson.dumps({"headers": [["Content-Length", str(len(BODY))]], "body": BODY}))
    port = free_ports(1)
    with measure.server("bench.bare", str(port), str(answer), port=port, ready="/") as process:
        yield process


def test_every_request_is_sent_once_and_its_answer_counted(bare: measure.ServerProcess) -> None:
    sent = load.run(bare.port, [load.request("POST", f"/{number}", body=b"{}") for number in range(100)], connections=8)
    assert sent.requests == 100


def test_requests_are_repeated_for_the_time_given(bare: measure.ServerProcess) -> None:
    sent = load.run(bare.port, load.again_and_again([load.request("GET", "/")], 0.2), connections=2)
    assert sent.elapsed_s >= 0.2
    assert sent.requests > 2


def test_wrong_status_ends_the_measurement(bare: measure.ServerProcess) -> None:
    with pytest.raises(load.UnexpectedAnswer, match=r"GET /a .* was answered .*200 OK"):
        load.run(bare.port, [load.request("GET", "/a", expected=(404,))], connections=1)


def test_connection_that_the_server_closes_ends_the_measurement(bare: measure.ServerProcess) -> None:
    with pytest.raises(load.UnexpectedAnswer, match="closed the connection"):
        load.run(bare.port, [load.request("GET", "/", headers={"connection": "close"})] * 2, connections=1)


def test_cost_is_the_cpu_time_of_the_server_shared_among_the_requests(bare: measure.ServerProcess) -> None:
    before_s = bare.cpu_s()
    requests = [load.request("GET", "/")] * 2000
    cost = measure.cost([bare], bare.port, requests, connections=8)
    # The division of `cost` itself, so that the rounding is the same: times are in ticks of 10 ms, and often equal.
    assert 0 < cost.cpu_us <= (bare.cpu_s() - before_s) / len(requests) * 1e6
    assert cost.per_second > 0


def test_rounds_alternate_and_their_medians_are_taken() -> None:
    taken: list[str] = []
    costs = iter([1.0, 10.0, 9.0, 30.0, 2.0, 20.0])

    def measurement(name: str) -> measure.Cost:
        taken.append(name)
        return measure.Cost(cpu_us := next(costs), 1 / cpu_us)

    unit, other = measure.side_by_side(lambda: measurement("unit"), lambda: measurement("other"), rounds=3)
    assert taken == ["unit", "other"] * 3
    assert (unit.cpu_us, other.cpu_us) == (2.0, 20.0)


def test_server_that_does_not_start_is_told_at_once() -> None:
    with pytest.raises(ChildProcessError, match=r"bench\.bare"):
        measure.server("bench.bare", "not-a-port", port=free_ports(1)).__enter__()
