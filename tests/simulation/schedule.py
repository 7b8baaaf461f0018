"""Threads that take turns: each runs until a point where the seed lets another go on, or ends it."""

import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import Enum, auto
from itertools import chain, repeat
from pathlib import Path
from random import Random
from typing import Any

ROOT = str(Path(__file__).parents[2])
OURS = (f"{ROOT}/shared/", f"{ROOT}/payment_worker/", f"{ROOT}/payment_api/")
PLUMBING = ("database.py", "rows.py", "tracing.py")
# A statement that takes longer may wait for a lock; each look asks PostgreSQL, so they become rarer.
LOOK_FOR_LOCK_S = (0.02, 0.02, 0.05)
STUCK_S = 120.0
HELD_UP = (6, 24)  # choices that go by meanwhile


class Crash(BaseException):
    """The process dies here; like a kill it passes every `except Exception`."""


class Stuck(Exception):
    """The simulation itself does not go on."""


class State(Enum):
    """What an actor does at this moment."""

    READY = auto()  # may be given its turn
    RUNNING = auto()
    WAITING = auto()  # for a lock that another actor's transaction holds
    DONE = auto()


class Actor:
    """One thread of one process: a request, a task, a round of a loop."""

    def __init__(self, number: int, name: str, work: Callable[[], Any]) -> None:
        """Nothing is done before the first turn."""
        self.number = number
        self.name = f"{name}#{number}"
        self.work = work
        self.state = State.READY
        self.dead = False
        self.result: Any = None
        self.error: Exception | None = None
        self.backends: list[int] = []  # server processes of the connections that it holds
        self.backend: int | None = None  # of the statement under way
        self.turn = threading.Semaphore(0)
        self.arrived = threading.Event()  # its statement is over after all
        self.held_up = 0  # for so many choices yet nobody gives it the turn, unless others wait for it
        self.held_up_at = ""


