"""The one map from errors to HTTP: every error has its code, and nothing internal is shown."""

import pytest
import sqlalchemy.exc
from werkzeug import exceptions

from payment_api.errors import ErrorCode, RequestRefused, error_table, explain
from shared.accounts import AccountExists, TooBusy, TooManyAttempts, WrongCredentials
from shared.customers import CardDeclined, CardNotFound, CustomerConflict, CustomerNotFound
from shared.gateways import GatewayUnavailable
from shared.money import InvalidAmount, UnknownCurrency
from shared.payments import (
    AmountExceeded,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    IllegalTransition,
    InvalidCommand,
    PaymentConflict,
    PaymentError,
    PaymentNotFound,
    RefundNotFound,
    Status,
)

SECRET = "postgresql://user:hunter2@db SELECT 42"
DRIVER = Exception(SECRET)
LOST = sqlalchemy.exc.DBAPIError(SECRET, {}, DRIVER, connection_invalidated=True)
ABOUT_CUSTOMERS = (CustomerNotFound, CardNotFound, CustomerConflict, CardDeclined)  # no command's
CASES = [
    (RequestRefused(ErrorCode.CARD_DATA_REFUSED, "x: no"), "CARD_DATA_REFUSED", 400, "x: no"),
    (RequestRefused(ErrorCode.UNAUTHENTICATED, "a token"), "UNAUTHENTICATED", 401, "a token"),
    (RequestRefused(ErrorCode.FORBIDDEN, "x: not yours"), "FORBIDDEN", 403, "x: not yours"),
    (InvalidCommand("amount", "too much"), "VALIDATION_FAILED", 400, "amount: too much"),
    (UnknownCurrency("currency must be known"), "VALIDATION_FAILED", 400, "currency must be known"),
    (InvalidAmount("amount is too large"), "VALIDATION_FAILED", 400, "amount is too large"),
    (PaymentNotFound("Payment not found"), "PAYMENT_NOT_FOUND", 404, "Payment not found"),
    (RefundNotFound("Refund not found"), "REFUND_NOT_FOUND", 404, "Refund not found"),
    (AmountExceeded("amount: 1.00 USD is left"), "AMOUNT_EXCEEDED", 422, "1.00 USD is left"),
    (PaymentConflict("taken"), "PAYMENT_CONFLICT", 409, "taken"),
    (PaymentError("no"), "PAYMENT_CONFLICT", 409, "no"),
    (IllegalTransition(Status.FAILED, Status.PENDING), "PAYMENT_CONFLICT", 409, "cannot become"),
    (IdempotencyKeyInUse("in use"), "IDEMPOTENCY_KEY_IN_USE", 409, "in use"),
    (IdempotencyKeyReused("reused"), "IDEMPOTENCY_KEY_REUSED", 422, "reused"),
    (CustomerNotFound("who"), "CUSTOMER_NOT_FOUND", 404, "who"),
    (CardNotFound("what"), "PAYMENT_METHOD_NOT_FOUND", 404, "what"),
    (CustomerConflict("taken"), "CUSTOMER_CONFLICT", 409, "taken"),
    (CardDeclined("declined"), "PAYMENT_METHOD_DECLINED", 402, "declined"),
    (AccountExists("taken"), "ACCOUNT_EXISTS", 409, "taken"),
    (WrongCredentials("wrong"), "WRONG_CREDENTIALS", 401, "wrong"),
    (TooManyAttempts(7), "TOO_MANY_ATTEMPTS", 429, "try again later"),
    (TooBusy("busy"), "TOO_BUSY", 503, "busy"),
    (GatewayUnavailable(SECRET), "GATEWAY_UNAVAILABLE", 503, "same request"),
    (exceptions.NotFound(), "NOT_FOUND", 404, "no such route"),
    (exceptions.MethodNotAllowed(), "METHOD_NOT_ALLOWED", 405, "method"),
    (exceptions.RequestEntityTooLarge(), "PAYLOAD_TOO_LARGE", 413, "64 KiB"),
    (exceptions.UnsupportedMediaType(), "UNSUPPORTED_MEDIA_TYPE", 415, "application/json"),
    (exceptions.BadRequest(SECRET), "BAD_REQUEST", 400, "cannot be understood"),
    (exceptions.ImATeapot(SECRET), "BAD_REQUEST", 400, "cannot be understood"),
    (exceptions.InternalServerError(SECRET), "INTERNAL_ERROR", 500, "something broke"),
    (exceptions.BadGateway(SECRET), "INTERNAL_ERROR", 500, "something broke"),
    (sqlalchemy.exc.OperationalError(SECRET, {}, DRIVER), "SERVICE_UNAVAILABLE", 503, "database"),
    (sqlalchemy.exc.TimeoutError(SECRET), "SERVICE_UNAVAILABLE", 503, "database"),
    (sqlalchemy.exc.IntegrityError(SECRET, {}, DRIVER), "INTERNAL_ERROR", 500, "something broke"),
    (LOST, "SERVICE_UNAVAILABLE", 503, "database"),
    (ValueError(SECRET), "INTERNAL_ERROR", 500, "something broke"),
    (KeyError(SECRET), "INTERNAL_ERROR", 500, "something broke"),
]  # fmt: skip


@pytest.mark.parametrize(("error", "code", "status", "says"), CASES, ids=lambda case: type(case).__name__)
def test_every_error_has_its_answer(error: Exception, code: str, status: int, says: str) -> None:
    """Code, status and a message that is fit for a client; what came from a library is not shown."""
    found, message = explain(error)
    assert (found.name, found.status) == (code, status)
    assert says in message
    assert "hunter2" not in message
    assert "SELECT" not in message


OF_PAYMENTS = [
    each for each, *_ in CASES if isinstance(each, PaymentError) and not isinstance(each, ABOUT_CUSTOMERS)
]


@pytest.mark.parametrize("error", OF_PAYMENTS, ids=str)
def test_kafka_tells_the_same_code(error: PaymentError) -> None:
    """A refused command is answered with the code that HTTP would have shown."""
    assert error.code == explain(error)[0].name


def test_the_table_tells_every_code() -> None:
    """Each code with its status, a meaning of its own and whether a retry helps, in order of status."""
    table = error_table()
    assert {row[:2] for row in table} == {(each.name, each.status) for each in ErrorCode}
    assert [status for _, status, _, _ in table] == sorted(status for _, status, _, _ in table)
    assert len({meaning for _, _, meaning, _ in table}) == len(ErrorCode)
    retried = {code for code, _, _, retry in table if retry == "yes"}
    assert retried == {
        "IDEMPOTENCY_KEY_IN_USE",
        "INTERNAL_ERROR",
        "SERVICE_UNAVAILABLE",
        "GATEWAY_UNAVAILABLE",
        "ISSUER_UNAVAILABLE",
        "RATE_LIMITED",
        "ORDER_SERVICE_UNAVAILABLE",
        "TOO_MANY_ATTEMPTS",
        "TOO_BUSY",
    }


def test_codes_are_errors() -> None:
    """A code is for a 4xx or a 5xx."""
    assert all(400 <= each.status < 600 for each in ErrorCode)
