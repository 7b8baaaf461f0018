"""The acme contract, AuthorizePayment: hold the total of a cart that is being checked out."""

from http import HTTPStatus
from typing import Any

import flask
from flask_smorest import Blueprint

from payment_api import access
from payment_api.contracts import acme_schemas as schemas
from payment_api.contracts import payments_examples as examples
from payment_api.contracts.payments_shown import envelope
from payment_api.errors import ErrorCode
from payment_api.http import StrictParser, current_origin, idempotent_request, preference
from payment_api.services import services
from shared.commands.create import Created, CreatePayment, create_payment
from shared.models import Payment
from shared.money import Money
from shared.payments import CaptureMethod, Status

COMMAND = {
    "cartId": examples.CART_ID,
    "customerId": examples.CUSTOMER_ID,
    "amount": 15000,
    "currency": "USD",
}
CART = {"cartId": examples.CART_ID, "amountMinor": 15000, "orderId": None}
REFUSED = {
    Status.FAILED: ErrorCode.PAYMENT_METHOD_DECLINED,
    Status.CANCELLED: ErrorCode.PAYMENT_CANCELLED,
}


class CartBlueprint(Blueprint):
    """A blueprint that reads requests strictly."""

    ARGUMENTS_PARSER = StrictParser()


blueprint = CartBlueprint("acme", __name__, description="Hold the totals of carts")


@blueprint.route("/payments/authorize", methods=["POST"])
@blueprint.arguments(schemas.AuthorizePaymentSchema(), example=COMMAND)
@blueprint.response(
    HTTPStatus.CREATED,
    schemas.CartEnvelopeSchema,
    description="The money is held, now or before",
    example=examples.succeeded(examples.HELD | CART),
)
@blueprint.alt_response(
    HTTPStatus.ACCEPTED,
    schema=schemas.CartEnvelopeSchema,
    description="Recorded; the outcome will be at Location and on Kafka",
    example=examples.unfinished("Payment is still processing", examples.OPEN | CART),
)
@blueprint.alt_response(
    HTTPStatus.PAYMENT_REQUIRED,
    schema=schemas.RefusedCartEnvelopeSchema,
    description="The gateway said no",
    example=examples.unfinished(
        "Payment failed: Your card was declined",
        examples.FAILED | CART,
        errorCode=ErrorCode.PAYMENT_METHOD_DECLINED.name,
    ),
)
@blueprint.alt_response(
    HTTPStatus.UNPROCESSABLE_ENTITY,
    schema=schemas.RefusedCartEnvelopeSchema,
    description="Cancelled before the money was held, or the Idempotency-Key was used for another request",
    example=examples.unfinished(
        "Payment was cancelled", examples.CANCELLED | CART, errorCode=ErrorCode.PAYMENT_CANCELLED.name
    ),
)
def authorize_payment(body: dict[str, Any]) -> flask.Response:
    """Hold the total of a cart; idempotent by cart. Capture it once the order exists, or cancel it."""
    access.check_customer(body["customerId"])
    wanted = preference(services().settings.wait_default_s)
    created = create_payment(
        services().sessions,
        _command(body),
        current_origin(),
        simulated=services().settings.simulated,
        recovery_after_s=services().settings.recovery_after_s,
        idempotent=idempotent_request(),
    )
    flask.g.facts = {"payment_id": str(created.payment.id), "replayed": created.replayed}
    waited = services().waiting.outcome(created.payment, wanted.wait_s)
    return _answer(created, waited or created.payment, wanted.applied if waited else None)


def _command(body: dict[str, Any]) -> CreatePayment:
    money = Money(body["amount"], body["currency"])
    services().limits.check(money)
    return CreatePayment(
        cart_id=body["cartId"],
        order_id=body["orderId"],
        customer_id=body["customerId"],
        money=money,
        payment_method_id=body["paymentMethodId"],
        capture_method=CaptureMethod.MANUAL,
    )


def _answer(created: Created, payment: Payment, applied: str | None) -> flask.Response:
    body = envelope(payment)
    body["payment"] |= {"cartId": payment.cart_id, "amountMinor": payment.amount_minor}
    status = HTTPStatus.CREATED if body["success"] else HTTPStatus.ACCEPTED
    refused = REFUSED.get(payment.status)
    if refused:
        body["errorCode"] = refused.name
    response = flask.make_response(flask.jsonify(body), refused.status if refused else status)
    if status is HTTPStatus.CREATED or not refused:
        response.headers["Location"] = f"/payments/{payment.id}"
    if applied:
        response.headers["Preference-Applied"] = applied
    if created.replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return response
