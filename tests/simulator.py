"""Steer the Stripe simulator from a test and read which charges it has made."""

from typing import Any, Final

import requests

TIMEOUT_S: Final = 10
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

    def fault(self, kind: str, *, times: int = 1, **match: str) -> None:
        """Let the next `times` requests whose metadata match go wrong.

        `kind` is lost_response, error_before, error_after, rate_limit, lock_timeout or connection_reset.
        """
        self._call("POST", "faults", json={"kind": kind, "times": times, "match": match})

    def faults(self) -> Any:
        """Return the faults that have not happened yet."""
        return self._call("GET", "faults")

    def charges(self, **metadata: str) -> list[dict[str, Any]]:
        """Return every charge made, failed ones too, whose metadata have these values."""
        charges: list[dict[str, Any]] = []
        page: dict[str, Any] = {"has_more": True}
        while page["has_more"]:
            after = {"starting_after": charges[-1]["id"]} if charges else {}
            page = self._call("GET", "ledger", params={"limit": PAGE, **after})
            charges += page["data"]
        return [charge for charge in charges if metadata.items() <= charge["metadata"].items()]

    def _call(self, method: str, endpoint: str, **arguments: Any) -> Any:
        answer = requests.request(method, f"{self.url}/_control/{endpoint}", timeout=TIMEOUT_S, **arguments)
        answer.raise_for_status()
        return answer.json() if answer.content else None
