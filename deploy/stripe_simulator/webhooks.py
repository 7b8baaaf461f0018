"""Deliver events to the webhook endpoint, signed, until it takes them."""

import asyncio
import hashlib
import hmac
import logging
import time
from collections.abc import Iterable
from typing import Any

import aiohttp

from deploy.stripe_simulator.endpoint import Endpoint
from deploy.stripe_simulator.store import Store

SETTING = "webhooks"
POLL_S = 0.02  # real time; delivery is not faster than this
CALL_S = 10
AT_ONCE = 64
STATES = ("waiting", "delivered", "dropped")

log = logging.getLogger(__name__)


def sign(payload: bytes, secrets: Iterable[str], moment_s: int) -> str:
    """Return the Stripe-Signature header for `payload`.

    Source: https://docs.stripe.com/webhooks#verify-manually.
    """
    signed = f"{moment_s}.".encode() + payload
    codes = (hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest() for secret in secrets)
    return ",".join([f"t={moment_s}", *(f"v1={code}" for code in codes)])


def listed(store: Store, *, after: int, limit: int, state: str | None) -> tuple[list[dict[str, Any]], bool]:
    """Return deliveries in the order they were queued, and whether more follow."""
    sql = (
        "SELECT seq, event_id, type, state, attempts, last_status, last_error FROM deliveries "
        "WHERE seq > ? AND (? IS NULL OR state = ?) ORDER BY seq LIMIT ?"
    )
    rows = store.execute(sql, (after, state, state, limit + 1)).fetchall()
    names = ("id", "event", "type", "state", "attempts", "last_status", "last_error")
    return [dict(zip(names, row, strict=True)) for row in rows[:limit]], len(rows) > limit


class Webhooks:
    """The deliveries of one simulator; what is undelivered waits in the state file."""

    def __init__(self, store: Store) -> None:
        """Take up the endpoint that was set before a restart."""
        self._store = store
        self._in_flight: dict[int, asyncio.Task[None]] = {}
        kept = store.setting(SETTING)
        store.endpoint = Endpoint(**kept) if kept else None

    def set_endpoint(self, endpoint: Endpoint | None) -> None:
        """Deliver to this endpoint from now on, also what waits; None makes and delivers no events."""
        self._store.endpoint = endpoint
        self._store.keep_setting(SETTING, endpoint and endpoint.as_kept())

    async def run_for_ever(self) -> None:
        """Deliver what is due, until cancelled."""
        timeout = aiohttp.ClientTimeout(total=CALL_S)
        async with aiohttp.ClientSession(
            timeout=timeout, connector=aiohttp.TCPConnector(limit=AT_ONCE)
        ) as http:
            try:
                while True:
                    if self._store.endpoint is not None:
                        self._start_due(http, self._store.endpoint)
                    await asyncio.sleep(POLL_S)
            finally:
                await self._stop()

    async def _stop(self) -> None:
        tasks = list(self._in_flight.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start_due(self, http: aiohttp.ClientSession, endpoint: Endpoint) -> None:
        free = AT_ONCE - len(self._in_flight)
        if free <= 0:
            return
        sql = (
            "SELECT seq, event_id, attempts FROM deliveries WHERE state = 'waiting' AND due_s <= ? "
            "ORDER BY due_s, seq LIMIT ?"
        )
        for seq, event_id, attempts in self._store.execute(sql, (time.time(), AT_ONCE)).fetchall():
            if seq not in self._in_flight and len(self._in_flight) < AT_ONCE:
                task = asyncio.create_task(self._deliver(http, endpoint, seq, event_id, attempts))
                self._in_flight[seq] = task
                task.add_done_callback(lambda _task, seq=seq: self._in_flight.pop(seq))  # type: ignore[misc]

    async def _deliver(
        self, http: aiohttp.ClientSession, endpoint: Endpoint, seq: int, event_id: str, attempts: int
    ) -> None:
        status, problem = None, None
        try:
            status = await self._post(http, endpoint, event_id)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            problem = f"{type(error).__name__}: {error}"
        except Exception as error:
            log.exception("a delivery failed", extra={"event_id": event_id})
            problem = repr(error)
        delivered = status is not None and 200 <= status < 300  # noqa: PLR2004 - what HTTP calls success
        due_s = time.time() + endpoint.pause_s(attempts + 1)
        sql = (
            "UPDATE deliveries SET attempts = ?, last_status = ?, last_error = ?, state = ?, due_s = ? "
            "WHERE seq = ?"
        )
        state = "delivered" if delivered else "waiting"
        self._store.execute(sql, (attempts + 1, status, problem, state, due_s, seq))

    async def _post(self, http: aiohttp.ClientSession, endpoint: Endpoint, event_id: str) -> int:
        payload = self._store.kept_text(event_id).encode()  # kept as it is shown
        # Signed with real time, not the simulated one: the receiver compares it with its own clock.
        signature = sign(payload, endpoint.secrets, int(time.time()))
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "Stripe-Signature": signature,
            "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
        }
        async with http.post(endpoint.url, data=payload, headers=headers, allow_redirects=False) as answer:
            await answer.read()
            return answer.status
