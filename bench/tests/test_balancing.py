"""The comparison of balancers without a cluster: what is made of the callers' lines, and callers on real sockets."""

import re
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from threading import Lock, Thread
from time import sleep
from typing import Any, cast

import kubernetes_validate  # pyright: ignore[reportMissingTypeStubs] - it has none
import pytest

from bench.balancing import caller, measure, report, seen, ways
from bench.balancing.measure import Answer
from bench.balancing.run import PROGRAM, USUAL, Result
from chassis.migrations import ROOT
from deploy.commands import Object
from deploy.manifests import parsed
from deploy.terminal import Failed
from tests.manifests import container, environment, kustomized, labels, name_of, of_kind, overlay, pod
from tests.test_manifests import KUBERNETES

FOLDER = ROOT / "k8s" / "labs" / "balancing"
PODS = ("a", "b", "c")


def answers(replicas: str, *, every_s: float = 0.1, begins: float = 0.0, took_s: float = 0.01) -> list[Answer]:
    """An answer of each of these pods, one after the other, `-` where none came."""
    found: list[Answer] = []
    for number, replica in enumerate(replicas):
        due = begins + number * every_s
        outcome, who = ("TimeoutError", "") if replica == "-" else ("200", replica)
        found.append(Answer(due, due, due + took_s, outcome, who))
    return found


# What is made of the lines


def test_lines_are_read_and_none_may_be_missing() -> None:
    rows = ("answer,5.1,5.2,5.4,200,a", "answer,5.3,5.3,8.3,TimeoutError,")
    lines = ["began,5.0", *rows, "something else", "end,2,0.25,0.1"]
    load = measure.read(lines)
    assert (load.began, load.cores, load.latest_s) == (5.0, 0.25, 0.1)
    assert [each.failed for each in load.answers] == [False, True]
    assert load.answers[0].latency_s == pytest.approx(0.3)  # from when it was due, not from when it was sent
    with pytest.raises(ValueError, match="3 requests were sent, and 2"):
        measure.read([*lines[:-1], "end,3,0.25,0.1"])
    with pytest.raises(ValueError, match="broke off after 2"):
        measure.read(lines[:-1])


@pytest.mark.parametrize(
    ("replicas", "spread"), [("abcabc", 1.0), ("aabc", 1.5), ("aab", 2.0), ("aaa", 3.0), ("ab-c-", 1.0)]
)
def test_spread_is_the_most_over_the_mean_of_all_pods_also_of_the_idle(replicas: str, spread: float) -> None:
    assert measure.spread(answers(replicas), PODS) == pytest.approx(spread)


def test_a_percentile_is_that_of_the_nearest_rank_with_those_that_failed() -> None:
    found = [Answer(0, 0, number / 100, "200" if number < 100 else "TimeoutError", "a") for number in range(1, 101)]
    assert measure.percentile(found, 50) == pytest.approx(0.5)
    assert measure.percentile(found, 99) == pytest.approx(0.99)
    assert measure.percentile(found, 100) == pytest.approx(1.0)
    assert measure.failures(found) == 1


def test_a_death_harms_until_the_last_request_that_failed_or_was_late() -> None:
    found = [*answers("abc--a", begins=10), *answers("a", begins=13, took_s=0.7), *answers("abc", begins=14)]
    assert measure.harmed_for(found, 10.25, 0.5) == pytest.approx(2.75)
    assert measure.harmed_for(found, 10.25, 1.0) == pytest.approx(0.15)
    assert measure.harmed_for(answers("abc"), 0.0, 0.5) == 0
    assert measure.harmed_for(answers("--abc"), 0.3, 0.5) == 0  # what had failed before


def test_a_new_pod_is_taken_up_with_its_first_request_and_fairly_with_half_of_an_equal_share() -> None:
    # Ten requests a second: one at the new pod `d`, less than an eighth of a window, and every third from 3 s on.
    found = answers("abcabcabca" + "abcdabcabc" + "abcabcabca" + "abdabdabda" * 3)
    assert measure.first_after(found, "d", 0.5) == pytest.approx(0.8)
    assert measure.fair_after(found, "d", 4, 0.5) == pytest.approx(2.7)


@pytest.mark.parametrize("replicas", ["abc" * 10, "abc" * 10 + "d", "dd" + "abc" * 10])
def test_a_pod_that_gets_nothing_for_long_was_not_taken_up_fairly(replicas: str) -> None:
    assert measure.fair_after(answers(replicas), "d", 4, 0.0) is None


def test_who_gets_no_request_has_no_first_one() -> None:
    assert measure.first_after(answers("abc"), "d", 0.0) is None


