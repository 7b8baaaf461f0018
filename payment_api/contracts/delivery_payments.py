"""The delivery contract: charge an order with a customer's payment method, and give money back."""

from http import HTTPStatus
from typing import Any

import flask

from payment_api import access
from payment_api.callbacks import callback
from payment_api.contracts import delivery_schemas as schemas
from payment_api.contracts.delivery import CARD_REQUEST, DeliveryBlueprint, answer, refusal, succeeded
from payment_api.errors import ErrorCode, RequestRefused
from payment_api.http import Preference, current_origin, idempotent_request, preference
from payment_api.services import services
from shared.commands.create import Created, CreatePayment, create_payment
from shared.commands.operations import Requested
from shared.commands.refund import RefundPayment, refund_payment
from shared.models import Operation
from shared.money import Money
from shared.payments import (
    AmountExceeded,
    CaptureMethod,
    OperationState,
    Status,
)

WAIT_S = 55  # the documented clients expect the outcome in the answer
PENDING = "Payment is still processing"
REFUND_PENDING = "Refund is still processing"
# As the gateway calls them; money that went back later does not undo the payment.
STATUS_WORDS = {
    Status.SUCCEEDED: "succeeded",
    Status.PARTIALLY_REFUNDED: "succeeded",
    Status.REFUNDED: "succeeded",
    Status.AUTHORIZED: "requires_capture",
    Status.REQUIRES_ACTION: "requires_action",
}

INTENT_REQUEST = {**CARD_REQUEST, "amount": 2500, "orderId": "order_7301", "currency": "usd"}
INTENT_EXAMPLE = {
    "payment_intent_id": "pi_3QrT5vXyZ0123456789",
    "status": "succeeded",
    "amount": 2500,
    "currency": "usd",
}
REFUND_REQUEST = {"paymentIntentId": "pi_3QrT5vXyZ0123456789", "amount": 1000, "reason": "customer_requested"}
REFUND_EXAMPLE = {
    "refund_id": "re_3QrT5vXyZ0123456789",
    "status": "succeeded",
    "amount": 1000,
    "currency": "usd",
    "payment_intent": "pi_3QrT5vXyZ0123456789",
}


blueprint = DeliveryBlueprint(
    "delivery payments", __name__, url_prefix="/payment", description="Charge orders with a customer's card"
)


def _pending(message: str, **data: str | None) -> dict[str, Any]:
    return {"success": True, "pending": True, "message": message, "data": {**data, "status": "processing"}}


@blueprint.route("/payment-intent", methods=["POST"])
@blueprint.arguments(schemas.NewIntentSchema(), example=INTENT_REQUEST)
@blueprint.response(
    HTTPStatus.OK,
    schemas.IntentAnswerSchema,
    description="The money was taken or is held, or the customer must act",
    example=succeeded(INTENT_EXAMPLE),
)
@blueprint.alt_response(
    HTTPStatus.ACCEPTED,
    schema=schemas.PendingAnswerSchema,
    description="Recorded; the same request shows how it went, and so does Location, in the native contract",
    example=_pending(PENDING, orderId="order_7301"),
)
@blueprint.alt_response(
    HTTPStatus.PAYMENT_REQUIRED,
    schema=schemas.DeliveryRefusalSchema,
    description="The gateway said no",
    example=refusal(ErrorCode.PAYMENT_METHOD_DECLINED, "Your card was declined."),
)
def post_intent(body: dict[str, Any]) -> flask.Response:
    """Charge an order, or hold its money; idempotent by order, as POST /payments is."""
    wanted = preference(WAIT_S)
    created = create_payment(
        services().sessions,
        _command(body),
        current_origin(),
        simulated=services().settings.simulated,
        recovery_after_s=services().settings.recovery_after_s,
        idempotent=idempotent_request(),
    )
    flask.g.facts = {"payment_id": str(created.payment.id), "replayed": created.replayed}
    return _intent_answer(created, wanted)


