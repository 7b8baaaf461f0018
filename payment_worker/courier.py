"""Carry deliveries to subscribers and the order service; a slow or dead one holds up nobody else."""

import random
import threading
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from payment_worker import deliveries
from payment_worker.deliveries import Result
from payment_worker.metrics import NOTIFICATION_SECONDS, NOTIFICATIONS
from payment_worker.notices import Notice, Writer, forget_tokens
from shared.database import Sessions, is_database_down, reason_of
from shared.notifications import ORDER_SERVICE
from shared.outbound import Caller, CallFailed, Forbidden
from shared.sealing import CannotOpen, Sealer
from shared.settings import Settings
from shared.telemetry import get_logger, log_context

log = get_logger(__name__)

THREADS = 32
PER_RECEIVER = 4
# Of all threads so many at most are for those that failed or took long the last time.
FOR_TROUBLED = THREADS // 2
SLOW_S = 1.0
# 5 s, then 15, 45, ... up to six hours: some twenty attempts in three days.
FIRST_RETRY_S = 5.0
RETRY_FACTOR = 3.0
LAST_RETRY_S = 6 * 3600.0
MAX_POWER = 20


def retry_delay_s(attempt: int) -> float:
    """Seconds until attempt + 1: tripling, capped, spread by a quarter either way."""
    delay_s = min(LAST_RETRY_S, FIRST_RETRY_S * RETRY_FACTOR ** min(attempt - 1, MAX_POWER))
    return delay_s * random.uniform(0.75, 1.25)  # noqa: S311 - spreads load, guards nothing


class Courier:
    """The deliveries that this process has in hand, each in a thread; no connection is held during a call."""

    def __init__(self, sessions: Sessions, writer: Writer, to_subscribers: Caller, to_orders: Caller) -> None:
        """Nothing is carried yet; `turn` begins."""
        self._sessions = sessions
        self._writer = writer
        self._to_subscribers, self._to_orders = to_subscribers, to_orders
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="courier")
        self._lock = threading.Lock()
        self._running: Counter[uuid.UUID] = Counter()
        self._troubled: set[uuid.UUID] = set()
        self._closed = False

    def turn(self) -> int:
        """Make deliveries of what was announced, and set out to everyone who has some due."""
        while deliveries.fan_out(self._sessions) == deliveries.BATCH:
            pass
        forget_tokens(self._sessions)
        order_service = bool(self._writer.order_status_url)
        due = list(deliveries.receivers(self._sessions, order_service=order_service))
        # Whoever comes last finds fewer threads: not always the same.
        random.shuffle(due)
        return sum(self._set_out(each.id, failing=each.failures > 0) for each in due)

    def close(self, **_: object) -> None:
        """Let nothing more begin; may be called from a signal handler."""
        self._closed = True

    def finish(self) -> None:
        """Wait for what has begun."""
        self.close()
        self._threads.shutdown(wait=True)

    def _set_out(self, receiver_id: uuid.UUID, *, failing: bool) -> int:
        begun = 0
        while self._may_begin(receiver_id, failing=failing):
            self._threads.submit(self._carry, receiver_id)
            begun += 1
        return begun

    def _may_begin(self, receiver_id: uuid.UUID, *, failing: bool) -> bool:
        with self._lock:
            if failing:
                self._troubled.add(receiver_id)
            is_troubled = receiver_id in self._troubled
            troubled = sum(self._running[each] for each in self._troubled)
            mine = self._running[receiver_id]
            if (
                self._closed
                or mine >= (1 if failing else PER_RECEIVER)
                or self._running.total() >= THREADS
                or (is_troubled and troubled >= FOR_TROUBLED)
            ):
                return False
            self._running[receiver_id] += 1
            return True

    def _carry(self, receiver_id: uuid.UUID) -> None:
        """Deliver one after the other, until nothing is due or something went wrong or took long."""
        try:
            while not self._closed and (taken := deliveries.claim(self._sessions, receiver_id)):
                began = time.monotonic()
                went_well = self._deliver(taken)
                if not self._is_well(receiver_id, went_well=went_well, took_s=time.monotonic() - began):
                    return
        except Exception as error:
            if is_database_down(error):
                log.warning("the database is away; deliveries wait", reason=reason_of(error))
            else:
                log.exception("a delivery failed; it is tried again")
        finally:
            with self._lock:
                self._running[receiver_id] -= 1
                self._running += Counter()  # forgets those with none

    def _is_well(self, receiver_id: uuid.UUID, *, went_well: bool, took_s: float) -> bool:
        is_well = went_well and took_s < SLOW_S
        with self._lock:
            (self._troubled.discard if is_well else self._troubled.add)(receiver_id)
        return is_well

    def _deliver(self, taken: Any) -> bool:
        with log_context(event_id=str(taken.event_id), endpoint_id=str(taken.endpoint_id)):
            result = self._attempt(taken)
            ended = result.again_in_s is None
            if deliveries.record(self._sessions, taken, result):
                self._writer.settle_token(taken, result.status, ended=ended)
            _tell(taken, result)
        return result.delivered

    def _attempt(self, taken: Any) -> Result:
        status, error = None, None
        try:
            notice = self._writer.write(taken)
            if notice is None:
                # Disabled meanwhile: it waits until the endpoint is enabled, and this was no attempt of it.
                return Result(delivered=False, error="the endpoint is disabled", again_in_s=0.0)
            status = self._send(taken, notice)
        except (CallFailed, CannotOpen) as failure:
            error = str(failure)
        except Forbidden as failure:
            error = f"not called: the address {failure}"
        if status is not None and 200 <= status < 300:  # noqa: PLR2004 - success, by HTTP
            return Result(delivered=True, status=status)
        delay_s = None if taken.is_last else retry_delay_s(taken.attempts)
        return Result(delivered=False, status=status, error=error or f"answered {status}", again_in_s=delay_s)

    def _send(self, taken: Any, notice: Notice) -> int:
        caller = self._to_orders if taken.endpoint_id == ORDER_SERVICE else self._to_subscribers
        with NOTIFICATION_SECONDS.time():
            return caller.send(notice.method, notice.url, notice.body, notice.headers)


def _tell(taken: Any, result: Result) -> None:
    facts = {"payment_id": str(taken.payment_id), "type": taken.type, "attempt": taken.attempts}
    if result.delivered:
        NOTIFICATIONS.labels("delivered").inc()
        log.info("notified", **facts)
    elif result.again_in_s is not None:
        NOTIFICATIONS.labels("failed").inc()
        log.info("not notified; tried again later", reason=result.error, **facts)
    else:
        NOTIFICATIONS.labels("exhausted").inc()
        log.warning("a notification is given up", reason=result.error, **facts)


def make_courier(sessions: Sessions, settings: Settings, **caller_options: Any) -> Courier:
    """The courier of a process with these settings; nothing is connected yet."""
    writer = Writer(
        sessions=sessions,
        sealer=Sealer.of(settings),
        order_status_url=settings.order_status_url,
        order_status_token=settings.order_status_token,
    )
    return Courier(
        sessions,
        writer,
        Caller(allow_private=settings.private_notifications, **caller_options),
        # The operator's own choice, mostly inside.
        Caller(allow_private=True),
    )
