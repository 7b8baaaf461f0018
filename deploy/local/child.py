"""One part of the stack kept running: started, probed, started again when it dies, stopped at the end."""

import contextlib
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from deploy.local.output import Output
from deploy.local.parts import ROOT, SETTLED_S, Job, NotInstalled, Part
from deploy.local.place import Account, NoPlace, identity
from deploy.local.processes import family, kill
from deploy.local.state import Recorded, StateFolder

FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 5.0
STEADY_S = 10.0  # a part that was up this long starts again with the first delay
POLL_S = 0.03
BAD_SETTING_STATUS = 2  # with it our own commands refuse a setting: trying again does not help
JOB_ATTEMPTS_AT_START = 3  # a bad setting must not be tried for ever; a broker that wakes up may need two
STARTED_BADLY = (NoPlace, NotInstalled, OSError, ValueError)


@dataclass(frozen=True)
class Ready:
    """A part is up and its jobs are done."""

    name: str


@dataclass(frozen=True)
class Ended:
    """A part has died without being asked to."""

    name: str
    times: int
    status: int


@dataclass(frozen=True)
class Failed:
    """A part or a job cannot be had at all."""

    name: str
    why: str


class Starts:
    """Whether processes may still be started; once it is closed, no start is under way either."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._closed = False

    @contextlib.contextmanager
    def allowed(self) -> Iterator[bool]:
        """Whether one may be started, for the length of the block."""
        with self._guard:
            yield not self._closed

    def close(self) -> None:
        """Allow none any more, and wait for the one that is under way."""
        with self._guard:
            self._closed = True


@dataclass
class Context:
    """What all parts of one run share."""

    state: StateFolder
    output: Output
    events: "queue.SimpleQueue[Any]" = field(default_factory=queue.SimpleQueue)
    starts: Starts = field(default_factory=Starts)
    stopping: threading.Event = field(default_factory=threading.Event)
    is_up: threading.Event = field(default_factory=threading.Event)


def describe(status: int) -> str:
    """An exit status as people say it: "exit status 1", "signal SIGKILL"."""
    if status >= 0:
        return f"exit status {status}"
    with contextlib.suppress(ValueError):
        return f"signal {signal.Signals(-status).name}"
    return f"signal {-status}"


def start(
    context: Context,
    name: str,
    argv: list[str],
    environment: Mapping[str, str],
    *,
    cwd: Path,
    account: Account | None = None,
) -> subprocess.Popen[bytes] | None:
    """Start a process in its own session, record it and pass on its lines; None once none may start."""
    with context.starts.allowed() as allowed:
        if not allowed:
            return None
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # the terminal's signals reach the supervisor alone: it keeps the order
            env=dict(environment),
            cwd=cwd,
            **identity(account),
        )
        context.state.record(name, Recorded.of(process.pid))
    threading.Thread(target=context.output.pump, args=(name, process.stdout), daemon=True).start()
    return process


def run_job(
    context: Context, job: Job, gone: threading.Event, attempts_at_start: int = JOB_ATTEMPTS_AT_START
) -> bool:
    """Run a job until it succeeds; False when its part has `gone`, the stack stops, or it is given up."""
    delay_s, attempts = FIRST_DELAY_S, 0
    while not (gone.is_set() or context.stopping.is_set()):
        process = start(context, job.name, job.argv, job.environment, cwd=ROOT)
        if process is None:
            return False
        status = process.wait()
        with context.starts.allowed() as still:
            if still:  # else the record of the whole run may be gone already
                context.state.record(job.name, None)
        if status == 0:
            return True
        attempts += 1
        hopeless = status == BAD_SETTING_STATUS or attempts >= attempts_at_start
        if hopeless and not context.is_up.is_set():
            context.events.put(Failed(job.name, f"{describe(status)} at attempt {attempts}"))
            return False
        context.output.say(f"{job.name} failed ({describe(status)}); trying again in {delay_s:g} s")
        gone.wait(delay_s)
        delay_s = min(delay_s * 2, LONGEST_DELAY_S)
    return False


class Child:
    """Keeps one part running in a thread of its own."""

    def __init__(self, part: Part, context: Context) -> None:
        self.part = part
        self._context = context
        self._guard = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._entry: Recorded | None = None
        self._jobs_done = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=part.name, daemon=True)

    def start(self) -> None:
        """Begin; events tell what becomes of it."""
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Send the part its own stop signal, and start it no more."""
        self._signal(self.part.stop_signal)

    def force_to_stop(self) -> None:
        """Send the part the signal that ends it now; PostgreSQL takes its backends along by itself."""
        self._signal(self.part.kill_signal)

    def left(self) -> list[psutil.Process]:
        """The part's process and everything it has started, as far as they live."""
        return family(self._entry) if self._entry is not None else []

    def has_ended(self) -> bool:
        """Whether nothing of the part runs any more, nor its preparation."""
        return not self._thread.is_alive()

    def _signal(self, number: signal.Signals) -> None:
        with self._guard:
            self._stopping.set()
            if self._process is not None:
                self._process.send_signal(number)

    def _keep(self) -> None:
        try:
            if self.part.prepare:
                self.part.prepare()
        except STARTED_BADLY as error:
            self._context.events.put(Failed(self.part.name, str(error)))
            return
        delay_s, deaths = FIRST_DELAY_S, 0
        while not self._stopping.is_set():
            began = time.monotonic()
            how, status = self._live_once()
            if self._stopping.is_set():
                return
            if time.monotonic() - began > STEADY_S:
                delay_s = FIRST_DELAY_S
            deaths += 1
            self._context.output.say(f"{self.part.name} {how}; starting it again in {delay_s:g} s")
            self._context.events.put(Ended(self.part.name, deaths, status))
            self._stopping.wait(delay_s)
            delay_s = min(delay_s * 2, LONGEST_DELAY_S)

    def _live_once(self) -> tuple[str, int]:
        """Start the part and outlive it: what became of it in words, and its exit status."""
        try:
            process = self._spawn()
            status = self._outlive(process) if process else 0
        except STARTED_BADLY as error:
            if not self._context.is_up.is_set():
                self._context.events.put(Failed(self.part.name, str(error)))
            return f"could not be started ({error})", 1
        return f"ended ({describe(status)})", status

    def _spawn(self) -> subprocess.Popen[bytes] | None:
        part = self.part
        with self._guard:
            if self._stopping.is_set():
                return None
            if part.before_start:
                part.before_start()
            if part.port:
                part.port.hand_over()
            self._process = start(
                self._context, part.name, part.argv(), part.environment, cwd=part.cwd, account=part.account()
            )
            if self._process is not None:
                self._entry = Recorded.of(self._process.pid)
            return self._process

    def _outlive(self, process: subprocess.Popen[bytes]) -> int:
        """Announce the process when it is up, wait for its end, clear up behind it; its exit status."""
        gone = threading.Event()
        threading.Thread(target=self._announce, args=(gone,), daemon=True).start()
        status = process.wait()
        with self._guard:
            gone.set()
            self._process = None
            self._context.state.record(self.part.name, None)
        if self._entry is not None:
            kill(family(self._entry))  # workers that outlive their parent would hold its port
        return status

    def _announce(self, gone: threading.Event) -> None:
        began = time.monotonic()
        while not self._is_up(began):
            if gone.wait(POLL_S):
                return
        for job in self.part.jobs:
            wanted = job.after_every_start or not self._jobs_done
            if wanted and not run_job(self._context, job, gone):
                return
        with self._guard:
            if not gone.is_set() and self._process is not None:
                self._jobs_done = True
                self._context.state.record(self.part.name, Recorded.of(self._process.pid, ready=True))
                self._context.events.put(Ready(self.part.name))

    def _is_up(self, began: float) -> bool:
        if self.part.answers is None:
            return time.monotonic() - began >= SETTLED_S
        return self.part.answers()