@blueprint.route("/refund", methods=["POST"])
@blueprint.arguments(schemas.NewRefundSchema(), example=REFUND_REQUEST)
@blueprint.response(
    HTTPStatus.OK,
    schemas.RefundAnswerSchema,
    description="The money is on its way back",
    example=succeeded(REFUND_EXAMPLE),
)
@blueprint.alt_response(
    HTTPStatus.ACCEPTED,
    schema=schemas.PendingAnswerSchema,
    description="Recorded; Location shows how it goes. While it is open the same request is the same refund",
    example=_pending(REFUND_PENDING, payment_intent="pi_3QrT5vXyZ0123456789"),
)
@blueprint.alt_response(
    HTTPStatus.PAYMENT_REQUIRED,
    schema=schemas.DeliveryRefusalSchema,
    description="The gateway said no; what was to be refunded can be refunded anew",
    example=refusal(ErrorCode.PAYMENT_METHOD_DECLINED, "The refund failed."),
)
def post_refund(body: dict[str, Any]) -> flask.Response:
    """Give back all that is left of a payment, or a part; several parts add up."""
    wanted = preference(WAIT_S)
    payment = access.find_payment_by_intent(body["paymentIntentId"])
    access.check_acts_for_the_shop()
    idempotent = idempotent_request()
    command = RefundPayment(
        amount_minor=body["amount"],
        reason=body["reason"],
        # Nothing but its being the same tells a repeat from a second refund, as long as the first is open.
        reuse_open=idempotent is None,
    )
    try:
        requested = refund_payment(
            services().sessions,
            payment.id,
            command,
            current_origin(),
            recovery_after_s=services().settings.recovery_after_s,
            idempotent=idempotent,
        )
    except AmountExceeded as error:
        raise RequestRefused(ErrorCode.VALIDATION_FAILED, str(error)) from None
    flask.g.facts = {"payment_id": str(payment.id), "replayed": requested.replayed}
    return _refund_answer(requested, wanted)


def _command(body: dict[str, Any]) -> CreatePayment:
    money = Money(body["amount"], body["currency"].upper())
    services().limits.check(money)
    customer = access.find_customer(body["customerId"])
    return CreatePayment(
        order_id=body["orderId"],
        customer_id=customer.client_customer_id or customer.gateway_ref,
        money=money,
        payment_method_id=body["paymentMethodId"],
        return_url=body["returnUrl"],
        capture_method=CaptureMethod(body["captureMethod"]),
        callback=callback(),
    )


def _intent_answer(created: Created, wanted: Preference) -> flask.Response:
    waited = services().waiting.outcome(created.payment, wanted.wait_s)
    payment = waited or created.payment
    if payment.status is Status.FAILED:
        raise RequestRefused(ErrorCode.PAYMENT_METHOD_DECLINED, payment.error_message or "Payment failed")
    if payment.status is Status.CANCELLED:
        raise RequestRefused(ErrorCode.PAYMENT_CANCELLED, "Payment was cancelled")
    applied = wanted.applied if waited else None
    if payment.status not in STATUS_WORDS:
        return answer(
            _pending(PENDING, orderId=payment.order_id),
            HTTPStatus.ACCEPTED,
            replayed=created.replayed,
            applied=applied,
            poll=f"/payments/{payment.id}",
        )
    data = {
        "payment_intent_id": payment.gateway_ref,
        "status": STATUS_WORDS[payment.status],
        "amount": payment.amount_minor,
        "currency": payment.currency.lower(),
    }
    if payment.status is Status.REQUIRES_ACTION and payment.next_action:
        data["client_secret"] = payment.next_action.get("clientSecret")
    return answer(succeeded(data), replayed=created.replayed, applied=applied)


def _refund_answer(requested: Requested, wanted: Preference) -> flask.Response:
    asked, payment = requested.operation, requested.payment
    assert asked is not None  # noqa: S101 - a refund always has one
    waited = services().waiting.operation(asked, wanted.wait_s)
    refund = waited or asked
    if refund.state is OperationState.FAILED:
        raise RequestRefused(ErrorCode.PAYMENT_METHOD_DECLINED, _why(refund))
    applied = wanted.applied if waited else None
    if refund.state is not OperationState.SUCCEEDED:
        pending = _pending(REFUND_PENDING, payment_intent=payment.gateway_ref)
        return answer(
            pending,
            HTTPStatus.ACCEPTED,
            replayed=requested.replayed,
            applied=applied,
            poll=f"/refunds/{refund.id}",
        )
    data = {
        "refund_id": refund.gateway_ref,
        "status": "succeeded",
        "amount": refund.amount_minor,
        "currency": payment.currency.lower(),
        "payment_intent": payment.gateway_ref,
    }
    return answer(succeeded(data), replayed=requested.replayed, applied=applied)


def _why(refund: Operation) -> str:
    message = (refund.outcome or {}).get("message")
    return f"Refund failed: {message}" if message else "The refund failed"
