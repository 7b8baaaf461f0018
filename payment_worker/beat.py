"""Send the periodic tasks; while Redis is away, say so and try ever more seldom; stop between two turns."""

import signal
import time
from typing import Any

from celery.apps.beat import Beat
from celery.beat import ScheduleEntry, Scheduler, SchedulingError, Service
from kombu import Connection
from kombu.exceptions import OperationalError

from shared.telemetry import get_logger

log = get_logger(__name__)

RETRY_FIRST_S = 0.5
RETRY_LAST_S = 5.0  # the longest that recovery waits for its turn when Redis is back
LONGEST_SLEEP_S = 0.5  # a stop is noticed after it


class PatientScheduler(Scheduler):
    """Keeps its schedule in memory: what has to be done next is in PostgreSQL, not in a file."""

    _retry_s = RETRY_FIRST_S
    _retry_at_s: float | None = None  # while Redis is away

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Send what is due, unless Redis was away a moment ago; return the seconds until the next turn."""
        wait_s = (self._retry_at_s or 0.0) - time.monotonic()
        return wait_s if wait_s > 0 else float(super().tick(*args, **kwargs))

    def apply_entry(self, entry: ScheduleEntry, producer: Any = None) -> None:
        """Send one task. One that could not be sent stays due: its next turn may be an hour away."""
        try:
            self.apply_async(entry, producer=producer, advance=False)
        except SchedulingError as error:
            if isinstance(error.__context__, OperationalError):
                self._put_off(entry, error.__context__)
            else:
                log.exception("a periodic task was not sent", task=entry.task)
        else:
            self._go_on()

    def _put_off(self, entry: ScheduleEntry, error: OperationalError) -> None:
        reason = str(error).partition("\n")[0]
        log.warning("Redis is away; periodic tasks wait", reason=reason, retry_s=self._retry_s)
        self._retry_at_s = time.monotonic() + self._retry_s
        self._retry_s = min(RETRY_LAST_S, self._retry_s * 2)
        self.schedule[entry.name] = entry  # with the time at which it was really sent
        self._heap = None  # made again from the schedule

    def _go_on(self) -> None:
        if self._retry_at_s is not None:
            log.info("Redis is back; periodic tasks are sent")
        self._retry_s, self._retry_at_s = RETRY_FIRST_S, None

    def _ensure_connected(self) -> Connection:
        """The connection as it is: the original would wait here, within a turn, for as long as it takes."""
        connection: Connection = self.connection
        return connection


class StoppableScheduler(PatientScheduler):
    """Ends the loop when its turn comes and it was told to."""

    is_stopping = False

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Send what is due. Raises SystemExit, upon which the service closes everything and returns."""
        if self.is_stopping:
            raise SystemExit
        return min(super().tick(*args, **kwargs), LONGEST_SLEEP_S)


class OrderlyBeat(Beat):
    """Leaves the turn that goes on alone when a signal comes.

    Celery's own handler closes the connection and raises SystemExit wherever the process just is. While an
    answer of Redis is read the client turns that into an error like any other, which ends nothing.
    """

    def install_sync_handler(self, service: Service) -> None:
        """Have SIGTERM and SIGINT noted, for the next turn."""
        scheduler: StoppableScheduler = service.scheduler

        def stop(_number: int, _frame: object) -> None:
            scheduler.is_stopping = True

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
