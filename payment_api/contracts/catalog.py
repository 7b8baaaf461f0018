"""The catalog contract: how the payment of an order stands, in the catalog's words."""

from http import HTTPStatus
from typing import Any

import flask
from flask_smorest import Blueprint
from sqlalchemy import select

from payment_api import access
from payment_api.contracts import catalog_schemas as schemas
from payment_api.contracts.fields import canonical, is_plain
from payment_api.errors import ErrorCode, RequestRefused
from payment_api.http import StrictParser
from payment_api.services import services
from shared.catalog_outcome import method_of
from shared.database import reading
from shared.events import rfc3339
from shared.models import Payment
from shared.money import Money
from shared.payments import DEAD, PAID, PaymentNotFound, Status

PENDING, COMPLETED, FAILED, REFUNDED = schemas.STATUSES
WORDS = {
    Status.SUCCEEDED: COMPLETED,
    Status.PARTIALLY_REFUNDED: COMPLETED,
    Status.REFUNDED: REFUNDED,
    Status.FAILED: FAILED,
    Status.CANCELLED: FAILED,
}
LONGEST_ID = 255
EXAMPLE = {
    "orderId": "7c9e6679-7425-40de-944b-e07fc1f90ae7",
    "paymentStatus": COMPLETED,
    "amount": 150.0,
    "currency": "USD",
    "paymentMethod": "credit_card",
    "transactionId": "ch_3QrT5vXyZ0123456789",
    "paymentDate": "2026-03-04T15:30:02.000Z",
}


class CatalogBlueprint(Blueprint):
    """A blueprint that reads requests strictly."""

    ARGUMENTS_PARSER = StrictParser()


blueprint = CatalogBlueprint("catalog", __name__, description="How the payments of orders stand")


@blueprint.route("/orders/<order_id>/payment-status", methods=["GET"])
@blueprint.response(HTTPStatus.OK, schemas.PaymentStatusSchema, example=EXAMPLE)
def get_payment_status(order_id: str) -> flask.Response:
    """Show how an order's payment stands: the live one, else the newest that has failed."""
    if not is_plain(order_id) or len(order_id) > LONGEST_ID:
        raise RequestRefused(ErrorCode.VALIDATION_FAILED, "orderId: 1 to 255 characters, no control ones")
    newest = (
        access.only_visible(select(Payment))
        .where(Payment.order_id == canonical(order_id))
        .order_by(Payment.status.in_(DEAD), Payment.id.desc())
        .limit(1)
    )
    with reading(services().sessions) as session:
        payment = session.scalar(newest)
    if payment is None:
        raise PaymentNotFound("The order has no payment")
    return flask.jsonify(_show(payment))


def _show(payment: Payment) -> dict[str, Any]:
    paid = payment.status in PAID
    return {
        "orderId": payment.order_id,
        "paymentStatus": WORDS.get(payment.status, PENDING),
        "amount": Money(payment.amount_minor, payment.currency).to_decimal(),
        "currency": payment.currency,
        "paymentMethod": method_of(payment),
        "transactionId": payment.transaction_id if paid else None,
        "paymentDate": rfc3339(payment.processed_at) if paid and payment.processed_at else None,
    }
