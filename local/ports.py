"""TCP ports of this machine that nobody listens on, for servers that are started for a while."""

import socket
from secrets import randbelow


def free_ports(count: int) -> int:
    """Find as many ports in a row on which nobody listens, and return the first.

    They are below those that the system gives to outgoing connections, one of which could take a port before its
    server does.
    """
    while True:
        first = 20_000 + randbelow(12_000 - count)
        if all(_is_free(port) for port in range(first, first + count)):
            return first


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
