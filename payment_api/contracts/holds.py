"""The native contract: take what a payment holds, or give the payment up."""

from http import HTTPStatus
from typing import Any

import flask

from payment_api import access
from payment_api.contracts import further_schemas as schemas
from payment_api.contracts import payments_examples as examples
from payment_api.contracts.further import FurtherBlueprint, minor_of, no_wait, respond
from payment_api.contracts.payments_shown import show, show_operation, why_failed
from payment_api.errors import ErrorCode
from payment_api.http import Preference, current_origin, idempotent_request
from payment_api.services import services
from shared.commands.cancel import OPEN_TO_CANCEL, cancel_payment
from shared.commands.capture import CapturePayment, capture_payment
from shared.commands.operations import Requested
from shared.models import Operation, Payment
from shared.payments import OperationState, Status

# Where a payment that was given up ends: nothing was taken, or all of it went back.
UNDONE = frozenset({Status.CANCELLED, Status.FAILED, Status.REFUNDED})
CAPTURE_OPEN = "The capture is still processing"
CANCEL_OPEN = "The cancellation is still processing"
CAPTURE = examples.operation("capture", "40.00")
CANCEL = examples.operation("cancel", "150.00", reason="the shopper left")

blueprint = FurtherBlueprint("holds", __name__, description="Take what payments hold, or give payments up")


@blueprint.route("/payments/<payment_id>/capture", methods=["POST"])
@blueprint.arguments(schemas.CaptureSchema(), required=False, example={"amount": 40.0})
@blueprint.response(
    HTTPStatus.OK,
    schemas.OperationEnvelopeSchema,
    description="The money was taken",
    example=examples.succeeded(
        examples.PAYMENT | {"capturedAmount": 40.0},
        operation=CAPTURE | {"state": "succeeded", "finishedAt": examples.LATER},
    ),
)
@blueprint.alt_response(
    HTTPStatus.ACCEPTED,
    schema=schemas.OperationEnvelopeSchema,
    description="Recorded; the outcome will be at Location and on Kafka",
    example=examples.unfinished(CAPTURE_OPEN, examples.HELD, operation=CAPTURE),
)
@blueprint.alt_response(
    HTTPStatus.UNPROCESSABLE_ENTITY,
    schema=schemas.RefusedOperationSchema,
    description="More than is held, or the gateway said no",
    example=examples.unfinished(
        "amount: at most 150.00 USD can be captured", None, errorCode=ErrorCode.AMOUNT_EXCEEDED.name
    ),
)
def post_capture(body: dict[str, Any], payment_id: str) -> flask.Response:
    """Take what a payment holds, all of it or a part; the rest is released."""
    payment = access.find_payment(payment_id)
    access.check_acts_for_the_shop()
    wanted = no_wait()
    requested = capture_payment(
        services().sessions,
        payment.id,
        CapturePayment(amount_minor=minor_of(body["amount"], payment), order_id=body["orderId"]),
        current_origin(),
        recovery_after_s=services().settings.recovery_after_s,
        idempotent=idempotent_request(),
    )
    return _capture_answer(requested, wanted)


@blueprint.route("/payments/<payment_id>/cancel", methods=["POST"])
@blueprint.arguments(schemas.CancelSchema(), required=False, example={"reason": "the shopper left"})
@blueprint.response(
    HTTPStatus.OK,
    schemas.OperationEnvelopeSchema,
    description="Nothing was taken, or all of it went back",
    example=examples.succeeded(examples.CANCELLED, operation=None),
)
@blueprint.alt_response(
    HTTPStatus.ACCEPTED,
    schema=schemas.OperationEnvelopeSchema,
    description="Recorded; the hold will be let go, or what is just being taken will go back",
    example=examples.unfinished(CANCEL_OPEN, examples.HELD, operation=CANCEL),
)
@blueprint.alt_response(
    HTTPStatus.UNPROCESSABLE_ENTITY,
    schema=schemas.RefusedOperationSchema,
    description="The gateway said no, or the Idempotency-Key was used for another request",
    example=examples.unfinished(
        "Cancel failed: the gateway said no",
        examples.HELD,
        operation=CANCEL | {"state": "failed", "finishedAt": examples.LATER},
        errorCode=ErrorCode.OPERATION_FAILED.name,
    ),
)
def post_cancel(body: dict[str, Any], payment_id: str) -> flask.Response:
    """Give a payment up: before it is sent, while it is held or waits, or as soon as its outcome is known."""
    payment = access.find_payment(payment_id)
    wanted = no_wait()
    requested = cancel_payment(
        services().sessions,
        payment.id,
        body["reason"],
        current_origin(),
        recovery_after_s=services().settings.recovery_after_s,
        idempotent=idempotent_request(),
    )
    return _cancel_answer(requested, wanted)


def _capture_answer(requested: Requested, wanted: Preference) -> flask.Response:
    asked = requested.operation
    assert asked is not None  # noqa: S101 - a capture always has one
    waited = services().waiting.operation(asked, wanted.wait_s)
    operation = waited or asked
    payment = _as_it_stands(requested.payment)
    failed = operation.state is OperationState.FAILED
    body = _body(operation.state is OperationState.SUCCEEDED, CAPTURE_OPEN, payment, operation)
    return respond(
        body,
        ErrorCode.OPERATION_FAILED if failed else None,
        replayed=requested.replayed,
        applied=wanted.applied if waited else None,
        poll=f"/payments/{payment.id}",
    )


def _cancel_answer(requested: Requested, wanted: Preference) -> flask.Response:
    waiting = services().waiting
    operation, waited = requested.operation, True
    if operation:
        known = waiting.operation(operation, wanted.wait_s)
        operation, waited = known or operation, known is not None
        payment = _as_it_stands(requested.payment)
    else:
        outcome = waiting.outcome(requested.payment, wanted.wait_s, UNDONE)
        payment, waited = outcome or requested.payment, outcome is not None
    # A refused cancel of what was paid meanwhile is none: the money goes back.
    failed = operation is not None and operation.state is OperationState.FAILED
    refused = failed and payment.status in OPEN_TO_CANCEL
    return respond(
        _body(payment.status in UNDONE, CANCEL_OPEN, payment, operation),
        ErrorCode.OPERATION_FAILED if refused else None,
        replayed=requested.replayed,
        applied=wanted.applied if waited else None,
        poll=f"/payments/{payment.id}",
    )


def _body(success: bool, still_open: str, payment: Payment, operation: Operation | None) -> dict[str, Any]:  # noqa: FBT001 - an envelope's field
    failed = operation is not None and operation.state is OperationState.FAILED
    message = why_failed(operation, payment) if operation and failed else still_open
    return {
        "success": success,
        "errorMessage": None if success else message,
        "payment": show(payment),
        "operation": show_operation(operation, payment) if operation else None,
    }


def _as_it_stands(payment: Payment) -> Payment:
    return services().waiting.read_anew(payment)
