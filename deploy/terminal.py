"""What the person at the terminal reads: each step, how long it took, how far a wait has come."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from time import monotonic

WIDTH = 100


class Failed(Exception):
    """Why it cannot go on and what to do about it, in one line. What was done so far, a second run goes on from."""


class Step:
    """A step that is under way. What it says takes the place of what it said before, until it is done."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._started_at = monotonic()
        self._told = ""
        self._live = sys.stdout.isatty()

    def progress(self, text: str) -> None:
        """Say how far it is."""
        if text == self._told:
            return
        self._told = text
        if self._live:
            print(f"\r\033[K         {self._name}: {text}"[: WIDTH + 4], end="", flush=True)
        else:
            print(f"         {self._name}: {text}", flush=True)

    def done(self, result: str) -> None:
        """Say that it is done, what came of it, and how long it took."""
        before = "\r\033[K" if self._live else ""
        took = f"{self._name}: {result}" if result else self._name
        print(f"{before}{monotonic() - self._started_at:6.1f} s  {took}", flush=True)


class Result:
    """What came of a step, to be told when it is done."""

    def __init__(self, step: Step) -> None:
        self.progress = step.progress
        self.text = ""


@contextmanager
def step(name: str) -> Generator[Result, None, None]:
    """Do something and say how long it took."""
    taken = Step(name)
    result = Result(taken)
    if sys.stdout.isatty():
        taken.progress("...")
    try:
        yield result
    except BaseException:
        if sys.stdout.isatty():
            print()
        raise
    taken.done(result.text)


def say(text: str = "") -> None:
    """Print lines."""
    print(text, flush=True)
