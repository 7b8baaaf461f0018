"""Steer the Stripe simulator from a test and read which charges it has made."""

from typing import Any, Final

import requests

TIMEOUT_S: Final = 120
PAGE: Final = 100


class Simulator:
    """The control endpoints of one running simulator."""

    def __init__(self, url: str) -> None:
        """Control the simulator that answers at `url`."""
        self.url = url

    def reset(self) -> None:
        """Forget all faults and answer without delay; charges are kept."""
        self._call("DELETE", "faults")
        self.latency(None, None)

    def latency(self, p50_ms: float | None, p99_ms: float | None) -> None:
        """Delay every answer, log-normally with these percentiles; None for no delay."""
        self._call("PUT", "latency", json={"p50_ms": p50_ms, "p99_ms": p99_ms})

    def fault(
        self, kind: str, *, times: int | None = 1, path: str | None = None, reads: bool = False, **match: str
    ) -> None:
        """Let the next `times` requests whose metadata match go wrong, or all until `reset` for None.

        `kind` is lost_response, error_before, error_after, rate_limit, lock_timeout, connection_reset or
        unavailable; `path` a pattern that the request's path is like; with `reads` GETs go wrong, too.
        """
        where = {"path": path, "reads": reads}
        self._call("POST", "faults", json={"kind": kind, "times": times, "match": match, **where})

    def faults(self) -> Any:
        """Return the faults that have not happened yet."""
        return self._call("GET", "faults")

    def charges(self, **metadata: str) -> list[dict[str, Any]]:
        """Return every charge made, failed ones too, whose metadata have these values."""
        return self._ledger("charge", metadata)

    def refunds(self, **metadata: str) -> list[dict[str, Any]]:
        """Return every refund made, released holds and failed ones too, whose metadata have these values."""
        return self._ledger("refund", metadata)

    def webhooks(self, url: str | None, secret: str = "", **troubles: Any) -> None:
        """Send events to `url`, signed with `secret`, with these troubles on the way; None for no events."""
        self._call(
            "PUT", "webhooks", json={"url": url, "secret": secret, **troubles} if url else {"url": None}
        )

    def advance_clock(self, seconds: float) -> None:
        """Move the simulated time forward; what is due by then has happened on return."""
        self.act("clock", advance_s=seconds)

    def act(self, endpoint: str, **told: Any) -> Any:
        """Do what a customer, a bank or someone at the dashboard does; return the object it was done to.

        `endpoint` is authenticate, confirm, refund, dispute, dispute/update, dispute/close,
        dashboard/refund, dashboard/capture or dashboard/cancel.
        """
        return self._call("POST", endpoint, json=told)

    def _ledger(self, kind: str, metadata: dict[str, str]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        page: dict[str, Any] = {"has_more": True}
        while page["has_more"]:
            after = {"starting_after": found[-1]["id"]} if found else {}
            page = self._call("GET", "ledger", params={"kind": kind, "limit": PAGE, **after})
            found += page["data"]
        return [one for one in found if metadata.items() <= one["metadata"].items()]

    def _call(self, method: str, endpoint: str, **arguments: Any) -> Any:
        answer = requests.request(method, f"{self.url}/_control/{endpoint}", timeout=TIMEOUT_S, **arguments)
        answer.raise_for_status()
        return answer.json() if answer.content else None
