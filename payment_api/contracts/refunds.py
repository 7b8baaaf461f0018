"""The native contract: give money back, and see how refunds stand."""

from http import HTTPStatus
from typing import Any

import flask
from sqlalchemy import select

from payment_api import access
from payment_api.contracts import further_schemas as schemas
from payment_api.contracts import payments_examples as examples
from payment_api.contracts.further import FurtherBlueprint, minor_of, no_wait, respond
from payment_api.contracts.payments_shown import show, show_refund, why_failed
from payment_api.errors import ErrorCode
from payment_api.http import Preference, current_origin, idempotent_request
from payment_api.services import services
from shared.commands.operations import Requested
from shared.commands.refund import RefundPayment, refund_payment
from shared.database import reading
from shared.models import Operation, Payment
from shared.payments import OperationKind, OperationState, PaymentNotFound, RefundNotFound

STILL_OPEN = "Refund is still processing"
# A second charge of a payment, should there ever be one, is given back by a refund that is none of the
# payment's own: the sums of what is shown add up.
OWN_REFUNDS = (Operation.kind == OperationKind.REFUND, Operation.target_ref.is_(None))

blueprint = FurtherBlueprint("refunds", __name__, description="Give money back and see how refunds stand")


@blueprint.route("/payments/<payment_id>/refunds", methods=["POST"])
@blueprint.arguments(
    schemas.RefundRequestSchema(), required=False, example={"amount": 40.0, "reason": "returned one of two"}
)
@blueprint.response(
    HTTPStatus.OK,
    schemas.RefundEnvelopeSchema,
    description="The money is on its way back",
    example=examples.REFUND_SHOWN,
)
@blueprint.alt_response(
    HTTPStatus.ACCEPTED,
    schema=schemas.RefundEnvelopeSchema,
    description="Recorded and reserved; the outcome will be at Location and on Kafka",
    example=examples.unfinished(STILL_OPEN, examples.PAYMENT, refund=examples.refund()),
)
@blueprint.alt_response(
    HTTPStatus.UNPROCESSABLE_ENTITY,
    schema=schemas.RefusedRefundSchema,
    description="More than is left, or the gateway said no; what it had reserved can be refunded anew",
    example=examples.unfinished(
        "amount: 40.00 USD is left to refund", None, errorCode=ErrorCode.AMOUNT_EXCEEDED.name
    ),
)
def post_refund(body: dict[str, Any], payment_id: str) -> flask.Response:
    """Give back all that is left of a payment, or a part, as often as something is left."""
    payment = access.find_payment(payment_id)
    access.check_acts_for_the_shop()
    wanted = no_wait()
    requested = refund_payment(
        services().sessions,
        payment.id,
        RefundPayment(amount_minor=minor_of(body["amount"], payment), reason=body["reason"]),
        current_origin(),
        recovery_after_s=services().settings.recovery_after_s,
        idempotent=idempotent_request(),
    )
    return _answer(requested, wanted)


@blueprint.route("/payments/<payment_id>/refunds", methods=["GET"])
@blueprint.response(
    HTTPStatus.OK,
    schemas.RefundListSchema,
    example={"success": True, "errorMessage": None, "refunds": [examples.REFUNDED]},
)
def list_refunds(payment_id: str) -> flask.Response:
    """List the refunds of a payment, oldest first."""
    payment = access.find_payment(payment_id)
    query = select(Operation).where(Operation.payment_id == payment.id, *OWN_REFUNDS)
    with reading(services().sessions) as session:
        refunds = session.scalars(query.order_by(Operation.id)).all()
    return flask.jsonify(
        success=True, errorMessage=None, refunds=[show_refund(each, payment) for each in refunds]
    )


@blueprint.route("/refunds/<refund_id>", methods=["GET"])
@blueprint.response(HTTPStatus.OK, schemas.RefundEnvelopeSchema, example=examples.REFUND_SHOWN)
def get_refund(refund_id: str) -> flask.Response:
    """Show how a refund stands, and its payment."""
    refund, payment = _find(refund_id)
    return flask.jsonify(_envelope(refund, payment))


def _find(refund_id: str) -> tuple[Operation, Payment]:
    key = access.id_of_path(refund_id)
    with reading(services().sessions) as session:
        refund = session.scalar(select(Operation).where(Operation.id == key, *OWN_REFUNDS))
    if refund is None:
        raise RefundNotFound("Refund not found")
    try:
        return refund, access.find_payment(str(refund.payment_id))
    except PaymentNotFound:
        # Whose payment the caller may not see, of that it may not see a refund either.
        raise RefundNotFound("Refund not found") from None


def _answer(requested: Requested, wanted: Preference) -> flask.Response:
    asked = requested.operation
    assert asked is not None  # noqa: S101 - a refund always has one
    waited = services().waiting.operation(asked, wanted.wait_s)
    refund = waited or asked
    payment = services().waiting.read_anew(requested.payment)
    failed = refund.state is OperationState.FAILED
    return respond(
        _envelope(refund, payment),
        ErrorCode.OPERATION_FAILED if failed else None,
        replayed=requested.replayed,
        applied=wanted.applied if waited else None,
        poll=f"/refunds/{refund.id}",
    )


def _envelope(refund: Operation, payment: Payment) -> dict[str, Any]:
    success = refund.state is OperationState.SUCCEEDED
    failed = refund.state is OperationState.FAILED
    message = why_failed(refund, payment) if failed else STILL_OPEN
    return {
        "success": success,
        "errorMessage": None if success else message,
        "payment": show(payment),
        "refund": show_refund(refund, payment),
    }
