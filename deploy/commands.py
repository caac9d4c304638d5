"""The programs that do the work: run whole, and where one fails its own words become the one line of the failure."""

import json
import re
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from deploy.terminal import Failed

Object = dict[str, Any]
"""A Kubernetes object, or a part of one, as JSON has it."""

FIELD_MANAGER = "souk"
TIMEOUT_S = 120.0
FORWARD_TIMEOUT_S = 20.0


class CommandFailed(Failed):
    """A program ended with an error; `output` is all that it said about it."""

    def __init__(self, command: Sequence[str], output: str) -> None:
        lines = [line.strip() for line in output.splitlines() if line.strip()]
        telling = [
            line for line in lines if re.search(r"error|denied|refused|fail|not found|unable", line, re.IGNORECASE)
        ]
        reason = (telling or lines or ["it did not say why"])[-1]
        words = [word for word in command if not word.startswith("-")]
        super().__init__(f"{' '.join(words[:3])}: {reason[:300]}")
        self.output = output


def run(
    command: Sequence[str],
    *,
    stdin: str | None = None,
    timeout_s: float = TIMEOUT_S,
    output: IO[bytes] | None = None,
    source: IO[bytes] | None = None,
) -> str:
    """Run a program and return what it printed, or let it print into `output`; raises CommandFailed."""
    try:
        done = subprocess.run(
            command,
            input=stdin.encode() if stdin is not None else None,
            stdin=None if stdin is not None else (source or subprocess.DEVNULL),
            stdout=output or subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError:
        raise CommandFailed(command, f"{command[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise CommandFailed(command, f"no answer within {timeout_s:.0f} s") from None
    printed = (done.stdout or b"").decode(errors="replace")
    if done.returncode:
        raise CommandFailed(command, done.stderr.decode(errors="replace") or printed)
    return printed


def succeeds(command: Sequence[str], *, timeout_s: float = TIMEOUT_S) -> bool:
    """Whether a program ends well."""
    try:
        run(command, timeout_s=timeout_s)
    except CommandFailed:
        return False
    return True


def run_logged(command: Sequence[str], log: Path, *, timeout_s: float) -> None:
    """Run a program that says much, into a file; raises CommandFailed, which names the file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        try:
            ended = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, timeout=timeout_s, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            raise CommandFailed(command, f"no end within {timeout_s:.0f} s; its words are in {log}") from None
    if ended:
        last = log.read_text(errors="replace").splitlines()[-12:]
        raise CommandFailed(command, "\n".join(last) + f"\nfailed; all that it said is in {log}")


def _told(text: str) -> dict[str, Object]:
    """What somebody has told of each object: without its status, and what the server notes about it."""
    if not text.strip():
        return {}
    printed = cast("Object", json.loads(text))
    found: dict[str, Object] = {}
    for item in cast("list[Object]", printed.get("items", [printed])):
        metadata: Object = item["metadata"]
        told = {name: metadata.get(name) for name in ("labels", "annotations")}
        name = f"{item['kind']}/{metadata['name']}"
        found[name] = {key: value for key, value in item.items() if key not in {"metadata", "status"}} | told
    return found


class Kubectl:
    """kubectl on one context, which every call names: whatever the current one is, no other is touched."""

    def __init__(self, context: str, namespace: str) -> None:
        self.context = context
        self.namespace = namespace
        self._command = ("kubectl", f"--context={context}", f"--namespace={namespace}")

    def __call__(
        self,
        *arguments: str,
        stdin: str | None = None,
        timeout_s: float = TIMEOUT_S,
        output: IO[bytes] | None = None,
        source: IO[bytes] | None = None,
    ) -> str:
        return run((*self._command, *arguments), stdin=stdin, timeout_s=timeout_s, output=output, source=source)

    def get(self, *arguments: str) -> Object:
        """Objects as JSON; an empty list where there is none of these names."""
        text = self("get", *arguments, "--ignore-not-found", "--output=json")
        return cast("Object", json.loads(text)) if text.strip() else {"items": []}

    def items(self, *arguments: str) -> list[Object]:
        """A list of objects."""
        found = self.get(*arguments)
        return cast("list[Object]", found.get("items", [found]))

    def apply(self, objects: Sequence[Object]) -> list[str]:
        """Apply objects, and return the names of those that were created or changed.

        The server merges: what it defaults, and what belongs to others (an autoscaler's `replicas`), stays as it is.
        Whatever of the manifests somebody has changed by hand is set back.
        """
        if not objects:
            return []
        whole = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        command = ("kubectl", f"--context={self.context}")  # each object names its own namespace
        there = run((*command, "get", "--ignore-not-found", "--output=json", "--filename=-"), stdin=whole)
        options = ("--server-side", "--force-conflicts", f"--field-manager={FIELD_MANAGER}", "--output=json")
        applied = run((*command, "apply", *options, "--filename=-"), stdin=whole)
        before = _told(there)
        return [name for name, item in _told(applied).items() if before.get(name) != item]

    @contextmanager
    def forwarded(self, target: str, port: int) -> Generator[str, None, None]:
        """An origin on this machine that leads to a port of a pod, past the network policies, as whoever may do so."""
        command = (*self._command, "port-forward", target, f":{port}")
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            try:
                first = process.stdout.readline()
                found = re.search(r"127\.0\.0\.1:(\d+)", first)
                if found is None:
                    process.terminate()
                    raise CommandFailed(command[3:], first + process.stderr.read())
                yield f"http://127.0.0.1:{found[1]}"
            finally:
                process.terminate()
