"""Start the embedded stack in order, keep it running, and end all of it whatever happens."""

import contextlib
import os
import queue
import secrets
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from deploy.local.child import (
    BAD_SETTING_STATUS,
    Child,
    Context,
    Ended,
    Failed,
    Ready,
    describe,
    run_job,
)
from deploy.local.output import Output
from deploy.local.parts import Job
from deploy.local.place import bring_home
from deploy.local.plan import make_plan
from deploy.local.processes import MARK, end_recorded, kill, marked
from deploy.local.ready import ready_block
from deploy.local.state import SUPERVISOR, Recorded, StateFolder
from deploy.local.stops import Pace, Stop, quickly
from deploy.local.watchdog import Watchdog

START_TIMEOUT_S = 60.0
DEATHS_AT_START = 5  # more often a part may not die before the stack is up; PostgreSQL may need a few tries
LEFTOVERS_GRACE_S = 2.0
LOCK_WAIT_S = 6.0  # a watchdog may still be clearing up behind the supervisor before us
PARENT_POLL_S = 0.2
STOP_POLL_S = 0.03
FORCED_S = 1.0  # what was killed may take so long to be gone
QUIT_S = 0.5  # PostgreSQL's immediate stop; then its processes are killed one by one
JOBS_S = 0.5
WATCHDOG_LEAVES_S = 1.0
SCREEN_S = 1.0


class StartFailed(Exception):
    """The stack could not be brought up; the message says which part and shows its last lines."""


def _is_hopeless(event: Ended) -> bool:
    return event.times >= DEATHS_AT_START or event.status == BAD_SETTING_STATUS


