"""The state folder (STATE_DIR): its lock, which processes run for it and where they answer."""

import contextlib
import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil

SUPERVISOR = "supervisor"  # the name under which the supervisor itself stands in pids.json
START_TOLERANCE_S = 2.0  # psutil derives start times from the wall clock, which may be stepped a little
LOCK_POLL_S = 0.05


class StackIsLive(Exception):
    """The state folder belongs to a stack that runs; the message names it."""


@dataclass(frozen=True)
class Recorded:
    """One line of pids.json: a process by pid and start time, so that a reused pid is never mistaken."""

    pid: int
    start_time: float
    ready: bool = False

    @classmethod
    def of(cls, pid: int, *, ready: bool = False) -> Self:
        """Record the process `pid`, also when it has ended meanwhile (its start is then now)."""
        try:
            return cls(pid, psutil.Process(pid).create_time(), ready)
        except psutil.NoSuchProcess:
            return cls(pid, time.time(), ready)

    def process(self) -> psutil.Process | None:
        """The process while it lives and is the recorded one, else None."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.start_time) <= START_TOLERANCE_S
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


class StateFolder:
    """Paths and small files of one STATE_DIR."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.logs = self.path / "logs"
        self.endpoints_file = self.path / "endpoints.json"
        self.pids_file = self.path / "pids.json"
        self.password_file = self.path / "postgres.password"
        self.jwt_secret_file = self.path / "jwt.secret"
        self.data_key_file = self.path / "data.key"
        self._pids: dict[str, Recorded] = {}
        self._pids_guard = threading.Lock()

    def create(self) -> None:
        """Make the folder and its log folder; raises OSError where that is not allowed."""
        self.path.mkdir(parents=True, exist_ok=True)
        self.logs.mkdir(exist_ok=True)

    @contextlib.contextmanager
    def locked(self, wait_s: float = 0.0) -> Iterator[None]:
        """Hold the folder for this process alone.

        Waits up to `wait_s` for a holder that is only clearing up; raises StackIsLive at once when a
        supervisor holds it, and after the wait otherwise. The kernel frees the lock with its holder.
        """
        with (self.path / "lock").open("w") as file:
            deadline = time.monotonic() + wait_s
            while not _try_lock(file.fileno()):
                supervisor = self.read_pids().get(SUPERVISOR)
                alive = supervisor is not None and supervisor.process() is not None
                if alive or time.monotonic() >= deadline:
                    raise StackIsLive(self._who_holds_it(supervisor))
                time.sleep(LOCK_POLL_S)
            yield

    def _who_holds_it(self, supervisor: Recorded | None) -> str:
        pid = f"pid {supervisor.pid}" if supervisor else "pid not yet known"
        endpoints = self.read_endpoints()
        where = f"api_url {endpoints.get('api_url')}" if endpoints else "still starting or stopping"
        return f"STATE_DIR {self.path} has a live stack ({pid}, {where}); stop it or set another STATE_DIR"

    def read_pids(self) -> dict[str, Recorded]:
        """What pids.json says; empty when there is none or it cannot be read."""
        entries = _read_json(self.pids_file)
        with contextlib.suppress(KeyError, TypeError, ValueError):
            return {
                name: Recorded(int(e["pid"]), float(e["start_time"]), bool(e.get("ready")))
                for name, e in entries.items()
            }
        return {}

    def record(self, name: str, entry: Recorded | None) -> None:
        """Set or remove one process of pids.json; safe from several threads."""
        with self._pids_guard:
            if entry is None:
                self._pids.pop(name, None)
            else:
                self._pids[name] = entry
            content = {
                n: {"pid": e.pid, "start_time": e.start_time, "ready": e.ready} for n, e in self._pids.items()
            }
            write_private(self.pids_file, json.dumps(content, indent=2) + "\n")

    def recorded(self) -> dict[str, Recorded]:
        """The processes that this supervisor has recorded and not yet removed."""
        with self._pids_guard:
            return dict(self._pids)

    def read_endpoints(self) -> dict[str, Any]:
        """What endpoints.json says; empty while the stack is not ready."""
        return _read_json(self.endpoints_file)

    def write_endpoints(self, endpoints: dict[str, Any]) -> None:
        """Say where everything answers. Readable by its owner only: the database URL holds a password."""
        write_private(self.endpoints_file, json.dumps(endpoints, indent=2) + "\n")

    def forget_run(self) -> None:
        """Remove what is true only while a stack runs."""
        self.endpoints_file.unlink(missing_ok=True)
        self.pids_file.unlink(missing_ok=True)


def write_private(path: Path, text: str) -> None:
    """Write a whole file at once (readers see the old or the new one), mode 600."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
