"""Ask for payments by HTTP, and for what follows on them: captures, cancels, refunds."""

import uuid
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import requests
import simplejson  # an amount must never pass through a float
from requests.adapters import HTTPAdapter, Retry

TIMEOUT_S = 35  # the service holds an answer back for up to 30 s when asked to wait
WAIT_S = 30


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a customer owes. The ids are ours; the service is idempotent by `order_id`."""

    amount: Decimal
    currency: str = "USD"
    order_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    customer_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    details: dict[str, Any] = field(default_factory=dict)  # captureMethod, paymentMethodId, offSession, ...


@dataclass(frozen=True)
class Answer:
    """The HTTP status, and the payment as it stood then."""

    http_status: int
    payment_id: str
    status: str


class Payments:
    """Sends commands; may be used by several threads. Each call raises RequestException.

    Without `wait` a command is only recorded, and the outcome comes on Kafka.
    """

    def __init__(self, api_url: str) -> None:
        """What does not get through is sent again: neither an order nor a key is ever carried out twice."""
        again = Retry(total=5, backoff_factor=0.1, status_forcelist=[429, 503], allowed_methods=None)
        self._session = requests.Session()
        self._session.mount("http", HTTPAdapter(max_retries=again, pool_maxsize=64))
        self._url = api_url

    def send(self, order: Order, *, wait: bool = False) -> Answer:
        """Ask for the charge, or with captureMethod manual for the hold."""
        body = {"orderId": order.order_id, "customerId": order.customer_id, **order.details}
        body |= {"amount": order.amount, "currency": order.currency}
        return self._command("/payments", body, wait=wait)

    def capture(self, payment_id: str, amount: Decimal | None = None, *, wait: bool = False) -> Answer:
        """Take what is held, all of it or a part; the rest is released."""
        return self._command(f"/payments/{payment_id}/capture", {"amount": amount}, wait=wait)

    def cancel(self, payment_id: str, reason: str | None = None, *, wait: bool = False) -> Answer:
        """Let a hold go, or give up a payment that is not paid yet."""
        return self._command(f"/payments/{payment_id}/cancel", {"reason": reason}, wait=wait)

    def refund(self, payment_id: str, amount: Decimal | None = None, *, wait: bool = False) -> Answer:
        """Give back all that is left, or a part; as often as something is left."""
        return self._command(f"/payments/{payment_id}/refunds", {"amount": amount}, wait=wait)

    def save_card(self, customer_id: str, email: str, token: str) -> str:
        """Save the customer's card; return the id by which it can be charged again."""
        self._post("/payment/customer", {"email": email, "customerId": customer_id}, {})
        card = {"customerId": customer_id, "paymentMethodId": token}
        _, saved = self._post("/payment/payment-method", card, {})
        return str(saved["data"]["payment_method_id"])

    def _command(self, path: str, body: dict[str, Any], *, wait: bool) -> Answer:
        prefer = {"Prefer": f"wait={WAIT_S}" if wait else "respond-async"}
        http_status, answer = self._post(path, body, prefer)
        return Answer(http_status, answer["payment"]["id"], answer["payment"]["status"])

    def _post(self, path: str, body: dict[str, Any], headers: dict[str, str]) -> tuple[int, Any]:
        # The key makes a repeat of this very request harmless; two refunds of one amount have two keys.
        headers |= {"Content-Type": "application/json", "Idempotency-Key": str(uuid.uuid4())}
        data = simplejson.dumps(body)
        response = self._session.post(f"{self._url}{path}", data, headers=headers, timeout=TIMEOUT_S)
        answer = response.json()
        if answer.get("payment") is None and answer.get("data") is None:
            # Refused: a bad field, a conflict. (A declined card is no refusal, but an outcome.)
            raise requests.HTTPError(response.text, response=response)
        return response.status_code, answer
