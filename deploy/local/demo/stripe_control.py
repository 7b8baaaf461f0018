"""Steer the Stripe simulator: its faults, its webhooks, and what customers and people at the dashboard do."""

from collections.abc import Iterable
from typing import Any

import requests

from deploy.local.demo.evidence import charge_row, refund_row
from deploy.local.demo.rows import ChargeRow, RefundRow

TIMEOUT_S = 10
PAGE = 500


class StripeControl:
    """The simulator's control endpoints."""

    def __init__(self, stripe_api_url: str) -> None:
        """Nothing is sent yet."""
        self._url = f"{stripe_api_url}/_control"

    def fault(self, kind: str, order_id: str | None = None) -> None:
        """Let the next request for this order go wrong, or of no matter which order."""
        match = {"order_id": order_id} if order_id else {}
        self._call("POST", "faults", {"kind": kind, "times": 1, "match": match})

    def outage(self, kind: str) -> None:
        """Let every command go wrong until `end_outage`."""
        self._call("POST", "faults", {"kind": kind, "times": None})

    def end_outage(self) -> None:
        """Drop all faults."""
        self._call("DELETE", "faults")

    def latency_ms(self, every_call_ms: float | None, p99_ms: float | None = None) -> None:
        """Let every charge take this long from now on; with `p99_ms` as a median; None for no time at all."""
        self._call("PUT", "latency", {"p50_ms": every_call_ms, "p99_ms": p99_ms or every_call_ms})

    def webhooks(self, url: str | None, secret: str = "") -> None:
        """Send webhooks to `url` from now on, signed with `secret`; None for no webhooks."""
        self._call("PUT", "webhooks", {"url": url, "secret": secret} if url else {"url": None})

    def authenticate(self, payment_intent: str) -> None:
        """The customer passes 3-D Secure."""
        self._call("POST", "authenticate", {"payment_intent": payment_intent})

    def refund_at_dashboard(self, payment_intent: str, amount: int) -> None:
        """Somebody refunds at Stripe's dashboard, in Stripe's units."""
        self._call("POST", "dashboard/refund", {"payment_intent": payment_intent, "amount": amount})

    def charged(self, order_ids: Iterable[str]) -> int:
        """How many successful charges there are for these orders."""
        wanted = set(order_ids)
        return sum(
            charge["status"] == "succeeded" and charge["metadata"].get("order_id") in wanted
            for charge in self._ledger("charge")
        )

    def charges(self) -> list[ChargeRow]:
        """Every charge ever made, declined ones too."""
        return [charge_row(charge) for charge in self._ledger("charge")]

    def refunds(self) -> list[RefundRow]:
        """Every refund ever made, with what was released of holds."""
        return [refund_row(refund) for refund in self._ledger("refund")]

    def _ledger(self, kind: str) -> list[dict[str, Any]]:
        ledger: list[dict[str, Any]] = []
        while True:
            after = f"&starting_after={ledger[-1]['id']}" if ledger else ""
            page = self._call("GET", f"ledger?kind={kind}&limit={PAGE}{after}")
            ledger += page["data"]
            if not page["has_more"]:
                return ledger

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        answer = requests.request(method, f"{self._url}/{path}", json=body, timeout=TIMEOUT_S)
        answer.raise_for_status()
        return answer.json()
