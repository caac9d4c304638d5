"""What a run shows: percentiles, bins, the knee, and whether it may be believed and keeps its limits."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import median

from drills.report import percentile
from loadtests.record import WRONG, Request, Rows, Sample
from loadtests.shape import Limit, Shape

FEWEST_BINS = 20
MOST_BINS = 120
KNEE_BINS = 60
CALM_SHARE = 0.1
"""The first part of a ramp, in which the shop is taken to follow: what it takes there is what it takes unloaded."""
SLOWER_TIMES = 3.0
SLOWER_MS = 50.0
"""A bin is over the knee where its p95 is three times the unloaded one and 50 ms more than it at least ..."""
FAILING_SHARE = 0.01
"""... or where one in a hundred fails ..."""
IN_A_ROW = 3
"""... and so are the two after it: one slow bin is a hiccup."""
BUSY_CPU = 0.9
"""Cores of one generator process. It is one event loop, which at this has to queue what it should send: Locust warns at
the same value (`CPU_WARNING_THRESHOLD`).
"""
LATE_S = 0.1
"""An event loop as late as this adds to each latency what the shop did not take."""
MOST_BUSY_SHARE = 0.05
"""Of the seconds that are measured: in more, the generator was the bottleneck. Ours."""


class Verdict(StrEnum):
    """What a run comes to."""

    PASSED = "passed"
    FAILED = "failed"
    INVALID = "invalid"
    """The generator was the bottleneck, or not all that it did is written down: the figures are not the shop's."""
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class Latencies:
    """Nearest-rank percentiles in milliseconds."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True, slots=True)
class Call:
    """All judged requests of one kind."""

    call: str
    sent: int
    failed: int
    latency: Latencies
    """From when each should have been sent."""
    service: Latencies
    """From when each was sent."""


@dataclass(frozen=True, slots=True)
class Bin:
    """A stretch of the run. A request is in the bin in which it was due: overload is shown where it was offered."""

    begins_s: float
    seconds: float
    arrival_rate: float
    """Shoppers a second that the shape offers in the middle of it."""
    sent: int
    failed: int
    latency: Latencies | None
    """None where nothing was due."""
    service: Latencies | None

    @property
    def failed_share(self) -> float:
        """The part of what was due that failed."""
        return self.failed / self.sent if self.sent else 0.0


@dataclass(frozen=True, slots=True)
class Knee:
    """The last moment at which the shop followed."""

    at_s: float
    arrival_rate: float
    request_rate: float
    unloaded_p95_ms: float
    why: str
    """What the bins after it show."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A limit, what was measured, and whether it is kept."""

    text: str
    measured: str
    kept: bool


@dataclass(slots=True)
class Findings:
    """All of it, as the report shows it."""

    rows: Rows
    measured: list[Request]
    """Due after the warm-up and before the end."""
    calls: list[Call]
    bins: list[Bin]
    knee: Knee | None
    judgements: list[Judgement]
    doubts: list[str]
    """Why the figures may not be believed; empty where they may."""
    interrupted: bool
    violations: list[str] = field(default_factory=list[str])
    """What the audit said, where it was not clean."""

    @property
    def verdict(self) -> Verdict:
        """A wrong answer or an unclean audit stays one, whatever else is to be said of the run."""
        if self.violations or any(request.failure == WRONG for request in self.rows.requests):
            return Verdict.FAILED
        if self.interrupted:
            return Verdict.INTERRUPTED
        if self.doubts:
            return Verdict.INVALID
        return Verdict.PASSED if all(each.kept for each in self.judgements) else Verdict.FAILED

    @property
    def failures(self) -> Counter[str]:
        """Failed requests that are measured, by kind."""
        return Counter(request.failure for request in self.measured if request.failure)

    @property
    def reasons(self) -> list[str]:
        """Why the run did not pass, a line each."""
        broken = [f"{each.text}: {each.measured}" for each in self.judgements if not each.kept]
        return [*self.violations, *broken, *self.doubts]


