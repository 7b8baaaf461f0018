"""Ask the order service whether an order is what a payment says it is; no transaction spans the call."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Protocol
from urllib.parse import quote

import urllib3
from urllib3.exceptions import HTTPError

from shared.documents import parse_json
from shared.money import Money, MoneyError
from shared.payments import PaymentError
from shared.settings import Settings
from shared.telemetry import get_logger

CONNECT_TIMEOUT_S = 2.5  # a lost first packet is sent again after a second
TRIES = 2
LONGEST_ANSWER = 1_000_000  # bytes; an order of thousands of lines
OK, NOT_FOUND, SERVER_ERROR = 200, 404, 500
# What an order service may call whose order it is, and its total.
CUSTOMER: Final = ("customerId", "userId")
AMOUNT: Final = ("amount", "totalAmount", "total")

log = get_logger(__name__)


class OrderNotFound(PaymentError):
    """The order service knows no such order."""

    code = "ORDER_NOT_FOUND"


class OrderNotOwned(PaymentError):
    """The order is another customer's."""

    code = "ORDER_NOT_OWNED"


class OrderMismatch(PaymentError):
    """The order is for another amount, or in another currency."""

    code = "ORDER_VALIDATION_FAILED"


class OrderServiceUnavailable(Exception):
    """The order service gave no answer that says anything of the order; asking again may help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedOrder:
    """What a payment says of the order that it is for."""

    order_id: str
    customer_id: str
    money: Money


class Orders(Protocol):
    """Somebody who knows orders."""

    def check(self, claimed: ClaimedOrder, correlation_id: str | None, traceparent: str | None) -> None:
        """Return if the order is as claimed. Raises what OrderService.check raises."""


class OrderService:
    """The order service at a URL. Asked in our own name: the caller's token stays here."""

    def __init__(self, url: str, token: str = "", *, timeout_s: float, pool_size: int = 8) -> None:
        """`timeout_s` bounds each of the two tries."""
        self._url = url
        self._headers = {"Accept": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        timeout = urllib3.Timeout(connect=min(CONNECT_TIMEOUT_S, timeout_s), total=timeout_s)
        self._pool = urllib3.PoolManager(maxsize=pool_size, retries=False, timeout=timeout)

    def check(self, claimed: ClaimedOrder, correlation_id: str | None, traceparent: str | None) -> None:
        """Return if the order exists, is this customer's and costs this much.

        Raises OrderNotFound, OrderNotOwned, OrderMismatch and OrderServiceUnavailable.
        """
        if claimed.order_id in {".", ".."}:  # no segment of a path, but a way out of it
            raise OrderNotFound("Order not found")
        named = {"X-Correlation-Id": correlation_id, "traceparent": traceparent}
        headers = self._headers | {name: value for name, value in named.items() if value}
        _compare(self._get(f"{self._url}/orders/{quote(claimed.order_id, safe='')}", headers), claimed)

    def _get(self, url: str, headers: dict[str, str]) -> Any:
        reason = ""
        for _ in range(TRIES):
            try:
                answer = self._pool.request(
                    "GET", url, headers=headers, redirect=False, preload_content=False
                )
                try:
                    status, body = answer.status, answer.read(LONGEST_ANSWER)
                finally:
                    answer.release_conn()
            except HTTPError as error:
                reason = type(error).__name__
                continue
            if status == OK:
                return _read(body)
            if status == NOT_FOUND:
                raise OrderNotFound("Order not found")
            reason = f"status {status}"
            if status < SERVER_ERROR:
                break  # it understood us and will say the same again
        log.warning("the order service is of no help", reason=reason)
        raise OrderServiceUnavailable(reason)


def make_orders(settings: Settings) -> Orders | None:
    """The order service of the settings; None when any order is accepted."""
    if not settings.order_service_url:
        return None
    return OrderService(
        settings.order_service_url,
        settings.order_service_token,
        timeout_s=settings.order_service_timeout_s,
        pool_size=settings.web_threads,
    )


def _read(body: bytes) -> dict[str, Any]:
    try:
        order = parse_json(body)
    except ValueError:
        order = None
    if not isinstance(order, dict):
        raise OrderServiceUnavailable("no JSON object")
    return order


def _compare(order: dict[str, Any], claimed: ClaimedOrder) -> None:
    customer_id, amount = _first(order, CUSTOMER), _first(order, AMOUNT)
    if not isinstance(customer_id, str) or isinstance(amount, bool) or not isinstance(amount, int | Decimal):
        log.error("the order service does not say whose an order is, or what it costs")
        raise OrderServiceUnavailable("no customer or no amount")
    if customer_id.casefold() != claimed.customer_id.casefold():
        raise OrderNotOwned("Unauthorized: Customer does not own this order")
    if order.get("currency") not in {None, claimed.money.currency}:
        raise OrderMismatch("Order validation failed: the order is in another currency")
    try:
        total = Money.from_decimal(amount, claimed.money.currency)
    except MoneyError:
        total = None
    if total != claimed.money:
        raise OrderMismatch("Order validation failed: the amount is not the order's total")


def _first(order: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((order[name] for name in names if order.get(name) is not None), None)