class Scheduler:
    """Gives the turn to one actor at a time; everything that is chosen is chosen by the seed."""

    def __init__(self, threads: ThreadPoolExecutor, blockers: Callable[[int], Collection[int]]) -> None:
        """`blockers` names the server processes that the given one waits for."""
        self._threads = threads
        self._blockers = blockers
        self._here = threading.local()
        self._home = threading.Semaphore(0)
        self.begin(Random(0))

    def begin(self, chance: Random) -> None:
        """Forget everything; from now on `chance` decides."""
        self.chance = chance
        self.actors: list[Actor] = []
        self.waiting: list[Actor] = []
        self.current: Actor | None = None
        self.trace: list[str] = []
        self.crashes: dict[str, int] = {}
        self.deadlocks = 0
        self.statements = 0
        self.crash_share = self.switch_share = 0.0
        self.held_up_shares: Mapping[str, float] = {}  # by the beginnings of the points' names
        self._count = 0

    @property
    def here(self) -> Actor | None:
        """The actor whose thread this is; None in the director's own."""
        actor: Actor | None = getattr(self._here, "actor", None)
        return actor

    def note(self, what: str) -> None:
        """Write a line of the trace."""
        here = self.here
        self.trace.append(f"{here.name}: {what}" if here else what)

    def start(self, name: str, work: Callable[[], Any]) -> Actor:
        """Make an actor that may be given its turn."""
        self._count += 1
        actor = Actor(self._count, name, work)
        self.actors.append(actor)
        self._threads.submit(self._live, actor)
        return actor

    def _live(self, actor: Actor) -> None:
        actor.turn.acquire()
        self._here.actor = actor
        try:
            self._check_alive(actor)
            actor.result = actor.work()
        except Crash:
            actor.dead = True
        except Exception as error:  # noqa: BLE001 - the director tells what it means
            actor.error = error
        finally:
            self._here.actor = None
            actor.state = State.DONE
            self._home.release()

    def point(self, what: str, *, may_crash: bool = True) -> None:
        """Here the turn may pass to another actor, and this one may die. Raises Crash."""
        actor = self.here
        if actor is None:
            return
        self._check_alive(actor)
        draw = self.chance.random()
        if may_crash and draw < self.crash_share:
            self._die(actor, what)
        if draw >= 1 - self.switch_share:
            self._pass_on(actor)
            self._check_alive(actor)
        if self.held_up_shares and self.switch_share:
            self._hold_up(actor, what)

    def _hold_up(self, actor: Actor, what: str) -> None:
        """Let others go on for a good while, now and then."""
        share = next((share for name, share in self.held_up_shares.items() if what.startswith(name)), 0.0)
        if share and self.chance.random() < share:
            actor.held_up, actor.held_up_at = self.chance.randint(*HELD_UP), what
            self.note(f"HELD UP before {what}")
            self._pass_on(actor)
            actor.held_up, actor.held_up_at = 0, ""
            self._check_alive(actor)

    def choice_goes_by(self) -> None:
        """Whoever is held up is so for one choice less."""
        for actor in self.actors:
            actor.held_up = max(0, actor.held_up - 1)

    def _die(self, actor: Actor, what: str) -> None:
        actor.dead = True
        kind = what.partition(" ")[0]
        self.crashes[kind] = self.crashes.get(kind, 0) + 1
        self.note(f"CRASH before {what}")
        raise Crash

    @staticmethod
    def _check_alive(actor: Actor) -> None:
        if actor.dead:
            raise Crash

    def _pass_on(self, actor: Actor) -> None:
        actor.state = State.READY
        self._home.release()
        actor.turn.acquire()

    def run(self, actor: Actor) -> None:
        """Give an actor its turn; returns when it passes it on, waits for a lock, or is done."""
        if actor.state is not State.READY:
            raise Stuck(f"{actor.name} is {actor.state}")
        self.current = actor
        actor.state = State.RUNNING
        actor.turn.release()
        for pause_s in _pauses_s(f"{actor.name} does not come back"):
            if self._home.acquire(timeout=pause_s):
                break
            if self._is_blocked(actor):
                self.note(f"{actor.name}: waits for a lock")
                actor.state = State.WAITING
                self.waiting.append(actor)
                break
        self.current = None
        self.actors = [each for each in self.actors if each.state is not State.DONE]

    def _holders(self, actor: Actor) -> list[Actor]:
        """The actors whose transactions this one waits for."""
        if actor.backend is None:
            return []
        pids = set(self._blockers(actor.backend))
        return [each for each in self.actors if each is not actor and pids & set(each.backends)]

    def _is_blocked(self, actor: Actor) -> bool:
        return bool(self._holders(actor))

    def holder(self) -> Actor | None:
        """Whoever must go on before anybody who waits can; None when nobody waits.

        As long as one waits nobody else begins: who comes next at a lock is then never a race.
        """
        for pause_s in _pauses_s("they wait for locks that nobody holds"):
            self.waiting = [each for each in self.waiting if not each.arrived.is_set()]
            for holder in (each for actor in self.waiting for each in self._holders(actor)):
                if holder.state is State.READY:
                    return holder
            if not self.waiting:
                break
            # They wait for each other: PostgreSQL will end one of them.
            self.waiting[0].arrived.wait(pause_s)
        return None

    def released(self) -> None:
        """A transaction has ended: wait until whoever waited for it has its answer, or waits for another."""
        for actor in list(self.waiting):
            for pause_s in _pauses_s(f"{actor.name} does not arrive"):
                if actor.arrived.wait(pause_s):
                    self.waiting.remove(actor)
                    break
                if self._is_blocked(actor):
                    break

    def began(self, backend: int) -> None:
        """A statement begins on the server process `backend`."""
        self.statements += 1
        if actor := self.here:
            actor.backend = backend

    def ended(self) -> None:
        """The statement is over; whoever has lost the turn over it waits to be given it again."""
        actor = self.here
        if actor is None:
            return
        actor.backend = None
        if actor.state is State.WAITING:
            actor.state = State.READY
            actor.arrived.set()
            actor.turn.acquire()
            actor.arrived.clear()


def _pauses_s(otherwise: str) -> Iterator[float]:
    """The pauses between looks, in seconds. Raises Stuck after a long time."""
    waited = 0.0
    for pause_s in chain(LOOK_FOR_LOCK_S, repeat(LOOK_FOR_LOCK_S[-1])):
        yield pause_s
        waited += pause_s
        if waited > STUCK_S:
            raise Stuck(otherwise)


def where() -> str:
    """The function of ours that is about to do something, as module.function."""
    frame = sys._getframe(1)
    while frame := frame.f_back:  # type: ignore[assignment]
        path = frame.f_code.co_filename
        if path.startswith(OURS) and not path.endswith(PLUMBING):
            return f"{path[len(ROOT) + 1 : -3].replace('/', '.')}.{frame.f_code.co_name}"
    return "simulation"
