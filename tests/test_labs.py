"""The labs without a cluster: how a page is read, run, compared and written; and what every page has."""

import os
import re
import signal
import subprocess
import sys
from time import monotonic

import psutil
import pytest

from chassis.migrations import ROOT
from tests import labs

PAGE = """\
# A page

Words.

```sh
echo one
```
```text
one
```

```sh
true
```

## Undo

```sh
echo undone; false
```
```text
undone
```

## Try next

Nothing.
"""


def perform(text: str, said: list[str] | None = None) -> labs.Performance:
    """Run a page's text."""
    return labs.perform(labs.blocks(text), os.environ, (said if said is not None else []).append)


def page(*commands: str, undo: str = "true") -> str:
    """The text of a page with a block for each of these."""
    blocks = "\n".join(f"```sh\n{each}\n```\n" for each in commands)
    return f"# A page\n\n{blocks}\n## Undo\n\n```sh\n{undo}\n```\n"


def output(text: str, words: str = "") -> labs.Block:
    """A block beside which this output stands."""
    return labs.Block("true\n", text, words, line=1, undoes=False)


# Reading


def test_blocks_are_read_in_order_with_the_output_beside_them() -> None:
    one, two, undo = labs.blocks(PAGE)
    assert (one.commands, one.output, one.line, one.undoes) == ("echo one\n", "one\n", 5, False)
    assert (two.commands, two.output, two.undoes) == ("true\n", "", False)
    assert (undo.commands, undo.output, undo.undoes) == ("echo undone; false\n", "undone\n", True)


def test_a_fence_says_that_its_numbers_differ() -> None:
    (found,) = labs.blocks("```sh\nx\n```\n```text numbers\n3\n```\n")
    assert (found.words, found.output) == ("numbers", "3\n")


def test_a_word_at_a_fence_that_means_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"line 1: `text any`"):
        labs.blocks("```sh\nx\n```\n```text any\n3\n```\n")


def test_a_page_is_written_with_other_outputs_and_is_otherwise_as_it_was() -> None:
    text = labs.written(PAGE, ["uno\n", "something\n", "undone\n"])
    assert [block.output for block in labs.blocks(text)] == ["uno\n", "something\n", "undone\n"]
    assert labs.written(text, ["one\n", "", "undone\n"]) == PAGE


def test_writing_keeps_the_word_of_a_fence_and_what_is_no_block() -> None:
    text = "```sh\nx\n```\n```text numbers\n```\n\nWords.\n\n```yaml\na: 1\n```\n"
    assert labs.written(text, ["\n 4 \\1\n"]) == text.replace("numbers\n", "numbers\n\n 4 \\1\n")


# Comparing


@pytest.mark.parametrize(
    ("here", "elsewhere"),
    [
        ("pod/payment-5d8f9c7b6d-x2v4k deleted", "pod/payment-7c6d5b9f88-bcdfg deleted"),
        ("replicaset.apps/payment-5d8f9c7b6d", "replicaset.apps/payment-98765c4bf"),
        ("lab-x2v4k   1", "lab-zzzzz   1"),
        ("10.96.12.3   product", "10.244.1.250 product"),
        ("edge  souk-worker2", "edge  shop-worker"),
        ("NAME   AGE\nedge   5m12s", "NAME   AGE\nedge   3d"),
        ("edge   1 (5m ago)", "edge   1 (3d2h ago)"),
        ("80:31234/TCP,443:30001/TCP", "80:32767/TCP,443:30500/TCP"),
        ("souk/order:0123456789ab", "souk/order:fedcba987654"),
        ("at 2026-11-25T20:48:34Z", "at 2027-01-01T00:00:00.123+01:00"),
        ("notAfter=Feb 23 20:48:34 2027 GMT", "notAfter=Dec  1 00:00:01 2030 GMT"),
        ('{service="user"} => 3 @[1795639714.1]', '{service="user"} => 3 @[1795630000]'),
        ("id 0190b3c4-0000-7000-8000-000000000001", "id ffffffff-ffff-7fff-8fff-ffffffffffff"),
    ],
)
def test_what_differs_between_clusters_makes_no_difference(here: str, elsewhere: str) -> None:
    assert labs.difference(output(here), elsewhere) == ""


@pytest.mark.parametrize(
    ("here", "elsewhere"),
    [
        ("200", "502"),
        ("payment-5d8f9c7b6d-x2v4k", "product-5d8f9c7b6d-x2v4k"),
        ("10.96.12.3\n10.96.12.4", "10.96.12.3"),
        ("127.0.0.1", "10.96.12.3"),
        ("80:30080/TCP", "80:30081/TCP"),
        ("exit code 137", "exit code 1"),
        ("Running", "Pending"),
        ("uses 3m", "uses 4m"),
        ("one\ntwo", "two\none"),
        ("", "something"),
    ],
)
def test_everything_else_does(here: str, elsewhere: str) -> None:
    assert "the output is another one" in labs.difference(output(here), elsewhere)