def result(**changes: Any) -> Result:
    """A result in which all is equal."""
    found = answers("abc" * 10)
    fields: dict[str, Any] = {
        "equal": found, "pods": PODS, "slow": found, "slow_pod": "a", "dead": found, "died_at": 0.0,
        "added": answers("abcd" * 10), "added_pods": (*PODS, "d"), "new_pod": "d", "ready_at": 0.0,
        "cores": 0.1, "latest_s": 0.01,
    }  # fmt: skip
    return Result(**(fields | changes))


def test_a_line_of_the_table_has_its_figures_below_its_head(tmp_path: Path) -> None:
    row = report.row("nginx", "round robin", "kept", result(slow=answers("bc-a" * 10), added=answers("abc" * 10)))
    head, line = report.HEAD[1], report.line(row)
    assert len(head) == len(line)
    assert [place for place, letter in enumerate(head) if letter == "|"] == [
        place for place, letter in enumerate(line) if letter == "|"
    ]
    assert line.split() == (
        "nginx round robin kept 1.00 10 10 0 | 33% 10 10 10 | 10 0 0.0 | 10 0 never never".replace("|", " | ").split()
    )
    report.write([row], tmp_path / "table.json")
    assert report.read(tmp_path / "table.json") == [row]


# Ways


def test_ways_are_chosen_by_parts_of_their_names() -> None:
    assert ways.chosen("") == list(ways.WAYS)
    two = ways.chosen("iptables, haproxy least")
    assert [str(way) for way in two] == ["kube-proxy iptables", "HAProxy least connections"]
    with pytest.raises(Failed, match="envoy: is no way; there are kube-proxy iptables; "):
        ways.chosen("envoy")


@pytest.mark.parametrize(
    ("config", "mode"), [("a: 1\nmode: nftables\n", "nftables"), ('mode: ""\n', "iptables"), ('mode: "ipvs"', "ipvs")]
)
def test_the_mode_of_kube_proxy_is_read_from_its_settings(config: str, mode: str) -> None:
    assert ways.mode_of(config) == mode


# Callers


