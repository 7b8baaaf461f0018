"""Loopback ports: found free, and kept for one part for as long as the stack lives."""

import errno
import random
import socket
import sys

LOOPBACK = "127.0.0.1"
FIRST, LAST = 15_000, 30_000  # below the ranges from which systems give ports to outgoing connections
TRIES = 200


class PortTaken(Exception):
    """Another program listens on the wanted port."""


class Port:
    """A loopback port set aside for one part.

    A bound but not listening socket holds it: until `hand_over` nobody else can bind it, and after that
    (Linux) a server may listen beside it, while no outgoing connection is ever given the number during
    the moment in which its server is restarted. Elsewhere two sockets cannot share a port, so there the
    hold ends with `hand_over`.
    """

    def __init__(self, holder: socket.socket) -> None:
        self._holder = holder
        self.number: int = holder.getsockname()[1]

    def hand_over(self) -> None:
        """Let a server bind the port from now on."""
        if sys.platform == "linux":
            self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            self._holder.close()

    def close(self) -> None:
        """Give the port up."""
        self._holder.close()


def any_free() -> Port:
    """A free port of our range; raises PortTaken after too many tries."""
    for _ in range(TRIES):
        try:
            return _exclusive(random.randint(FIRST, LAST))  # noqa: S311 - a port number is no secret
        except OSError:
            continue
    message = f"no free port found on {LOOPBACK} between {FIRST} and {LAST}"
    raise PortTaken(message)


def wanted(number: int) -> Port:
    """The port `number`; raises PortTaken when another program has it."""
    try:
        return _exclusive(number)
    except OSError as error:
        if error.errno != errno.EADDRINUSE or listens(number):
            raise PortTaken(f"port {number} on {LOOPBACK} cannot be used: {error.strerror}") from error
    # In use, yet nobody listens: connections of a stack that has just stopped, in TIME_WAIT.
    try:
        return _exclusive(number, beside_old_connections=True)
    except OSError as error:
        raise PortTaken(f"port {number} on {LOOPBACK} cannot be used: {error.strerror}") from error


def listens(number: int, timeout_s: float = 0.3) -> bool:
    """Whether a server accepts connections on the loopback port."""
    try:
        socket.create_connection((LOOPBACK, number), timeout_s).close()
    except OSError:
        return False
    return True


def _exclusive(number: int, *, beside_old_connections: bool = False) -> Port:
    holder = socket.socket()
    try:
        if beside_old_connections:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((LOOPBACK, number))
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except BaseException:
        holder.close()
        raise
    return Port(holder)
