"""Every way a request can be refused: the codes that clients see, and the one map from error to HTTP."""

from collections.abc import Mapping
from enum import Enum
from http import HTTPStatus

from werkzeug.exceptions import HTTPException

from shared.accounts import AccountExists, TooBusy, TooManyAttempts, WrongCredentials
from shared.commands.deliveries import DeliveryNotFound, TooManyDeliveries
from shared.commands.endpoints import EndpointConflict, EndpointNotFound
from shared.commands.reservations import ReservationRefused
from shared.customers import CardDeclined, CardNotFound, CustomerConflict, CustomerNotFound
from shared.database import is_database_down
from shared.gateways import GatewayUnavailable
from shared.money import MoneyError
from shared.orders import OrderMismatch, OrderNotFound, OrderNotOwned, OrderServiceUnavailable
from shared.payments import (
    AmountExceeded,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    InvalidCommand,
    PaymentConflict,
    PaymentError,
    PaymentNotFound,
    RefundNotFound,
)


class ErrorCode(Enum):
    """A code, the status it comes with, what it means, and whether sending the same again may help."""

    MALFORMED_JSON = (400, "The body is not JSON", False)
    VALIDATION_FAILED = (400, "A field is missing, unknown or not acceptable; the message names it", False)
    CARD_DATA_REFUSED = (400, "A field holds a card number or a card's security code", False)
    UNAUTHENTICATED = (401, "There is no bearer token that is valid now; the answer does not say why", False)
    ORDER_VALIDATION_FAILED = (400, "The order is for another amount, or in another currency", False)
    RESERVATION_VALIDATION_FAILED = (
        400,
        "The reservation is unknown, another customer's, or not active any more; the message says which",
        False,
    )
    ORDER_NOT_OWNED = (401, "The order is another customer's", False)
    ORDER_NOT_FOUND = (404, "The order service knows no such order", False)
    PAYMENT_METHOD_DECLINED = (
        402,
        "The gateway or the card's issuer said no; the message says why",
        False,
    )
    WRONG_CREDENTIALS = (401, "There is no account with this email address and this password", False)
    FORBIDDEN = (403, "The caller's role or scope does not allow this; the message says what", False)
    BAD_WEBHOOK_SIGNATURE = (400, "The webhook is not signed with our secret, or not at this time", False)
    NOT_FOUND = (404, "There is no such route", False)
    CUSTOMER_NOT_FOUND = (404, "There is no such customer that the caller may see", False)
    PAYMENT_METHOD_NOT_FOUND = (404, "The customer has no such payment method", False)
    PAYMENT_NOT_FOUND = (404, "There is no such payment that the caller may see", False)
    ENDPOINT_NOT_FOUND = (404, "There is no such notification endpoint that the caller may see", False)
    DELIVERY_NOT_FOUND = (404, "The endpoint has no such delivery", False)
    REFUND_NOT_FOUND = (404, "There is no such refund that the caller may see", False)
    METHOD_NOT_ALLOWED = (405, "The route exists, for another method", False)
    PAYMENT_CONFLICT = (
        409,
        "The payment's state forbids it, or the order has another payment; the message says which",
        False,
    )
    CUSTOMER_CONFLICT = (409, "Another customer, or too many payment methods, stand in the way", False)
    ENDPOINT_CONFLICT = (
        409,
        "The caller has an endpoint with this address, or asks for too much; the message says which",
        False,
    )
    IDEMPOTENCY_KEY_IN_USE = (409, "A request with this Idempotency-Key is being carried out", True)
    PAYLOAD_TOO_LARGE = (413, "The body is larger than 64 KiB, or a webhook than 512 KiB", False)
    UNSUPPORTED_MEDIA_TYPE = (415, "The body is not application/json", False)
    PAYMENT_FAILED = (422, "The gateway said no; the payment's own errorCode says why", False)
    PAYMENT_CANCELLED = (422, "The payment was cancelled before money was taken", False)
    AMOUNT_EXCEEDED = (422, "More than is held, or than is left to refund; the message says how much", False)
    OPERATION_FAILED = (
        422,
        "The gateway refused a capture, cancel or refund; the operation's own errorCode says why",
        False,
    )
    ACCOUNT_EXISTS = (409, "The email address has an account already", False)
    TOO_MANY_ATTEMPTS = (429, "Too many logins have failed; come back after Retry-After seconds", True)
    IDEMPOTENCY_KEY_REUSED = (422, "This Idempotency-Key was used before, for a different request", False)
    RATE_LIMITED = (429, "Too many requests of this caller; come back after Retry-After seconds", True)
    BAD_REQUEST = (400, "The request cannot be understood", False)
    INTERNAL_ERROR = (500, "Something broke here; the log line with the same correlation id says what", True)
    SERVICE_UNAVAILABLE = (503, "The database is away or busy; come back after Retry-After seconds", True)
    ISSUER_UNAVAILABLE = (503, "The keys of the tokens' issuer cannot be had; the token may be good", True)
    GATEWAY_NOT_CONFIGURED = (503, "This API has no key for the gateway, which the route needs", False)
    WEBHOOKS_NOT_CONFIGURED = (503, "This API has no secret to check webhooks with", False)
    ORDER_SERVICE_UNAVAILABLE = (
        503,
        "The order service did not answer clearly; nothing was recorded, the same request may succeed",
        True,
    )
    ACCOUNTS_NOT_CONFIGURED = (503, "This API has no JWT_SECRET, which tokens of accounts need", False)
    TOO_BUSY = (503, "Too many passwords are being looked at; come back after Retry-After seconds", True)
    GATEWAY_UNAVAILABLE = (503, "The gateway did not answer clearly; the same request completes it", True)

    def __init__(self, status: int, meaning: str, retry: bool) -> None:  # noqa: FBT001 - an enum's row
        """Take the row of the table apart."""
        self.status = status
        self.meaning = meaning
        self.retry = retry


