"""Ending processes completely: the recorded ones, what they started, and what carries our mark."""

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Mapping

import psutil

from deploy.local.state import SUPERVISOR, Recorded

MARK = "PAYMENT_STACK_RUN"  # in the environment of every child: finds one that no record names yet
KILLED_WAIT_S = 1.0
POLL_S = 0.02
POSTGRES = "postgres"


def family(entry: Recorded) -> list[psutil.Process]:
    """The recorded process if it lives, its descendants, and everything in the session that it leads."""
    leader = entry.process()
    if leader is None and psutil.pid_exists(entry.pid):
        return []  # the pid belongs to a stranger by now
    found: dict[int, psutil.Process] = {}
    if leader is not None:
        found[leader.pid] = leader
        with contextlib.suppress(psutil.Error):
            found.update({child.pid: child for child in leader.children(recursive=True)})
    for pid in psutil.pids():
        with contextlib.suppress(psutil.Error, OSError):
            if pid not in found and os.getsid(pid) == entry.pid:
                found[pid] = psutil.Process(pid)
    return list(found.values())


def marked(run_id: str) -> list[psutil.Process]:
    """Every process started with the mark of the run `run_id`, as far as we may look."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == run_id:
                found.append(process)
    return found


def wait_gone(processes: Iterable[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Wait until all have ended; those that have not in time.

    A zombie has ended: whether somebody collects it (as pid 1 of a container often does not) is not ours.
    """
    deadline = time.monotonic() + timeout_s
    alive = [process for process in processes if not _is_gone(process)]
    while alive and time.monotonic() < deadline:
        time.sleep(POLL_S)
        alive = [process for process in alive if not _is_gone(process)]
    return alive


def _is_gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def kill(processes: Iterable[psutil.Process], wait_s: float = KILLED_WAIT_S) -> list[psutil.Process]:
    """End `processes` with SIGKILL and return those that are still there after `wait_s`."""
    victims = [process for process in processes if process.pid != os.getpid()]
    for process in victims:
        with contextlib.suppress(psutil.Error):
            process.kill()
    return wait_gone(victims, wait_s)


def end_recorded(
    entries: Mapping[str, Recorded],
    grace_s: float,
    run_id: str | None = None,
    killed_wait_s: float = KILLED_WAIT_S,
) -> int:
    """End all recorded processes but the supervisor, with their families; return how many there were.

    Each is first asked to stop; what is left after `grace_s` is killed. PostgreSQL is asked for its
    immediate stop, which ends every backend at once and recovers from its log at the next start.
    """
    everyone: dict[int, psutil.Process] = {}
    for name, entry in entries.items():
        if name == SUPERVISOR:
            continue
        everyone.update({process.pid: process for process in family(entry)})
        leader = entry.process()
        if leader is not None:
            with contextlib.suppress(psutil.Error):
                leader.send_signal(signal.SIGQUIT if name == POSTGRES else signal.SIGTERM)
    alive = wait_gone(everyone.values(), grace_s)
    late = marked(run_id) if run_id else []
    kill([*alive, *late], killed_wait_s)
    return len(everyone)
