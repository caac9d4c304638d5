"""What is made of the callers' lines: spread, percentiles, failures, how soon a pod that came or went is noticed."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from drills.report import percentile as nearest_rank

OK = "200"
WINDOW_S = 1.0
"""The time over which a share is taken."""
FAIR = 0.5
"""Of an equal share: who has so much of it has been taken up. Where 15 requests a window are an equal share, chance
alone leaves a pod with less once in fifty.
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """One request: moments are those of the machine's clock, in seconds."""

    due: float
    sent: float
    ended: float
    outcome: str
    """The status, or the kind of failure where there is none."""
    replica: str
    """The pod that answered; empty where none did."""

    @property
    def latency_s(self) -> float:
        """From when it should have been sent."""
        return self.ended - self.due

    @property
    def failed(self) -> bool:
        return self.outcome != OK


@dataclass(frozen=True, slots=True)
class Load:
    """What the callers of one phase printed."""

    began: float
    answers: Sequence[Answer]
    cores: float
    """Of the generator's own CPU."""
    latest_s: float


def read(lines: Iterable[str]) -> Load:
    """The lines of `caller.py`; raises ValueError where they break off, or an answer is missing."""
    answers: list[Answer] = []
    began = 0.0
    for line in lines:
        kind, *cells = line.rstrip("\n").split(",")
        if kind == "began":
            began = float(cells[0])
        elif kind == "answer":
            due, sent, ended, outcome, replica = cells
            answers.append(Answer(float(due), float(sent), float(ended), outcome, replica))
        elif kind == "end":
            if int(cells[0]) != len(answers):
                raise ValueError(f"{cells[0]} requests were sent, and {len(answers)} are written down")
            return Load(began, answers, float(cells[1]), float(cells[2]))
    raise ValueError(f"the callers broke off after {len(answers)} requests")


def spread(answers: Iterable[Answer], pods: Sequence[str]) -> float:
    """The most requests that a pod answered, over their mean: 1 is an equal share for each, the number of pods is one
    that has them all.
    """
    counts = Counter(each.replica for each in answers if each.replica)
    most, mean = max(counts[pod] for pod in pods), fmean(counts[pod] for pod in pods)
    return most / mean if mean else math.nan


def share(answers: Sequence[Answer], pod: str) -> float:
    """The part of the requests that went to a pod. One that it did not answer in time counts for nobody."""
    answered = [each for each in answers if each.replica]
    return sum(each.replica == pod for each in answered) / len(answered) if answered else math.nan


def percentile(answers: Sequence[Answer], percent: float) -> float:
    """The latency within which this percentage of the requests ended, failed ones among them; the nearest rank."""
    return nearest_rank(sorted(each.latency_s for each in answers), percent) if answers else math.nan


def failures(answers: Iterable[Answer]) -> int:
    """How many were not answered with 200."""
    return sum(each.failed for each in answers)


def harmed_for(answers: Sequence[Answer], since: float, usual_s: float) -> float:
    """Seconds from a pod's death until the last request was due that failed, or took longer than `usual_s`; 0 where
    there was none.
    """
    harmed = [each.due - since for each in answers if each.ended >= since and (each.failed or each.latency_s > usual_s)]
    return max([0.0, *harmed])


def first_after(answers: Iterable[Answer], pod: str, since: float) -> float | None:
    """Seconds until a pod got its first request; none where it got none."""
    sent = [each.sent for each in answers if each.replica == pod]
    return max(0.0, min(sent) - since) if sent else None


def fair_after(answers: Sequence[Answer], pod: str, pods: int, since: float) -> float | None:
    """Seconds until a pod had its part: the first of its requests from which on it got half of an equal share or more,
    in the window that begins there and in all that came after. None where it never had.
    """
    answered = sorted((each for each in answers if each.replica), key=lambda each: each.sent)
    for number, first in enumerate(answered):
        rest = answered[number:]
        if first.replica != pod:
            continue
        if rest[-1].sent - first.sent < WINDOW_S:
            return None  # the end is too near to tell
        window = [each for each in rest if each.sent < first.sent + WINDOW_S]
        if min(share(window, pod), share(rest, pod)) >= FAIR / pods:
            return max(0.0, first.sent - since)
    return None
