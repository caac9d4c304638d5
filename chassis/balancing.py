"""Which endpoint of a peer a call goes to: power of two choices, ejection, trials, and the budget for retries.

All of it is bookkeeping with a clock that is handed in; `chassis/transport.py` does the calls. The sources:

- the less busy of two endpoints drawn at random: M. Mitzenmacher, "The Power of Two Choices in Randomized Load
  Balancing", IEEE Transactions on Parallel and Distributed Systems 12 (10), 2001
- ejection of what fails, for a time that grows, within a share of all: Envoy's outlier detection
- a retry budget filled by the calls themselves: Finagle's RetryBudget
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from random import Random
from statistics import median
from typing import Literal, get_args

import structlog

from chassis.origins import Address
from chassis.telemetry import Telemetry

Clock = Callable[[], float]
Reason = Literal["connect", "reset", "timeout", "status", "slow"]
log = structlog.stdlib.get_logger()

FAILURES = 5
"""Failures in a row that eject an endpoint, Envoy's `consecutive_5xx`."""
EJECTED_S = 1.0
"""How long the first ejection lasts; it doubles each time, up to `EJECTED_MOST_S`, and starts anew when the endpoint
has been good for as long as that.
"""
EJECTED_MOST_S = 30.0
WEIGHT = 0.3
"""Of the newest time in the average of an endpoint's times: one of 0.9 s among milliseconds passes `SLOW_S`, and so
do three of 0.4 s.
"""
SLOW_S = 0.25
"""An endpoint whose average is below this is never ejected for being slow: a pause of the machine or of its garbage
collection is not worth it.
"""
SLOW_RATIO = 3.0
"""It has to be as many times slower than the median of the others: when all are slow, none is at fault."""
TRIAL_TIMEOUT_S = 0.1
"""What a trial costs its caller at most, where the others answer within a third of it."""
PATIENCE_S = 5.0
"""How long an endpoint that may be tried waits for a call that makes a cheap trial, before any call is one."""

RETRY_SHARE = 0.2
"""Retries that each call pays for."""
RETRIES_A_SECOND = 5.0
"""Retries that cost nothing, so that a peer that is called now and then gets its retry too."""
RETRIES_SAVED = 50.0
"""The most retries that are saved up: all calls that a killed replica leaves unanswered find one."""


@dataclass(frozen=True, slots=True)
class CallPolicy:
    """What a caller knows of a kind of call."""

    idempotent: bool
    """It may be sent twice: whatever the first one did, the second changes nothing more."""
    attempt_timeout_s: float | None = None
    """How long one endpoint is waited for while there is another to ask; none takes the peer's own."""
    timed: bool = True
    """Its time tells how fast the endpoint is. Not where it depends on what is asked, as with a payment provider."""


class Endpoint:
    """One address of a peer, and what was seen of it."""

    __slots__ = (
        "address", "back_since", "ejected", "ejected_until", "ejections", "failures", "latency_s", "on_trial",
        "outstanding",
    )  # fmt: skip

    def __init__(self, address: Address) -> None:
        self.address = address
        self.outstanding = 0
        self.failures = 0
        """In a row."""
        self.latency_s: float | None = None
        """Exponentially weighted average of timed calls; none before the first."""
        self.ejected = False
        self.ejected_until = 0.0
        self.ejections = 0
        self.back_since = float("-inf")
        self.on_trial = False

    def __str__(self) -> str:
        return f"{self.address[0]}:{self.address[1]}"


@dataclass(slots=True, eq=False)
class Attempt:
    """A call, or the repetition of one, on its way to an endpoint. Whoever begins it ends or abandons it, once."""

    endpoint: Endpoint
    began_at: float
    timed: bool
    trial: bool = False


