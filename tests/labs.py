"""The labs: pages of commands with their output, which are run as they stand there.

`python -m tests.labs NAME` runs one against the cluster of `make deploy`, prints it as it goes, and says where a run
differs from its page; `--write` puts what was printed into the page. docs/labs/README.md tells how a page is written.
"""

import argparse
import difflib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Timer

from chassis.migrations import ROOT
from deploy import cluster
from deploy.commands import Kubectl, run
from deploy.target import NAMESPACE, Target, read_target
from deploy.terminal import Failed

FOLDER = ROOT / "docs" / "labs"
ENDS_WITHIN_S = 3600.0
"""The longest page, which compares balancers, takes half an hour."""
HTTP_PORT = 8080
"""The port of this machine that the pages name."""
NUMBERS = "numbers"
"""What a fence of output may say after `text`: the numbers differ from run to run, only a zero stays a zero."""
MEASURED = "measured"
"""The other word: a table that is of this run alone, with other rows where a kernel has less or the run is short."""
UNDO = "Undo"

# Reading a page

BLOCK = re.compile(
    r"^```sh\n(?P<commands>.*?)^```\n(?:\n?^```text *(?P<words>[^\n]*)\n(?P<output>.*?)^```\n)?",
    re.DOTALL | re.MULTILINE,
)
HEADING = re.compile(r"^## (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """Commands that are run together, and the output beside them."""

    commands: str
    output: str
    """Empty where nothing is printed, or nothing was written down yet."""
    words: str
    line: int
    undoes: bool
    """Whether it stands in the section that is always run in the end, in a shell of its own."""


def names() -> list[str]:
    """The pages that can be run."""
    return sorted(path.stem for path in FOLDER.glob("*.md") if path.name != "README.md")


def page(name: str) -> Path:
    """Where a page is."""
    return FOLDER / f"{name}.md"


def blocks(text: str) -> list[Block]:
    """The blocks of a page in their order; raises ValueError for a word at a fence that means nothing."""
    found: list[Block] = []
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        words = match["words"] or ""
        if words not in {"", NUMBERS, MEASURED}:
            raise ValueError(f"line {line}: `text {words}`: there is only `{NUMBERS}` and `{MEASURED}`")
        above = HEADING.findall(text, 0, match.start())
        found.append(Block(match["commands"], match["output"] or "", words, line, undoes=above[-1:] == [UNDO]))
    return found


def written(text: str, outputs: Sequence[str]) -> str:
    """A page with these outputs in place of its own, one for each block."""
    remaining = iter(outputs)

    def replace(match: re.Match[str]) -> str:
        output = next(remaining)
        words = match["words"] or ""
        commands = f"```sh\n{match['commands']}```\n"
        if not output:
            return commands
        return f"{commands}```text{f' {words}' if words else ''}\n{output.rstrip()}\n```\n"

    return BLOCK.sub(replace, text)


# Comparing

SAFE = "bcdfghjklmnpqrstvwxz2456789"
"""The letters that Kubernetes makes suffixes of: without vowels, so that they are no words."""
RULES: Sequence[tuple[re.Pattern[str], str]] = tuple(
    (re.compile(pattern, re.MULTILINE), replacement)
    for pattern, replacement in (
        (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?: ?(?:Z|UTC|[+-]\d\d:?\d\d))?", "<time>"),
        (r"\b[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4} GMT", "<time>"),  # as openssl has it
        (r"@\[\d+(?:\.\d+)?\]", "@[<time>]"),  # as promtool has it
        (r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "<id>"),
        (r"(?<![\d.])(?!127\.0\.0\.1\b)\d{1,3}(?:\.\d{1,3}){3}(?![\d.])", "<address>"),
        (r"(?<![\w.])(?=[a-f]*\d)[0-9a-f]{12,64}\b", "<digest>"),  # and not the digits after a decimal point
        (rf"(?:-[{SAFE}]{{7,10}})?-[{SAFE}]{{5}}(?![\w-])|-[{SAFE}]{{7,10}}(?![\w-])", "-<hash>"),
        (r"\b[a-z][\w-]*-(?:control-plane|worker\d*)\b", "<node>"),
        (r"\(\d+[smhdy](?:\d+[smhd])? ago\)", "(<age> ago)"),
        (r"(?<=  )\d+[smhdy](?:\d+[smhd])?(?=\s|$)", "<age>"),
        (r"(?<![\d.])(?!30080|30443)3[0-2]\d{3}(?![\d.])", "<node port>"),
        (r"[ \t]+", " "),
        (r" $", ""),
    )
)
"""What differs between two clusters, or two runs, and is the same all the same; in this order."""
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def _number(match: re.Match[str]) -> str:
    return "<number>" if re.search(r"[1-9]", match[0]) else "0"


def normalised(text: str, words: str = "") -> list[str]:
    """The lines of an output, as they would be in another cluster too."""
    for pattern, replacement in RULES:
        text = pattern.sub(replacement, text)
    if words == NUMBERS:
        text = NUMBER.sub(_number, text)
    return text.strip().splitlines()


def difference(block: Block, output: str) -> str:
    """How an output differs from the page's; empty where it does not. What was measured only has to be there."""
    if block.words == MEASURED and block.output.strip() and output.strip():
        return ""
    wanted, found = normalised(block.output, block.words), normalised(output, block.words)
    if wanted == found:
        return ""
    lines = difflib.unified_diff(wanted, found, "the page", "this run", lineterm="", n=9)
    return f"line {block.line}: the output is another one\n" + "\n".join(lines)


# Running

MARK = "\x1e"
"""The ASCII record separator: the shell prints it after each block, and no program of a page does."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What a shell did."""

    outputs: Sequence[str]
    """What each block printed; where one failed, it is the last."""
    failure: str
    """Why it did not come to its end; empty where it did."""


def shell(
    commands: Sequence[str],
    environment: Mapping[str, str],
    say: Callable[[str], None],
    *,
    within_s: float = ENDS_WITHIN_S,
) -> Ran:
    """Run blocks of commands in one bash, which ends with the first command that fails, and whatever it started in the
    background with it. What is run, and each line of what is printed, is said as it comes.
    """
    lines = ["trap 'printf \"\\036%s\\n\" $?' EXIT\n", *(f"{each}\nprintf '\\036\\n'\n" for each in commands)]
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "lab"
        script.write_text("".join(lines))
        with subprocess.Popen(
            ("bash", "-eu", str(script)), cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            late = Timer(within_s, _end, (process.pid,))
            late.start()
            try:
                outputs, status = _heard(process.stdout, commands, say)
            finally:
                late.cancel()
                _end(process.pid)
    if status is None:
        failure = f"did not end within {within_s:.0f} s"
    else:
        failure = "" if len(outputs) > len(commands) else f"ended with status {status}"
    return Ran(outputs[: len(commands)], failure)


def _end(group: int) -> None:
    """Kill what is left of a group of processes."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _heard(lines: Iterable[str], commands: Sequence[str], say: Callable[[str], None]) -> tuple[list[str], str | None]:
    """Listen until the shell says that it ends, as what it left in the background may hold the pipe open for longer.
    Return what each block printed, and the shell's status: none where it was killed.
    """
    outputs = [""]
    say(prompted(commands[0]))
    for line in lines:
        text, mark, status = line.partition(MARK)
        outputs[-1] += text
        if text:
            say(text.rstrip("\n"))
        if status.strip():
            return outputs, status.strip()
        if mark:
            outputs.append("")
            if len(outputs) <= len(commands):
                say(prompted(commands[len(outputs) - 1]))
    return outputs, None


@dataclass(frozen=True, slots=True)
class Performance:
    """What came of a lab."""

    outputs: Sequence[str]
    """What each block printed; where one failed, none of those after it."""
    failures: Sequence[str]
    differences: Sequence[str]
    """Where it did not fail: what was not as the page has it."""


def perform(found: Sequence[Block], environment: Mapping[str, str], say: Callable[[str], None]) -> Performance:
    """Run a page's blocks, and in any case those that undo it: after a failure, and after Ctrl-C."""
    steps = [each for each in found if not each.undoes]
    undo = [each for each in found if each.undoes]
    try:
        done = shell([each.commands for each in steps], environment, say)
    except BaseException:
        shell([each.commands for each in undo], environment, say)
        raise
    undone = shell([each.commands for each in undo], environment, say)
    outputs = (*done.outputs, *undone.outputs)
    if failures := (*_failures(steps, done), *_failures(undo, undone)):
        return Performance(outputs, failures, ())
    compared = zip((*steps, *undo), outputs, strict=True)
    return Performance(outputs, (), [told for block, output in compared if (told := difference(block, output))])


def _failures(chosen: Sequence[Block], ran: Ran) -> Iterator[str]:
    if ran.failure:
        yield f"line {chosen[len(ran.outputs) - 1].line}: {ran.failure}"


def prompted(commands: str) -> str:
    """Commands as a terminal shows them."""
    first, *others = commands.rstrip("\n").split("\n")
    return "\n".join(("", f"$ {first}", *(f"> {line}" for line in others)))


@contextmanager
def surroundings(target: Target) -> Generator[dict[str, str], None, None]:
    """The environment that the pages are written for: a kubeconfig that names the shop's namespace; raises Failed where
    the shop is not there, or not where the pages look for it.
    """
    if target.kind_cluster is None:
        raise Failed(f"the labs are written for a kind cluster, and {target.context} is none")
    cluster.check_answer(target, Kubectl(target.context, NAMESPACE))
    web = cluster.ports(target.kind_cluster).get(30080)
    if web != HTTP_PORT:
        raise Failed(f"the labs ask the shop at port {HTTP_PORT}, and this cluster has it at {web}")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kubeconfig"
        file.write_text(run(("kubectl", "config", "view", "--raw", "--minify", f"--context={target.context}")))
        config = f"--kubeconfig={file}"
        run(("kubectl", config, "config", "set-context", "--current", f"--namespace={NAMESPACE}"))
        yield {**os.environ, "KUBECONFIG": str(file), "LC_ALL": "C.UTF-8"}


def interruptible() -> None:
    """Let SIGTERM end this as Ctrl-C does, and Ctrl-C also where a shell has put it into the background, which ignores
    that signal otherwise.
    """
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.default_int_handler)


def say(text: str) -> None:
    """Print lines as they come."""
    print(text, flush=True)


def main() -> None:
    """Do what the command line asks; exit status 1 where a run is not as its page, 2 where none is possible."""
    parser = argparse.ArgumentParser(prog="python -m tests.labs", description="Run a page of docs/labs.")
    parser.add_argument("name", choices=names(), metavar="NAME", help=", ".join(names()))
    parser.add_argument("--write", action="store_true", help="put what was printed into the page")
    arguments = parser.parse_args()
    path = page(arguments.name)
    text = path.read_text()
    found = blocks(text)
    interruptible()
    try:
        with surroundings(read_target()) as environment:
            done = perform(found, environment, say)
    except Failed as error:
        sys.stderr.write(f"souk: {error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit("souk: interrupted; what the lab had done is undone")
    faults = done.failures or (() if arguments.write else done.differences)
    if faults:
        sys.exit("\n" + "\n\n".join(f"{path.relative_to(ROOT)}, {fault}" for fault in faults))
    if arguments.write:
        path.write_text(written(text, done.outputs))
    told = "now has what they printed" if arguments.write else "has what they printed"
    say(f"\n{len(found)} blocks were run; {path.relative_to(ROOT)} {told}")


if __name__ == "__main__":
    main()