class RequestRefused(Exception):
    """A request that the HTTP side refuses by itself, before any command."""

    def __init__(self, code: ErrorCode, message: str, headers: Mapping[str, str] | None = None) -> None:
        """`message` is shown to the client and must not repeat what was sent; so are further `headers`."""
        super().__init__(message)
        self.code = code
        self.headers = headers or {}


_DOMAIN: tuple[tuple[type[Exception], ErrorCode], ...] = (
    (InvalidCommand, ErrorCode.VALIDATION_FAILED),
    (MoneyError, ErrorCode.VALIDATION_FAILED),
    (PaymentNotFound, ErrorCode.PAYMENT_NOT_FOUND),
    (RefundNotFound, ErrorCode.REFUND_NOT_FOUND),
    (PaymentConflict, ErrorCode.PAYMENT_CONFLICT),
    (AmountExceeded, ErrorCode.AMOUNT_EXCEEDED),
    (IdempotencyKeyInUse, ErrorCode.IDEMPOTENCY_KEY_IN_USE),
    (IdempotencyKeyReused, ErrorCode.IDEMPOTENCY_KEY_REUSED),
    (OrderNotFound, ErrorCode.ORDER_NOT_FOUND),
    (OrderNotOwned, ErrorCode.ORDER_NOT_OWNED),
    (OrderMismatch, ErrorCode.ORDER_VALIDATION_FAILED),
    (ReservationRefused, ErrorCode.RESERVATION_VALIDATION_FAILED),
    (EndpointNotFound, ErrorCode.ENDPOINT_NOT_FOUND),
    (DeliveryNotFound, ErrorCode.DELIVERY_NOT_FOUND),
    (EndpointConflict, ErrorCode.ENDPOINT_CONFLICT),
    (TooManyDeliveries, ErrorCode.ENDPOINT_CONFLICT),
    (AccountExists, ErrorCode.ACCOUNT_EXISTS),
    (WrongCredentials, ErrorCode.WRONG_CREDENTIALS),
    (TooManyAttempts, ErrorCode.TOO_MANY_ATTEMPTS),
    (TooBusy, ErrorCode.TOO_BUSY),
    (CustomerNotFound, ErrorCode.CUSTOMER_NOT_FOUND),
    (CardNotFound, ErrorCode.PAYMENT_METHOD_NOT_FOUND),
    (CustomerConflict, ErrorCode.CUSTOMER_CONFLICT),
    (CardDeclined, ErrorCode.PAYMENT_METHOD_DECLINED),
    (PaymentError, ErrorCode.PAYMENT_CONFLICT),
)
_HTTP = {
    HTTPStatus.NOT_FOUND: (ErrorCode.NOT_FOUND, "There is no such route"),
    HTTPStatus.METHOD_NOT_ALLOWED: (ErrorCode.METHOD_NOT_ALLOWED, "This route does not take this method"),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: (ErrorCode.PAYLOAD_TOO_LARGE, "The body is larger than 64 KiB"),
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: (
        ErrorCode.UNSUPPORTED_MEDIA_TYPE,
        "The body must be application/json",
    ),
}


NO_ORDER_SERVICE = "The order service cannot be asked now; nothing was recorded, send the same request again"
NO_CLEAR_ANSWER = "The payment gateway did not answer clearly; send the same request again"
_AWAY: dict[type[Exception], tuple[ErrorCode, str]] = {
    OrderServiceUnavailable: (ErrorCode.ORDER_SERVICE_UNAVAILABLE, NO_ORDER_SERVICE),
    GatewayUnavailable: (ErrorCode.GATEWAY_UNAVAILABLE, NO_CLEAR_ANSWER),
}


def explain(error: Exception) -> tuple[ErrorCode, str]:
    """The code and the message that a client sees for an error; nothing internal is in either."""
    if isinstance(error, RequestRefused):
        return error.code, str(error)
    for kind, code in _DOMAIN:
        if isinstance(error, kind):
            return code, str(error)
    if (
        isinstance(error, HTTPException)
        and error.code is not None
        and error.code < ErrorCode.INTERNAL_ERROR.status
    ):
        fallback = (ErrorCode.BAD_REQUEST, "The request cannot be understood")
        return _HTTP.get(HTTPStatus(error.code), fallback)
    for kind, answer in _AWAY.items():
        if isinstance(error, kind):
            return answer
    if is_database_down(error):
        return ErrorCode.SERVICE_UNAVAILABLE, "The service is busy or cannot reach its database; try again"
    return ErrorCode.INTERNAL_ERROR, "Payment processing error: something broke here; try again later"


def error_table() -> list[tuple[str, int, str, str]]:
    """Code, status, meaning and whether a retry helps, for the documentation."""
    rows = [(each.name, each.status, each.meaning, "yes" if each.retry else "no") for each in ErrorCode]
    return sorted(rows, key=lambda row: (row[1], row[0]))