def find(rows: Rows, shape: Shape, *, interrupted: bool = False, violations: Collection[str] = ()) -> Findings:
    """Judge what was recorded under a shape."""
    ended_s = max((request.ended_s for request in rows.requests), default=0.0)
    ends_s = min(shape.ends_s, ended_s) if interrupted else shape.ends_s
    measured = [request for request in rows.requests if shape.warm_up_s <= request.due_s < ends_s]
    bins = binned(rows.requests, shape, ends_s, most=KNEE_BINS if shape.find_knee else MOST_BINS)
    knee = find_knee([each for each in bins if each.begins_s >= shape.warm_up_s]) if shape.find_knee else None
    judged = measured if knee is None else [request for request in measured if request.due_s < knee.at_s]
    judgements = [*_judge_failures(judged, rows.requests, shape), *_judge_limits(judged, shape)]
    if shape.hot_units is not None:
        judgements.append(_judge_hot(rows, shape.hot_units))
    return Findings(
        rows=rows,
        measured=measured,
        calls=by_call(measured),
        bins=bins,
        knee=knee,
        judgements=judgements,
        doubts=doubts(rows, shape, interrupted=interrupted),
        interrupted=interrupted,
        violations=[*violations],
    )


def latencies(seconds: Iterable[float]) -> Latencies:
    """The percentiles of at least one duration."""
    ascending = sorted(seconds)
    p50, p95, p99, most = (round(percentile(ascending, percent) * 1000, 3) for percent in (50, 95, 99, 100))
    return Latencies(p50, p95, p99, most)


def by_call(requests: Iterable[Request]) -> list[Call]:
    """The requests by call, the most frequent first."""
    of_call: defaultdict[str, list[Request]] = defaultdict(list)
    for request in requests:
        of_call[request.call].append(request)
    found = [
        Call(
            call,
            len(sent),
            sum(bool(request.failure) for request in sent),
            latencies(request.latency_s for request in sent),
            latencies(request.service_s for request in sent),
        )
        for call, sent in of_call.items()
    ]
    return sorted(found, key=lambda each: (-each.sent, each.call))


def binned(requests: Iterable[Request], shape: Shape, ends_s: float, most: int = MOST_BINS) -> list[Bin]:
    """The run, warm-up included, in bins of equal length: one a second, but no fewer than 20 and at most `most`."""
    seconds = max(ends_s, 1.0)
    count = min(most, max(FEWEST_BINS, round(seconds)))
    bin_s = seconds / count
    due: list[list[Request]] = [[] for _ in range(count)]
    for request in requests:
        if 0 <= request.due_s < seconds:
            due[min(int(request.due_s / bin_s), count - 1)].append(request)
    return [
        Bin(
            number * bin_s,
            bin_s,
            shape.rate_at((number + 0.5) * bin_s),
            len(each),
            sum(bool(request.failure) for request in each),
            latencies(request.latency_s for request in each) if each else None,
            latencies(request.service_s for request in each) if each else None,
        )
        for number, each in enumerate(due)
    ]


def find_knee(bins: Sequence[Bin]) -> Knee | None:
    """The last bin before those that are slow or failing; none where there are no such bins.

    It is found by a threshold that can be checked by eye, not by curvature: Kneedle (V. Satopaa and others, 2011) finds
    a knee in every curve, in that of a shop which follows to the end as well.
    """
    known = [each for each in bins if each.latency is not None]
    calm = [each.latency.p95_ms for each in known[: max(1, int(len(known) * CALM_SHARE))] if each.latency is not None]
    if not calm:
        return None
    unloaded_ms = median(calm)
    most_ms = max(SLOWER_TIMES * unloaded_ms, unloaded_ms + SLOWER_MS)
    why = [_over(each, most_ms) for each in known]
    for number in range(1, len(known) - IN_A_ROW + 1):
        if all(why[number : number + IN_A_ROW]):
            last = known[number - 1]
            return Knee(
                last.begins_s + last.seconds,
                last.arrival_rate,
                last.sent / last.seconds,
                unloaded_ms,
                "; ".join(dict.fromkeys(why[number : number + IN_A_ROW])),
            )
    return None