class RetryBudget:
    """A token bucket: each call puts a fifth of a retry in, some come by themselves, each retry takes one out."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tokens = RETRIES_SAVED
        self._filled_at = clock()

    def deposit(self) -> None:
        """Note a call."""
        self._tokens = min(RETRIES_SAVED, self._tokens + RETRY_SHARE)

    def withdraw(self) -> bool:
        """Take a retry out, if there is one."""
        if not self.affords():
            return False
        self._tokens -= 1
        return True

    def affords(self) -> bool:
        """Whether there is a retry."""
        now = self._clock()
        self._tokens = min(RETRIES_SAVED, self._tokens + (now - self._filled_at) * RETRIES_A_SECOND)
        self._filled_at = now
        return self._tokens >= 1


class Balancer:
    """The endpoints of one peer.

    At most half of them are ejected, rounded down: one of two, none of one. When all others fail too, there is nothing
    to avoid, and all are used until one of them answers.
    """

    def __init__(self, peer: str, telemetry: Telemetry, clock: Clock, random: Random) -> None:
        self._peer = peer
        self._clock = clock
        self._random = random.random
        self._endpoints: dict[Address, Endpoint] = {}
        self._usable: list[Endpoint] = []
        self._ejected: list[Endpoint] = []
        """In the order of their ejection."""
        self._all_fail = False
        self._ejections = telemetry.peer_ejections
        for reason in get_args(Reason):
            self._ejections.labels(peer, reason)
        telemetry.peer_endpoints.labels(peer).set_function(lambda: len(self._endpoints))
        telemetry.peer_endpoints_ejected.labels(peer).set_function(lambda: len(self._ejected))

    def update(self, addresses: Sequence[Address]) -> None:
        """Take these for all there are. One that is gone gets no more calls; those on their way end as they end."""
        self._endpoints = {address: self._endpoints.get(address) or Endpoint(address) for address in addresses}
        kept = set(self._endpoints.values())
        for endpoint in self._ejected:
            endpoint.ejected = endpoint in kept
        self._ejected = [endpoint for endpoint in self._ejected if endpoint in kept]
        while len(self._ejected) > len(kept) // 2:
            self._take_back(self._ejected[0], "fewer endpoints")
        self._usable = [endpoint for endpoint in self._endpoints.values() if not endpoint.ejected]

    def begin(self, policy: CallPolicy, tried: Collection[Endpoint] = (), *, may_try: bool = False) -> Attempt | None:
        """Choose an endpoint that was not `tried`; none where all were.

        One that is ejected gets a call when its time is over, one at a time, and best one that is cheap to try:
        `may_try` says that it can be repeated elsewhere.
        """
        now = self._clock()
        endpoint = None if not self._ejected or tried else self._due(now, cheap=may_try and policy.timed)
        if endpoint is not None:
            endpoint.on_trial = True
            endpoint.outstanding += 1
            return Attempt(endpoint, now, policy.timed, trial=True)
        usable = self._usable
        if tried:
            usable = [endpoint for endpoint in usable if endpoint not in tried]
            usable = usable or [endpoint for endpoint in self._ejected if endpoint not in tried]
        if not usable:
            return None
        endpoint = usable[0] if len(usable) == 1 else self._less_busy(usable)
        endpoint.outstanding += 1
        return Attempt(endpoint, now, policy.timed)

    def _due(self, now: float, *, cheap: bool) -> Endpoint | None:
        """An ejected endpoint that may be tried now."""
        since = now if cheap else now - PATIENCE_S
        return next((each for each in self._ejected if each.ejected_until <= since and not each.on_trial), None)

    def _less_busy(self, usable: list[Endpoint]) -> Endpoint:
        """The less busy of two; the first, which is as good as drawn by lot, when they are equal."""
        count = len(usable)
        first = int(self._random() * count)
        second = int(self._random() * (count - 1))
        if second >= first:
            second += 1
        one, other = usable[first], usable[second]
        return other if other.outstanding < one.outstanding else one

    def others(self, attempt: Attempt) -> bool:
        """Whether there is another endpoint than that of the attempt."""
        return len(self._endpoints) > 1 or attempt.endpoint.address not in self._endpoints

    def trial_timeout_s(self, attempt: Attempt) -> float:
        """How long a trial is waited for: as long as the others might take, with room."""
        return max(TRIAL_TIMEOUT_S, SLOW_RATIO * self._usual_s(attempt.endpoint))

    def abandoned(self, attempt: Attempt) -> None:
        """End an attempt whose caller waits no more. All that is known is that the answer takes longer."""
        endpoint = self._ended(attempt)
        waited_s = self._clock() - attempt.began_at
        if attempt.timed and waited_s > max(SLOW_S, endpoint.latency_s or 0):
            self._note_time(endpoint, waited_s)

    def succeeded(self, attempt: Attempt) -> None:
        """End an attempt that was answered."""
        endpoint = self._ended(attempt)
        endpoint.failures = 0
        self._all_fail = False
        if endpoint.ejected and attempt.trial:
            self._take_back(endpoint, "answered a trial")
        if attempt.timed:
            self._note_time(endpoint, self._clock() - attempt.began_at)

    def failed(self, attempt: Attempt, reason: Reason) -> None:
        """End an attempt that was not."""
        endpoint = self._ended(attempt)
        endpoint.failures += 1
        if reason == "timeout" and attempt.timed and not attempt.trial:
            self._note_time(endpoint, self._clock() - attempt.began_at)
        if endpoint.ejected:
            if attempt.trial:
                self._out(endpoint, reason)
        elif endpoint.failures >= FAILURES:
            self._eject(endpoint, reason)

    def _ended(self, attempt: Attempt) -> Endpoint:
        endpoint = attempt.endpoint
        endpoint.outstanding -= 1
        if attempt.trial:
            endpoint.on_trial = False
        return endpoint

    def _note_time(self, endpoint: Endpoint, seconds: float) -> None:
        known_s = endpoint.latency_s
        average_s = endpoint.latency_s = seconds if known_s is None else known_s + WEIGHT * (seconds - known_s)
        if average_s > SLOW_S and not endpoint.ejected:
            usual_s = self._usual_s(endpoint)
            if usual_s and average_s > SLOW_RATIO * usual_s:
                self._eject(endpoint, "slow")

    def _usual_s(self, endpoint: Endpoint) -> float:
        """The median of the others' times; 0 where nothing is known of them."""
        times = [each.latency_s for each in self._usable if each is not endpoint and each.latency_s is not None]
        return median(times) if times else 0.0

    def _eject(self, endpoint: Endpoint, reason: Reason) -> None:
        if self._all_fail or endpoint not in self._usable:
            return
        if len(self._ejected) < len(self._endpoints) // 2:
            self._usable.remove(endpoint)
            self._ejected.append(endpoint)
            endpoint.ejected = True
            if self._clock() - endpoint.back_since > EJECTED_MOST_S:
                endpoint.ejections = 0
            self._out(endpoint, reason)
        elif self._ejected and all(each.failures >= FAILURES for each in self._usable):
            self._all_fail = True
            log.warning("endpoints_all_fail", peer=self._peer, endpoints=len(self._endpoints))
            while self._ejected:
                self._take_back(self._ejected[0], "all fail")

    def _out(self, endpoint: Endpoint, reason: Reason) -> None:
        """Begin an ejection, or another one after a trial that went wrong."""
        for_s = min(EJECTED_S * 2.0**endpoint.ejections, EJECTED_MOST_S)
        endpoint.ejections += 1
        endpoint.ejected_until = self._clock() + for_s
        self._ejections.labels(self._peer, reason).inc()
        log.warning("endpoint_ejected", peer=self._peer, address=str(endpoint), reason=reason, for_s=for_s)

    def _take_back(self, endpoint: Endpoint, reason: str) -> None:
        self._ejected.remove(endpoint)
        self._usable.append(endpoint)
        endpoint.ejected = False
        endpoint.failures = 0
        endpoint.latency_s = None
        endpoint.back_since = self._clock()
        log.info("endpoint_taken_back", peer=self._peer, address=str(endpoint), reason=reason)
