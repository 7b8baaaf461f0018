"""The accounts contract: create a payment, have it charged, see how it stands, give it back."""

from decimal import Decimal
from http import HTTPStatus
from typing import Any

import flask
from sqlalchemy import select

from payment_api import access
from payment_api.contracts import accounts_schemas as schemas
from payment_api.contracts.accounts import refusal, succeeded
from payment_api.contracts.fields import canonical
from payment_api.contracts.further import FurtherBlueprint, respond
from payment_api.contracts.payments_shown import OPEN_MESSAGES, STILL_OPEN, why_failed
from payment_api.errors import ErrorCode, RequestRefused
from payment_api.http import current_origin, idempotent_request, preference
from payment_api.principal import current_principal
from payment_api.services import Services, services
from shared.commands.create import CreatePayment, create_payment
from shared.commands.operations import Requested
from shared.commands.process import process_payment
from shared.commands.refund import RefundPayment, refund_payment
from shared.database import reading
from shared.events import rfc3339
from shared.models import Operation, Payment, TimelineEntry
from shared.money import Money
from shared.payments import PAID, InvalidCommand, OperationState, Status

WAIT_S = 55  # the documented clients expect the outcome in the answer
CREATED = "Payment created"
COMPLETED = "Payment completed"
REFUNDED = "Payment refunded"
REFUND_OPEN = "The refund is still processing"
# The contract has four words: whatever is open is Pending, and what money was taken for is Completed.
STATUS_WORDS = {
    Status.SUCCEEDED: "Completed",
    Status.PARTIALLY_REFUNDED: "Completed",
    Status.REFUNDED: "Refunded",
    Status.FAILED: "Failed",
    Status.CANCELLED: "Failed",
}

EXAMPLE = {
    "id": "01a1fb33-e256-72b0-aefd-9db4d41d316f",
    "amount": Decimal("150.00"),
    "currency": "USD",
    "paymentMethod": "credit_card",
    "status": "Pending",
    "createdAt": "2026-11-20T23:04:03.926Z",
    "updatedAt": "2026-11-20T23:04:03.926Z",
}
CHANGED = "2026-11-20T23:04:04.174Z"
DONE = EXAMPLE | {"status": "Completed", "updatedAt": CHANGED}
REQUEST = {name: EXAMPLE[name] for name in ("amount", "currency", "paymentMethod")}

blueprint = FurtherBlueprint(
    "account payments", __name__, url_prefix="/api/payment", description="Payments of accounts"
)


def _unfinished(message: str, payment: dict[str, Any]) -> dict[str, Any]:
    return {"success": False, "message": message, "result": payment}


@blueprint.route("", methods=["POST"])
@blueprint.route("/create", methods=["POST"], endpoint="create")
@blueprint.arguments(schemas.NewAccountPaymentSchema(), example=REQUEST)
@blueprint.response(
    HTTPStatus.CREATED,
    schemas.AccountPaymentAnswerSchema,
    description="Recorded, and charged only once it is processed",
    example=succeeded(CREATED, EXAMPLE),
)
def post_payment(body: dict[str, Any]) -> flask.Response:
    """Create a payment of the token's account; nothing is charged yet."""
    created = create_payment(
        services().sessions,
        _command(body, services()),
        current_origin(),
        simulated=services().settings.simulated,
        recovery_after_s=services().settings.recovery_after_s,
        idempotent=idempotent_request(),
    )
    flask.g.facts = {"payment_id": str(created.payment.id), "replayed": created.replayed}
    response = flask.make_response(
        flask.jsonify(succeeded(CREATED, _show(created.payment))), HTTPStatus.CREATED
    )
    if created.replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return response


@blueprint.route("/<payment_id>/process", methods=["POST"])
@blueprint.arguments(schemas.NamedPaymentSchema(), required=False)
@blueprint.response(
    HTTPStatus.OK,
    schemas.AccountPaymentAnswerSchema,
    description="The money was taken",
    example=succeeded(COMPLETED, DONE),
)
@blueprint.alt_response(
    HTTPStatus.ACCEPTED,
    schema=schemas.AccountPaymentAnswerSchema,
    description="Recorded; the outcome will be at Location",
    example=_unfinished(STILL_OPEN, EXAMPLE),
)
@blueprint.alt_response(
    HTTPStatus.UNPROCESSABLE_ENTITY,
    schema=schemas.FailedAccountPaymentSchema,
    description="The gateway said no",
    example=refusal(
        ErrorCode.PAYMENT_FAILED,
        "Payment failed: Your card was declined",
        EXAMPLE | {"status": "Failed", "updatedAt": CHANGED},
    ),
)
def post_process(body: dict[str, Any], payment_id: str) -> flask.Response:
    """Charge a payment, once, and wait for the outcome."""
    payment = _named(body, payment_id)
    wanted = preference(WAIT_S)
    requested = process_payment(
        services().sessions,
        payment.id,
        current_origin(),
        recovery_after_s=services().settings.recovery_after_s,
        idempotent=idempotent_request(),
    )
    waited = services().waiting.outcome(requested.payment, wanted.wait_s)
    payment = waited or requested.payment
    message, code = _outcome(payment)
    return _answer(payment, message, code, requested, wanted.applied if waited else None)


