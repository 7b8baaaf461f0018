"""Take a part of a running stack away for as long as a test needs."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import psutil
from psycopg import sql

from deploy.local.client import RunningStack
from tests.conftest import Servers
from tests.waiting import wait_until

DOWN_S = 30.0


@contextmanager
def held_down(stack: RunningStack, *names: str) -> Iterator[None]:
    """Kill parts with -9 and keep them down within the block; they are back after the block.

    The supervisor is stopped meanwhile, so that it cannot start them again.
    """
    supervisor = psutil.Process(stack.pid_of("supervisor"))
    pids = {name: stack.pid_of(name) for name in names}
    supervisor.suspend()
    try:
        for name, pid in pids.items():
            part = psutil.Process(pid)
            family = [part, *part.children(recursive=True)]
            os.kill(pid, signal.SIGKILL)
            wait_until(partial(_none_lives, family), DOWN_S, f"the end of {name}")
        yield
    finally:
        supervisor.resume()
    for name, pid in pids.items():
        stack.wait_restarted(name, pid)


def _none_lives(processes: list[psutil.Process]) -> bool:
    return not any(map(_lives, processes))


@contextmanager
def only_reading(servers: Servers, database_url: str) -> Iterator[None]:
    """Within the block a database takes no writes, as a server that another has taken over from.

    Sessions from before the block are ended; those from within it stay as they are after it.
    """
    name = database_url.rpartition("/")[2]
    change = sql.SQL("ALTER DATABASE {} {} default_transaction_read_only {}")
    end = sql.SQL("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = {}")
    servers.execute(change.format(sql.Identifier(name), sql.SQL("SET"), sql.SQL("= on")))
    servers.execute(end.format(sql.Literal(name)))
    try:
        yield
    finally:
        servers.execute(change.format(sql.Identifier(name), sql.SQL("RESET"), sql.SQL("")))


def _lives(process: psutil.Process) -> bool:
    """Tell whether a process still runs; its parent may not have taken note of its end."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
