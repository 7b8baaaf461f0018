"""Tell waiting requests over Redis that a payment has changed; a hint only, never the truth."""

import threading
import uuid
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import redis

from shared.telemetry import get_logger

log = get_logger(__name__)

CHANNEL = "payments:changed"
RECONNECT_FIRST_S = 0.1
RECONNECT_LAST_S = 2.0
SOCKET_TIMEOUT_S = 2.0


def connect_redis(redis_url: str) -> redis.Redis:
    """Make a client that gives up on a silent server; it opens no connection until the first use."""
    return redis.Redis.from_url(
        redis_url,
        socket_timeout=SOCKET_TIMEOUT_S,
        socket_connect_timeout=SOCKET_TIMEOUT_S,
        socket_keepalive=True,
        health_check_interval=15,
    )


class Announcer:
    """Publishes which payments have changed."""

    def __init__(self, client: redis.Redis) -> None:
        """Publish over this client."""
        self._client = client

    def __call__(self, payment_id: uuid.UUID) -> None:
        """Say that this payment has changed. A failure is only logged: waiting requests also re-read."""
        try:
            self._client.publish(CHANNEL, payment_id.bytes)
        except redis.RedisError as error:
            log.warning("change not published", error=type(error).__name__)


class Listener:
    """One subscription for a whole process; wakes the requests that wait for a payment."""

    def __init__(self, client: redis.Redis) -> None:
        """Nothing is subscribed until the first wait."""
        self._client = client
        self._waiting: dict[bytes, list[threading.Event]] = defaultdict(list)
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._pause_s = RECONNECT_FIRST_S
        self._thread: threading.Thread | None = None

    @contextmanager
    def listening(self, payment_id: uuid.UUID) -> Iterator[threading.Event]:
        """Within the block the event is set whenever the payment changes."""
        changed = threading.Event()
        with self._lock:
            self._waiting[payment_id.bytes].append(changed)
            if self._thread is None:
                self._thread = threading.Thread(target=self._listen, name="wake-up listener", daemon=True)
                self._thread.start()
        try:
            yield changed
        finally:
            with self._lock:
                events = self._waiting[payment_id.bytes]
                events.remove(changed)
                if not events:
                    del self._waiting[payment_id.bytes]

    def stop(self) -> None:
        """End the subscription, within a second; those who still wait are woken no more."""
        self._stopped.set()

    def _listen(self) -> None:
        while not self._stopped.is_set():
            try:
                self._follow()
            except (redis.RedisError, OSError) as error:
                if self._stopped.is_set():
                    return
                log.warning("wake-ups are lost, waiting requests poll", error=type(error).__name__)
                self._stopped.wait(self._pause_s)
                self._pause_s = min(RECONNECT_LAST_S, self._pause_s * 2)

    def _follow(self) -> None:
        """Follow the channel until it breaks or the listener is stopped."""
        with self._client.pubsub(ignore_subscribe_messages=True) as subscription:
            subscription.subscribe(CHANNEL)
            self._pause_s = RECONNECT_FIRST_S
            while not self._stopped.is_set():
                message = subscription.get_message(timeout=SOCKET_TIMEOUT_S / 2)
                if message:
                    self._wake(message["data"])

    def _wake(self, payment_id: bytes) -> None:
        with self._lock:
            for changed in self._waiting.get(payment_id, ()):
                changed.set()
