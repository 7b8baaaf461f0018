"""Start an embedded stack from Python (the demo, tests) and end it again, whatever becomes of the starter."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO

from deploy.local.output import logged
from deploy.local.outside import DECIDING
from deploy.local.parts import ROOT
from deploy.local.state import SUPERVISOR, StateFolder
from shared.settings import Settings

POLL_S = 0.02
STOP_TIMEOUT_S = 20.0
SETTINGS = {*(each.name.upper() for each in fields(Settings)), *DECIDING, "WEBHOOKS"}  # services', stack's


class StackFailed(Exception):
    """The stack did not come up, or a part did not come back; the message shows the last lines."""


@dataclass(frozen=True)
class Endpoints:
    """Where a running stack answers; `api_url` is None with servers only, `stripe_api_url` for Stripe."""

    api_url: str | None
    kafka_bootstrap_servers: str
    database_url: str
    redis_url: str
    stripe_api_url: str | None
    health_urls: dict[str, str]  # by process; empty with servers only


class RunningStack:
    """A stack that is up."""

    def __init__(self, state: StateFolder, supervisor: subprocess.Popen[bytes]) -> None:
        self.state_dir = state.path
        self._state = state
        self._supervisor = supervisor
        said = state.read_endpoints()
        self.endpoints = Endpoints(**{field.name: said[field.name] for field in fields(Endpoints)})

    def pid_of(self, name: str) -> int:
        """The pid of a part ("tasks", "broker", ..., "supervisor"); raises KeyError while it does not run."""
        return self._state.read_pids()[name].pid

    def kill(self, name: str) -> int:
        """Kill a part with -9, as a crash would; returns the pid that it had."""
        pid = self.pid_of(name)
        os.kill(pid, signal.SIGKILL)
        return pid

    def wait_restarted(self, name: str, old_pid: int, timeout_s: float = 180.0) -> int:
        """Wait until the part runs under another pid and is ready; returns it. Raises StackFailed.

        The broker is ready when its topics are there again (with servers only: when it answers).
        """
        otherwise = f"{name} is not back after {timeout_s:g} s"
        _wait(lambda: self.is_back(name, old_pid), self._supervisor, timeout_s, otherwise)
        return self.pid_of(name)

    def is_back(self, name: str, old_pid: int) -> bool:
        """Whether the part runs under another pid and is ready. Raises StackFailed at the stack's end."""
        if self._supervisor.poll() is not None:
            message = f"the stack has ended with status {self._supervisor.returncode}"
            raise StackFailed(message)
        entry = self._state.read_pids().get(name)
        return entry is not None and entry.pid != old_pid and entry.ready

    def log(self, name: str) -> str:
        """What the part has written in this run so far."""
        return logged(self._state.logs, name)


@contextlib.contextmanager
def running_stack(
    state_dir: Path | str,
    *,
    only_servers: bool = False,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 180.0,
) -> Iterator[RunningStack]:
    """A stack of one's own on free ports for the length of the block; raises StackFailed.

    No setting is inherited from this process's environment (a test must not flush somebody's database, a
    demo not wait for somebody's topics); `env` sets them on purpose. The stack ends with the block, and
    also when this process is killed.
    """
    state = StateFolder(Path(state_dir))
    environment = _environment(state, env or {})
    argv = [sys.executable, "-m", "deploy.local", "--quiet", "--stop-with", str(os.getpid())]
    argv += ["--only", "servers"] if only_servers else []
    with tempfile.TemporaryFile() as words:
        supervisor = subprocess.Popen(
            argv,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=words,
            start_new_session=True,  # Ctrl-C reaches the starter alone, which then ends this block
        )
        try:
            _wait_ready(state, supervisor, timeout_s, words)
            yield RunningStack(state, supervisor)
        finally:
            _stop(supervisor)


def without_settings(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment without every setting of the services and the stack, by its name or by NAME_FILE.

    What chooses the machinery stays: BROKER, POSTGRES_FSYNC, CALF_TANSU_BIN, STATE_DIR.
    """
    return {name: value for name, value in environment.items() if name.removesuffix("_FILE") not in SETTINGS}


def _environment(state: StateFolder, extra: Mapping[str, str]) -> dict[str, str]:
    return {**without_settings(), "PORT": "0", **extra, "STATE_DIR": str(state.path)}


def _wait_ready(
    state: StateFolder, supervisor: subprocess.Popen[bytes], timeout_s: float, words: IO[bytes]
) -> None:
    def is_ready() -> bool:
        recorded = state.read_pids().get(SUPERVISOR)
        return recorded is not None and recorded.pid == supervisor.pid and state.endpoints_file.exists()

    try:
        _wait(is_ready, supervisor, timeout_s, f"the stack is not ready after {timeout_s:g} s")
    except StackFailed as failure:
        _stop(supervisor)
        words.seek(0)
        own = logged(state.logs, SUPERVISOR)[-4000:]
        raise StackFailed(f"{failure}\n{words.read().decode(errors='replace')}\n{own}") from failure


def _wait(
    condition: Callable[[], bool], supervisor: subprocess.Popen[bytes], timeout_s: float, otherwise: str
) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if supervisor.poll() is not None:
            message = f"the stack has ended with status {supervisor.returncode}"
            raise StackFailed(message)
        if time.monotonic() >= deadline:
            raise StackFailed(otherwise)
        time.sleep(POLL_S)


def _stop(supervisor: subprocess.Popen[bytes]) -> None:
    """Ask, wait, and if need be kill: the watchdog then ends the rest."""
    supervisor.terminate()
    try:
        supervisor.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        supervisor.kill()
        supervisor.wait()
