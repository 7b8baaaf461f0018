"""Do one thing to a running stack, and tell when the part that it was done to is back."""

import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Final

import psutil
import psycopg
import redis
import requests

from deploy.local.client import RunningStack
from deploy.local.demo.stripe_control import StripeControl
from tests.chaos.schedule import Kind, Strike
from tests.waiting import wait_until

UP_S: Final = 90.0  # a part may still be coming back from the strike before
CONNECT_S: Final = 2
PARTS: Final[Mapping[Kind, str]] = MappingProxyType(
    {
        Kind.RELAY: "relay",
        Kind.CONSUMER: "consumer",
        Kind.TASKS: "tasks",
        Kind.SCHEDULER: "scheduler",
        Kind.VALKEY: "valkey",
        Kind.BROKER: "broker",
        Kind.POSTGRES: "postgres",
        Kind.SIMULATOR: "simulator",
    }
)
# What the simulator does to the next requests, whosever they are; the probe's meets the first of them, too.
FAULTS: Final[Mapping[Kind, tuple[str, ...]]] = MappingProxyType(
    {
        Kind.LOST_ANSWERS: ("lost_response",) * 6,
        Kind.SPOILED_KEYS: ("error_before", "error_after") * 3,
    }
)


@dataclass(frozen=True, slots=True)
class Wound:
    """What was done in words, and a look whether the part is there again."""

    says: str
    is_back: Callable[[], bool]


class Striker:
    """Strikes one stack."""

    def __init__(self, stack: RunningStack) -> None:
        """Nothing is done yet."""
        self._stack = stack
        self._stripe = StripeControl(str(stack.endpoints.stripe_api_url))

    def strike(self, strike: Strike, probe: str) -> Wound:
        """Do it now; `probe` is the order that will be placed right afterwards."""
        if part := PARTS.get(strike.kind):
            return self._kill(part)
        if faults := FAULTS.get(strike.kind):
            return self._disturb_stripe(faults, probe)
        if strike.kind is Kind.API_WORKER:
            return self._kill_api_worker(strike.lot)
        if strike.kind is Kind.POSTGRES_CHILD:
            return self._kill_postgres_child(strike.lot)
        return self._flush()

    def _kill(self, part: str) -> Wound:
        self._process(part)
        pid = self._stack.kill(part)
        return Wound(f"kill -9 of pid {pid}", partial(self._stack.is_back, part, pid))

    def _kill_api_worker(self, lot: float) -> Wound:
        api = self._process("api")
        before = wait_until(api.children, UP_S, "the API's workers")
        victim = _one_of(before, lot)
        victim.kill()

        def has_another() -> bool:
            with suppress(KeyError, psutil.NoSuchProcess):
                workers = psutil.Process(self._stack.pid_of("api")).children()
                return len([each for each in workers if each != victim]) >= len(before)
            return False

        return Wound(f"kill -9 of pid {victim.pid}, one of {len(before)}", has_another)

    def _kill_postgres_child(self, lot: float) -> Wound:
        children = wait_until(self._process("postgres").children, UP_S, "PostgreSQL's children")
        victim = _one_of(children, lot)
        name = " ".join(" ".join(victim.cmdline()).split())  # its title, padded with blanks
        os.kill(victim.pid, signal.SIGKILL)
        return Wound(f"kill -9 of pid {victim.pid}, {name}", self._database_answers)

    def _database_answers(self) -> bool:
        try:
            psycopg.connect(self._stack.endpoints.database_url, connect_timeout=CONNECT_S).close()
        except psycopg.OperationalError:
            return False
        return True

    def _flush(self) -> Wound:
        with redis.Redis.from_url(self._stack.endpoints.redis_url) as client:

            def flushed() -> bool:
                try:
                    return bool(client.flushall())
                except redis.ConnectionError:
                    return False

            wait_until(flushed, UP_S, "Valkey to be flushed")
        return Wound("everything in it is forgotten", lambda: True)

    def _disturb_stripe(self, faults: tuple[str, ...], probe: str) -> Wound:
        def told(kind: str, order_id: str | None) -> bool:
            try:
                self._stripe.fault(kind, order_id)
            except requests.ConnectionError:
                return False
            return True

        for number, kind in enumerate(faults):
            whose = None if number else probe
            wait_until(partial(told, kind, whose), UP_S, "the simulator to take a fault")
        return Wound(f"the next {len(faults)} commands, the probe's among them", lambda: True)

    def _process(self, part: str) -> psutil.Process:
        """The part's process, waited for while it is still coming back."""

        def is_up() -> psutil.Process | None:
            with suppress(KeyError, psutil.NoSuchProcess):
                if self._stack.is_back(part, 0):
                    return psutil.Process(self._stack.pid_of(part))
            return None

        return wait_until(is_up, UP_S, f"{part} to be up")


def _one_of(processes: list[psutil.Process], lot: float) -> psutil.Process:
    return sorted(processes, key=lambda each: each.pid)[int(lot * len(processes))]