def _over(each: Bin, most_ms: float) -> str:
    """Why a bin is over the knee; empty where it is not."""
    if each.failed_share > FAILING_SHARE:
        return f"more than {FAILING_SHARE:.0%} fail"
    slow = each.latency is not None and each.latency.p95_ms > most_ms
    return f"p95 above {most_ms:,.0f} ms" if slow else ""


def _judge_failures(judged: Sequence[Request], everything: Sequence[Request], shape: Shape) -> list[Judgement]:
    failed = sum(bool(request.failure) for request in judged)
    wrong = sum(request.failure == WRONG for request in everything)
    share = failed / len(judged) if judged else 0.0
    return [
        Judgement("no wrong answer, in the warm-up neither", f"{wrong:,} of {len(everything):,}", wrong == 0),
        Judgement(
            f"at most {shape.most_failed_share:.2%} refused or unanswered",
            f"{failed:,} of {len(judged):,}, {share:.2%}",
            bool(judged) and share <= shape.most_failed_share,
        ),
    ]


def _judge_limits(judged: Sequence[Request], shape: Shape) -> list[Judgement]:
    return [_judge_limit(limit, judged, shape) for limit in shape.limits]


def _judge_limit(limit: Limit, judged: Sequence[Request], shape: Shape) -> Judgement:
    since_s, where = 0.0, ""
    if limit.in_last_leg_after_s is not None:
        since_s = shape.ends_s - shape.legs[-1].seconds + limit.in_last_leg_after_s
        where = f", from {since_s:,.0f} s on"
    text = f"p{limit.percent:g} of {limit.call or 'all requests'} within {limit.most_ms:,.0f} ms{where}"
    chosen = sorted(
        request.latency_s for request in judged if request.due_s >= since_s and limit.call in {None, request.call}
    )
    if not chosen:
        return Judgement(text, "none was sent", kept=False)
    found_ms = percentile(chosen, limit.percent) * 1000
    return Judgement(text, f"{found_ms:,.1f} ms of {len(chosen):,}", found_ms <= limit.most_ms)


def _judge_hot(rows: Rows, units: int) -> Judgement:
    """Whether more was sold than there was, by what the buyers themselves were told."""
    sold = sum(order.hot_units for order in rows.orders if order.status == "confirmed")
    back = sum(order.hot_units for order in rows.orders if order.status == "cancelled")
    return Judgement(f"of {units:,} units none is sold twice", f"{sold - back:,} sold", sold - back <= units)


def doubts(rows: Rows, shape: Shape, *, interrupted: bool) -> list[str]:
    """Why the figures may not be those of the shop: a busy or late generator, or one that lost what it wrote down."""
    found: list[str] = []
    samples = [each for each in rows.samples if shape.warm_up_s <= each.at_s < shape.ends_s]
    if not rows.requests:
        found.append("no request was sent")
    if not samples and not interrupted:
        found.append("nobody watched the generator")
    for what, said in (
        ([each for each in samples if each.cpu >= BUSY_CPU], f"used {BUSY_CPU:.0%} of a core or more"),
        ([each for each in samples if each.lag_s >= LATE_S], f"was {LATE_S * 1000:.0f} ms late or more"),
    ):
        if len(what) > MOST_BUSY_SHARE * len(samples):
            found.append(f"the generator was the bottleneck: it {said} in {_seconds(what, samples)}")
    if interrupted:
        return found
    if rows.end is None:
        found.append("the generator did not end in order")
    elif rows.end.requests != len(rows.requests):
        found.append(f"{rows.end.requests:,} requests were sent and {len(rows.requests):,} written down")
    return found


def _seconds(some: Sequence[Sample], of: Sequence[Sample]) -> str:
    return f"{len(some)} of {len(of)} seconds (of {len({each.generator for each in of})} processes)"