class Server(ThreadingHTTPServer):
    """A server that says who it is, and answers one request at a time, each after so many seconds."""

    def __init__(self, name: str, takes_s: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.name, self.takes_s = name, takes_s
        self.connections = 0
        self.one_at_a_time = Lock()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def at(self) -> Server:
        """The server, by its own type."""
        return cast("Server", self.server)

    def setup(self) -> None:
        self.at.connections += 1
        super().setup()

    def do_GET(self) -> None:
        with self.at.one_at_a_time:
            sleep(self.at.takes_s)
        self.send_response(200)
        self.send_header("Server-Timing", f'app;dur=0.1, replica;desc="{self.at.name}:8002", retries;desc="0"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(name: str, takes_s: float = 0.0) -> Generator[Server]:
    """A server at work."""
    with Server(name, takes_s) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def called(urls: str, *options: str, rate: float = 50, told: str = "1.0\n") -> measure.Load:
    """What callers print, run as they are in their pod."""
    command = (
        sys.executable, "-c", PROGRAM, f"--url={urls}", "--path=/{number}", "--callers=2", f"--rate={rate}",
        "--timeout=3", "--seed=7", *options,
    )  # fmt: skip
    ran = subprocess.run(command, input=told, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.stderr == ""
    return measure.read(ran.stdout.splitlines())


def test_moments_follow_from_the_seed_at_the_rate() -> None:
    first = list(islice(caller.moments(60, 7), 6000))
    assert first == list(islice(caller.moments(60, 7), 6000))
    assert first != list(islice(caller.moments(60, 8), 6000))
    assert first == sorted(first)
    assert first[-1] == pytest.approx(100, rel=0.05)


def test_callers_keep_their_connections_or_open_one_for_each_request() -> None:
    with serving("a") as server:
        load = called(server.origin)
        kept = server.connections
        assert {each.replica for each in load.answers} == {"a"}
        assert measure.failures(load.answers) == 0
        assert kept < len(load.answers) / 2
        load = called(server.origin, "--anew")
        assert server.connections - kept == len(load.answers)


def test_a_request_that_waits_its_turn_is_timed_from_when_it_was_due() -> None:
    with serving("a", takes_s=0.1) as server:
        load = called(server.origin, rate=30, told="0.8\n")  # three times what the server can do
    latest = max(load.answers, key=lambda each: each.due)
    assert latest.latency_s > 3 * 0.1


def test_callers_of_several_endpoints_leave_the_dead_one_out() -> None:
    with serving("c") as dead:
        pass
    with serving("b") as server:
        load = called(f"{server.origin},{dead.origin}")
    assert measure.failures(load.answers) == 0
    assert measure.share(load.answers, "b") == 1


def test_without_any_endpoint_each_request_fails_and_none_is_lost() -> None:
    with serving("a") as dead:
        pass
    load = called(dead.origin)
    assert load.answers
    assert measure.failures(load.answers) == len(load.answers)
    assert {each.outcome for each in load.answers} == {"ConnectError"}


def test_callers_whom_nobody_tells_when_to_end_end_at_once() -> None:
    with serving("a") as server:
        load = called(server.origin, told="")
    assert len(load.answers) < 50


# The manifests


def objects() -> list[Object]:
    """What the lab applies, but for the kinds that are Traefik's own."""
    return [item for item in parsed(kustomized(FOLDER)) if not item["apiVersion"].startswith("traefik.io/")]


@pytest.mark.parametrize("item", objects(), ids=name_of)
def test_each_object_of_the_lab_is_as_its_schema_says(item: Object) -> None:
    kubernetes_validate.validate(item, KUBERNETES, strict=True)
    assert item["metadata"]["namespace"] == "souk"
    assert item["metadata"]["name"].startswith("balancing")


def test_pods_of_the_lab_are_restricted_and_nobody_else_s() -> None:
    deployments = of_kind(objects(), "Deployment")
    assert set(deployments) == {"balancing", "balancing-caller", "balancing-traefik"}
    for name, workload in deployments.items():
        assert labels(workload)["app.kubernetes.io/name"] == name
        assert pod(workload)["securityContext"]["runAsNonRoot"] is True
        assert container(workload)["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    for service in of_kind(objects(), "Service").values():
        assert service["spec"]["selector"]["app.kubernetes.io/name"] in deployments


def test_pods_of_the_lab_are_the_shop_s_but_that_they_are_one_a_node_and_say_who_they_are() -> None:
    ours, shops = of_kind(objects(), "Deployment")["balancing"], of_kind(overlay("base"), "Deployment")["product"]
    for part in ("image", "resources", "readinessProbe", "livenessProbe", "startupProbe", "volumeMounts"):
        assert container(ours)[part] == container(shops)[part], part
    assert environment(ours)["SERVER_TIMING"] == "yes"
    assert environment(ours)["USER_URL"] == environment(shops)["USER_URL"]
    assert container(ours)["resources"]["requests"]["cpu"] == USUAL["requests"]
    assert container(ours)["resources"]["limits"]["cpu"] == USUAL["limits"]


def test_balancers_outside_know_the_node_port_on_every_node_and_a_port_for_each_strategy() -> None:
    (port,) = of_kind(objects(), "Service")["balancing-nodes"]["spec"]["ports"]
    nodes = {"souk-control-plane", "souk-worker", "souk-worker2", "souk-worker3"}
    nginx, haproxy = ((FOLDER / "outside" / name).read_text() for name in ("nginx.conf", "haproxy.cfg"))
    found = re.findall(r"server (souk-[\w-]+):(\d+)", nginx)
    assert set(found) == {(node, str(port["nodePort"])) for node in nodes}
    assert len(found) == len(nodes) * len(ways.PORTS)
    assert {int(each) for each in re.findall(r"listen (\d+)", nginx)} == set(ways.PORTS.values())
    assert set(re.findall(r"(souk-[\w-]+):(\d+)", haproxy)) == set(found)


def test_traefik_has_a_route_for_each_strategy() -> None:
    (route,) = [item for item in parsed(kustomized(FOLDER)) if item["kind"] == "IngressRoute"]
    found = {(each["match"], each["services"][0]["strategy"]) for each in route["spec"]["routes"]}
    assert found == {(f"Host(`{way.how}`)", way.how) for way in ways.WAYS if way.who == "Traefik"}
    kinds = {item["spec"]["names"]["kind"] for item in parsed((FOLDER / "traefik-kinds.yaml").read_text())}
    assert {"IngressRoute", "Middleware"} <= kinds


# What the page says


def test_a_sentence_holds_or_names_the_rows_that_refute_it_or_was_not_measured() -> None:
    equal = report.row("nginx", "round robin", "kept", result(slow=answers("abc-" * 10)))
    idle = report.row("HAProxy", "round robin", "anew", result(slow=answers("bc-bc" * 10)))
    said = seen.judged([equal])
    assert "holds: who goes round still has a fifth of all answers or more from a slow pod" in said
    assert "not measured: who looks at what is under way has less than a quarter from it" in said
    said = seen.judged([equal, idle])
    assert (
        "not of HAProxy round robin anew: who goes round still has a fifth of all answers or more from a slow pod"
        in said
    )
    assert len(said) == len(seen.SENTENCES)