def test_of_numbers_that_differ_a_zero_stays_a_zero() -> None:
    block = output("0 of 1,000 failed in 9.5 s", "numbers")
    assert labs.difference(block, "0 of 7 failed in 12 s") == ""
    assert labs.difference(block, "0.0 of 7 failed in 12 s") == ""
    assert labs.difference(block, "0 of 7 failed in 0.004966556844670144 s") == ""
    assert labs.difference(block, "3 of 1,000 failed in 9.5 s")
    assert labs.difference(block, "0 of 0 failed in 9.5 s")


def test_what_was_measured_is_of_its_run_alone_but_not_nothing() -> None:
    block = output("iptables 1.5 0\nipvs 1.2 0", "measured")
    assert labs.difference(block, "iptables 1.1 3\nipvs not here") == ""
    assert labs.difference(block, " \n")
    assert labs.difference(output("", "measured"), "iptables 1.1 3")


def test_a_difference_shows_both() -> None:
    told = labs.difference(output("a\nb"), "a\nc")
    assert told.startswith("line 1: ")
    assert {"-b", "+c"} <= set(told.splitlines())


# Running


def test_blocks_share_a_shell_and_are_told_as_they_go() -> None:
    said: list[str] = []
    done = perform(page("name=Ada", 'echo "$name"; printf "and no end"'), said)
    assert (done.failures, done.outputs) == ((), ("", "Ada\nand no end", ""))
    assert said.index("\n$ name=Ada") < said.index("Ada") < said.index("\n$ true")


def test_a_page_is_compared_where_nothing_failed() -> None:
    done = perform(page("echo 1", "echo 2"))
    assert not done.failures
    assert [each.partition("\n")[0] for each in done.differences] == [
        "line 3: the output is another one",
        "line 7: the output is another one",
    ]


@pytest.mark.parametrize("broken", ["false", "echo ${nobody_has_set_this}", "exit 3", "exit 0"])
def test_a_lab_that_fails_in_the_middle_is_undone(broken: str) -> None:
    done = perform(page("echo before", broken, "echo never", undo="echo undone"))
    assert len(done.failures) == 1
    assert done.failures[0].startswith("line 7: ended with status ")
    assert "never\n" not in done.outputs
    assert done.outputs[-1] == "undone\n"


def test_an_undo_that_fails_is_told() -> None:
    assert perform(PAGE).failures == ("line 18: ended with status 1",)


def is_running(pid: int) -> bool:
    """Whether a process does anything still; one that nobody has waited for does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_what_a_lab_starts_in_the_background_ends_with_it() -> None:
    began = monotonic()
    done = perform(page("sleep 300 & echo $!"))
    assert not done.failures
    (pid, *_) = done.outputs
    while is_running(int(pid)):
        assert monotonic() - began < 60


def test_a_lab_that_does_not_end_is_ended() -> None:
    ran = labs.shell(["echo begun", "sleep 300"], os.environ, print, within_s=1)
    assert ran.failure == "did not end within 1 s"


def test_ctrl_c_undoes_what_the_lab_had_done() -> None:
    text = page("echo begun", "sleep 300", undo="echo undone")
    program = (
        "import os\nfrom tests import labs\nlabs.interruptible()\n"
        f"labs.perform(labs.blocks({text!r}), os.environ, lambda line: print(line, flush=True))\n"
    )
    with subprocess.Popen(
        (sys.executable, "-c", program), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line == "$ sleep 300\n":
                process.send_signal(signal.SIGINT)
                break
        assert "undone\n" in process.stdout.read()


def test_a_name_that_is_no_page_is_refused_with_those_that_are() -> None:
    ran = subprocess.run(
        (sys.executable, "-m", "tests.labs", "nothing"), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 2
    assert all(name in ran.stderr for name in labs.names())


# What every page has


@pytest.mark.parametrize("name", labs.names())
def test_a_page_says_what_is_learnt_how_it_is_undone_and_what_to_try_next(name: str) -> None:
    text = labs.page(name).read_text()
    headings = labs.HEADING.findall(text)
    assert headings[0] == "What you learn"
    assert headings[-2:] == ["Undo", "Try next"]
    found = labs.blocks(text)
    assert [each.undoes for each in found] == [False] * (len(found) - 1) + [True]
    assert text.count("\n```sh\n") == len(found)
    assert text.count("\n```text") == sum(1 for each in found if each.words or each.output)


@pytest.mark.parametrize("name", labs.names())
def test_the_commands_of_a_page_are_sound_for_bash(name: str) -> None:
    script = "".join(each.commands for each in labs.blocks(labs.page(name).read_text()))
    ran = subprocess.run(("bash", "-n"), input=script, capture_output=True, text=True, check=False)
    assert ran.stderr == ""


def test_the_readme_lists_every_page() -> None:
    listed = re.findall(r"^\| \[[^]]+\]\(([\w-]+)\.md\)", labs.page("README").read_text(), re.MULTILINE)
    assert sorted(listed) == labs.names()
