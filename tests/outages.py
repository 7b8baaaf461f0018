"""Take a part of a running stack away for as long as a test needs."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from deploy.local.client import RunningStack
from tests.waiting import wait_until

DOWN_S = 30.0


@contextmanager
def held_down(stack: RunningStack, name: str) -> Iterator[None]:
    """Kill a part with -9 and keep it down within the block; it is back after the block.

    The supervisor is stopped meanwhile, so that it cannot start the part again.
    """
    supervisor = psutil.Process(stack.pid_of("supervisor"))
    supervisor.suspend()
    try:
        part = psutil.Process(stack.pid_of(name))
        children = part.children(recursive=True)
        os.kill(part.pid, signal.SIGKILL)
        wait_until(lambda: not any(map(_lives, [part, *children])), DOWN_S, f"the end of {name}")
        yield
    finally:
        supervisor.resume()
    stack.wait_restarted(name, part.pid)


def _lives(process: psutil.Process) -> bool:
    """Tell whether a process still runs; its parent may not have taken note of its end."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