class Supervisor:
    """One run of the stack on a locked state folder."""

    def __init__(self, state: StateFolder, *, only_servers: bool, quiet: bool, stop_with: list[int]) -> None:
        self._state = state
        self._only_servers = only_servers
        self._quiet = quiet
        self._stop_with = stop_with
        self._run_id = os.environ[MARK] = secrets.token_hex(8)
        self._context = Context(state, Output(state.logs, quiet=quiet))
        self._children: list[Child] = []
        self._watchdog = Watchdog(state, self._run_id)

    def run(self) -> None:
        """Serve until asked to stop. Raises StartFailed and what `make_plan` raises."""
        began = time.monotonic()
        self._catch_signals()
        with self._state.locked(LOCK_WAIT_S):
            self._end_leftovers()
            self._state.record(SUPERVISOR, Recorded.of(os.getpid()))
            self._watchdog.start()
            stop = Stop("the start failed")
            try:
                stop = self._start(began) or self._serve()
                self._context.output.say(f"stopping: {stop.why}")
            finally:
                self._stop_all(stop)

    def _catch_signals(self) -> None:
        def note(number: int, _frame: FrameType | None) -> None:
            name = signal.Signals(number).name
            stop = quickly(name) if number == signal.SIGHUP else Stop(name, by_a_person=True)
            self._context.events.put(stop)

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:  # under nohup a hang-up stays ignored
                signal.signal(number, note)
        for pid in self._stop_with:
            threading.Thread(target=self._watch, args=(Recorded.of(pid),), daemon=True).start()

        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            threading.Thread(target=self._watch_terminal, daemon=True).start()

    def _watch_terminal(self) -> None:
        """Notice a closed terminal also where the signal stops at its first process (`xterm -e make run`)."""
        poll = select.poll()
        for descriptor in (0, 1, 2):
            with contextlib.suppress(OSError):
                if os.isatty(descriptor):
                    poll.register(descriptor, 0)
                    if poll.poll()[0][1] & select.POLLHUP:
                        self._context.events.put(quickly("the terminal was closed"))
                    return

    def _watch(self, starter: Recorded) -> None:
        while starter.process() is not None:
            time.sleep(PARENT_POLL_S)
        self._context.events.put(quickly(f"process {starter.pid}, which started it, has ended"))

    def _end_leftovers(self) -> None:
        leftovers = self._state.read_pids()
        ended = end_recorded(leftovers, LEFTOVERS_GRACE_S)
        if ended:
            self._context.output.say(f"ended {ended} processes left by an earlier run that was killed")
        self._state.forget_run()
        bring_home(self._state)

    def _start(self, began: float) -> Stop | None:
        """Bring everything up; None when it is, else the stop that came in between."""
        say = self._context.output.say
        pretty = sys.stdout.isatty() and not self._quiet
        plan = make_plan(self._state, only_servers=self._only_servers, pretty=pretty)
        for note in plan.notes:
            say(note)
        deadline = began + START_TIMEOUT_S
        for parts, jobs in ((plan.servers, plan.jobs), (plan.services, [])):
            stop = self._bring_up([Child(part, self._context) for part in parts], jobs, deadline)
            if stop is not None:
                return stop
        self._context.is_up.set()
        self._state.write_endpoints(plan.endpoints)
        say(ready_block(plan.endpoints, plan.identity, time.monotonic() - began))
        return None

    def _bring_up(self, children: list[Child], jobs: list[Job], deadline: float) -> Stop | None:
        """Start all at once and wait until each is ready; raises StartFailed."""
        self._children += children
        for child in children:
            child.start()
        for job in jobs:
            threading.Thread(target=self._run_outside_job, args=(job,), daemon=True).start()
        missing = {child.part.name for child in children} | {job.name for job in jobs}
        while missing:
            event = self._next_event(deadline)
            if isinstance(event, Stop):
                return event
            if event is None:
                raise StartFailed(self._failure(min(missing), f"not up after {START_TIMEOUT_S:g} s"))
            if isinstance(event, Failed):
                raise StartFailed(self._failure(event.name, event.why))
            if isinstance(event, Ended) and _is_hopeless(event):
                why = f"ended {event.times} times, {describe(event.status)}"
                raise StartFailed(self._failure(event.name, why))
            if isinstance(event, Ready):
                missing.discard(event.name)
        return None

    def _run_outside_job(self, job: Job) -> None:
        # An outside server may be down just now: it is tried for as long as the start may take.
        if run_job(self._context, job, self._context.stopping, sys.maxsize):
            self._context.events.put(Ready(job.name))

    def _next_event(self, deadline: float) -> object:
        try:
            event: object = self._context.events.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return None
        return event

    def _failure(self, name: str, why: str) -> str:
        return f"{name}: {why}\n{self._context.output.tail(name)}".rstrip()

    def _serve(self) -> Stop:
        while True:
            event = self._context.events.get()
            if isinstance(event, Stop):
                return event

    def _stop_all(self, stop: Stop) -> None:
        """Everything in the reverse order of its start, our own processes first."""
        self._context.stopping.set()
        pace = Pace(stop)
        self._state.endpoints_file.unlink(missing_ok=True)
        services = [child for child in self._children if not child.part.is_server]
        servers = [child for child in self._children if child.part.is_server]
        self._stop_wave(services, pace, lambda stop: stop.services_s)
        self._stop_wave(servers, pace, lambda stop: stop.servers_s)
        in_order = self._end_the_rest(pace)
        bring_home(self._state)
        self._state.forget_run()
        self._watchdog.dismiss(in_order=in_order, wait_s=pace.left_s(WATCHDOG_LEAVES_S))
        self._context.output.close(pace.left_s(SCREEN_S))

    def _stop_wave(self, children: list[Child], pace: Pace, grace_s: Callable[[Stop], float]) -> None:
        until = pace.until(grace_s(pace.stop))
        for child in reversed(children):
            child.ask_to_stop()
        while not self._have_ended(children, min(until, time.monotonic() + STOP_POLL_S)):
            for again in self._asked_again():
                pace.hasten(again)
                until = min(until, pace.until(grace_s(pace.stop)))
            if time.monotonic() >= until:
                break
        self._force([child for child in reversed(children) if not child.has_ended()], pace)

    def _asked_again(self) -> Iterator[Stop]:
        with contextlib.suppress(queue.Empty):
            while True:
                event = self._context.events.get_nowait()
                if isinstance(event, Stop):
                    yield event

    def _have_ended(self, children: list[Child], until: float) -> bool:
        """Whether all of them have, waiting for it until the given moment."""
        while not all(child.has_ended() for child in children):
            if time.monotonic() >= until:
                return False
            time.sleep(STOP_POLL_S)
        return True

    def _force(self, late: list[Child], pace: Pace) -> None:
        until = pace.until(FORCED_S)
        for child in late:
            self._context.output.say(f"{child.part.name} has not stopped in time; killing it")
            child.force_to_stop()
        if not self._have_ended(late, pace.until(QUIT_S)):
            kill([process for child in late if not child.has_ended() for process in child.left()], wait_s=0.0)
            self._have_ended(late, until)

    def _end_the_rest(self, pace: Pace) -> bool:
        """End what the waves do not know, as a migration; whether nothing is left and nothing can come."""
        self._context.starts.close()
        end_recorded(self._state.recorded(), pace.left_s(JOBS_S), killed_wait_s=pace.left_s(FORCED_S))
        # A part that was just being prepared has processes that no record names (initdb), one by one.
        for _ in range(2):
            none_can_come = self._have_ended(self._children, pace.until(0.0))
            left = kill(marked(self._run_id), pace.left_s(FORCED_S))
            if none_can_come and not left:
                return True
            self._have_ended(self._children, pace.until(FORCED_S))
        return False