@blueprint.route("/<payment_id>/status", methods=["GET"])
@blueprint.response(
    HTTPStatus.OK, schemas.AccountPaymentAnswerSchema, example=succeeded("Payment is Completed", DONE)
)
def get_status(payment_id: str) -> flask.Response:
    """Show how a payment stands."""
    payment = access.find_payment(payment_id)
    return flask.jsonify(succeeded(f"Payment is {_word(payment)}", _show(payment)))


@blueprint.route("/<payment_id>/refund", methods=["POST"])
@blueprint.arguments(schemas.NamedPaymentSchema(), required=False)
@blueprint.response(
    HTTPStatus.OK,
    schemas.AccountPaymentAnswerSchema,
    description="All of the money is on its way back",
    example=succeeded(REFUNDED, EXAMPLE | {"status": "Refunded", "updatedAt": CHANGED}),
)
@blueprint.alt_response(
    HTTPStatus.ACCEPTED,
    schema=schemas.AccountPaymentAnswerSchema,
    description="Recorded; the outcome will be at Location",
    example=_unfinished(REFUND_OPEN, DONE),
)
@blueprint.alt_response(
    HTTPStatus.UNPROCESSABLE_ENTITY,
    schema=schemas.FailedAccountPaymentSchema,
    description="The gateway said no; the refund can be asked for again",
    example=refusal(ErrorCode.OPERATION_FAILED, "Refund failed: declined", DONE),
)
def post_refund(body: dict[str, Any], payment_id: str) -> flask.Response:
    """Give back all that is left of a payment, and wait for the outcome."""
    payment = _named(body, payment_id)
    if not _is_an_accounts(payment):
        access.check_acts_for_the_shop()
    wanted = preference(WAIT_S)
    idempotent = idempotent_request()
    requested = refund_payment(
        services().sessions,
        payment.id,
        # Nothing but its being the same tells a repeat from a second refund, as long as the first is open.
        RefundPayment(reuse_open=idempotent is None),
        current_origin(),
        recovery_after_s=services().settings.recovery_after_s,
        idempotent=idempotent,
    )
    asked = requested.operation
    assert asked is not None  # noqa: S101 - a refund always has one
    waited = services().waiting.operation(asked, wanted.wait_s)
    refund = waited or asked
    payment = services().waiting.read_anew(requested.payment)
    message, code = _refund_outcome(refund, payment)
    return _answer(payment, message, code, requested, wanted.applied if waited else None)


def _command(body: dict[str, Any], context: Services) -> CreatePayment:
    money = Money.from_decimal(body["amount"], body["currency"].upper())
    context.limits.check(money)
    settings = context.settings
    if not settings.simulated and body["paymentMethod"] not in settings.payment_methods:
        raise InvalidCommand("paymentMethod", "this method is not enabled")
    return CreatePayment(
        money=money,
        customer_id=current_principal().id,
        payment_method=body["paymentMethod"],
        unasked=True,
    )


def _named(body: dict[str, Any], payment_id: str) -> Payment:
    """The payment of the path; a body may name it once more, and no other."""
    named = body["paymentId"]
    if named is not None and canonical(named) != canonical(payment_id):
        raise RequestRefused(ErrorCode.VALIDATION_FAILED, "paymentId: must be the path's")
    return access.find_payment(payment_id)


def _is_an_accounts(payment: Payment) -> bool:
    """Whether it was made by this contract, which lets whoever paid have the money back.

    What was paid for something, by any other contract, is the shop's to give back.
    """
    return not (payment.order_id or payment.cart_id or payment.subscription_id)


def _outcome(payment: Payment) -> tuple[str, ErrorCode | None]:
    """What to say of a payment that was processed; a code where nothing was taken."""
    if payment.status in PAID:
        return COMPLETED, None
    if payment.status is Status.FAILED:
        return f"Payment failed: {payment.error_message}", ErrorCode.PAYMENT_FAILED
    if payment.status is Status.CANCELLED:
        return "Payment was cancelled", ErrorCode.PAYMENT_CANCELLED
    return OPEN_MESSAGES.get(payment.status, STILL_OPEN), None


def _refund_outcome(refund: Operation, payment: Payment) -> tuple[str, ErrorCode | None]:
    if refund.state is OperationState.SUCCEEDED:
        return REFUNDED, None
    if refund.state is OperationState.FAILED:
        return why_failed(refund, payment), ErrorCode.OPERATION_FAILED
    return REFUND_OPEN, None


def _answer(
    payment: Payment, message: str, code: ErrorCode | None, requested: Requested, applied: str | None
) -> flask.Response:
    flask.g.facts = {"payment_id": str(payment.id), "replayed": requested.replayed}
    body = succeeded(message, _show(payment)) | {"success": message in {COMPLETED, REFUNDED}}
    return respond(
        body,
        code,
        replayed=requested.replayed,
        applied=applied,
        poll=f"/api/payment/{payment.id}/status",
    )


def _word(payment: Payment) -> str:
    return STATUS_WORDS.get(payment.status, "Pending")


def _show(payment: Payment) -> dict[str, Any]:
    """A payment in this contract's words."""
    newest = select(TimelineEntry.at).where(
        TimelineEntry.payment_id == payment.id, TimelineEntry.sequence == payment.version
    )
    with reading(services().sessions) as session:
        changed_at = session.scalars(newest).one()
    return {
        "id": str(payment.id),
        "amount": Money(payment.amount_minor, payment.currency).to_decimal(),
        "currency": payment.currency,
        "paymentMethod": payment.payment_method,
        "status": _word(payment),
        "createdAt": rfc3339(payment.created_at),
        "updatedAt": rfc3339(changed_at),
    }
