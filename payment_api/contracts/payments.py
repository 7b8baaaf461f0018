"""The native contract: charge an order, and see how its payment stands."""

import uuid
from http import HTTPStatus
from typing import Any

import flask
from flask_smorest import Blueprint
from sqlalchemy import select

from payment_api import access
from payment_api.contracts import payments_examples as examples
from payment_api.contracts import payments_schemas as schemas
from payment_api.contracts.payments_shown import envelope, show
from payment_api.contracts.ticketing import check_order, reservation_guard
from payment_api.errors import ErrorCode
from payment_api.http import StrictParser, current_origin, idempotent_request, preference
from payment_api.services import Services, services
from shared.commands.create import CreatePayment, create_payment
from shared.database import Sessions, first_id_of, reading
from shared.events import rfc3339
from shared.models import Payment, TimelineEntry
from shared.money import Money
from shared.payments import CaptureMethod, InvalidCommand, Status


class PaymentBlueprint(Blueprint):
    """A blueprint that reads requests strictly."""

    ARGUMENTS_PARSER = StrictParser()


blueprint = PaymentBlueprint("payments", __name__, description="Charge orders and see how payments stand")


@blueprint.route("/payments", methods=["POST"])
@blueprint.arguments(schemas.NewPaymentSchema(), example=examples.NEW_PAYMENT)
@blueprint.response(
    HTTPStatus.OK,
    schemas.PaymentEnvelopeSchema,
    description="The money was taken, or is held for a capture, now or before",
    example=examples.succeeded(examples.PAYMENT),
)
@blueprint.alt_response(
    HTTPStatus.ACCEPTED,
    schema=schemas.PaymentEnvelopeSchema,
    description="Recorded; the outcome will be at Location and on Kafka",
    example=examples.WAITING,
)
@blueprint.alt_response(
    HTTPStatus.UNPROCESSABLE_ENTITY,
    schema=schemas.FailedPaymentEnvelopeSchema,
    description="The gateway said no, or the Idempotency-Key was used for another request",
    example=examples.DECLINED,
)
def post_payment(command: dict[str, Any]) -> flask.Response:
    """Charge an order, or with captureMethod manual hold its money.

    Idempotent by order, and by Idempotency-Key where one is sent. Waits a while for the outcome; the
    Prefer header says how long.
    """
    access.check_customer(command["customerId"])
    wanted = preference(services().settings.wait_default_s)
    checked, idempotent = _command(command, services()), idempotent_request()
    check_order(checked, idempotent)
    created = create_payment(
        services().sessions,
        checked,
        current_origin(),
        simulated=services().settings.simulated,
        recovery_after_s=services().settings.recovery_after_s,
        idempotent=idempotent,
        before_new=reservation_guard(checked),
    )
    flask.g.facts = {"payment_id": str(created.payment.id), "replayed": created.replayed}
    payment = services().waiting.outcome(created.payment, wanted.wait_s)
    response = _answer(payment or created.payment)
    if wanted.applied and payment:
        response.headers["Preference-Applied"] = wanted.applied
    if created.replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return response


@blueprint.route("/payments", methods=["GET"])
@blueprint.arguments(schemas.PaymentQuerySchema(), location="query")
@blueprint.response(HTTPStatus.OK, schemas.PaymentListSchema, example=examples.PAGE)
def list_payments(query: dict[str, Any]) -> flask.Response:
    """List the payments that the caller may see, newest first."""
    payments = _page(services().sessions, query)
    more = len(payments) > query["limit"]
    shown = payments[: query["limit"]]
    return flask.jsonify(
        success=True,
        errorMessage=None,
        payments=[show(each) for each in shown],
        nextCursor=str(shown[-1].id) if more else None,
    )


@blueprint.route("/payments/<payment_id>", methods=["GET"])
@blueprint.response(
    HTTPStatus.OK, schemas.PaymentEnvelopeSchema, example=examples.succeeded(examples.PAYMENT)
)
def get_payment(payment_id: str) -> flask.Response:
    """Show how a payment stands."""
    payment = access.find_payment(payment_id)
    return flask.jsonify(envelope(payment))


@blueprint.route("/payments/<payment_id>/timeline", methods=["GET"])
@blueprint.response(HTTPStatus.OK, schemas.TimelineSchema, example=examples.TIMELINE)
def get_timeline(payment_id: str) -> flask.Response:
    """Show everything that happened to a payment, oldest first."""
    payment = access.find_payment(payment_id)
    query = select(TimelineEntry).where(TimelineEntry.payment_id == payment.id)
    with reading(services().sessions) as session:
        entries = session.scalars(query.order_by(TimelineEntry.sequence)).all()
    return flask.jsonify(success=True, errorMessage=None, timeline=[_show_entry(each) for each in entries])


def _show_entry(entry: TimelineEntry) -> dict[str, Any]:
    return {
        "sequence": entry.sequence,
        "at": rfc3339(entry.at),
        "actor": entry.actor,
        "event": entry.event,
        "from": entry.from_status,
        "to": entry.to_status,
        "operationId": str(entry.operation_id) if entry.operation_id else None,
        "gatewayId": entry.gateway_ref,
        "correlationId": entry.correlation_id,
        "announced": entry.announced_type,
        "eventId": str(entry.announced_id) if entry.announced_id else None,
        "detail": entry.detail,
    }


def _answer(payment: Payment) -> flask.Response:
    body = envelope(payment)
    if body["success"]:
        return flask.make_response(flask.jsonify(body), HTTPStatus.OK)
    refused = {Status.FAILED: ErrorCode.PAYMENT_FAILED, Status.CANCELLED: ErrorCode.PAYMENT_CANCELLED}
    if code := refused.get(payment.status):
        body["errorCode"] = code.name
        return flask.make_response(flask.jsonify(body), code.status)
    response = flask.make_response(flask.jsonify(body), HTTPStatus.ACCEPTED)
    response.headers["Location"] = f"/payments/{payment.id}"
    return response


def _command(body: dict[str, Any], context: Services) -> CreatePayment:
    money = Money.from_decimal(body["amount"], body["currency"])
    context.limits.check(money)
    settings = context.settings
    if not settings.simulated and body["paymentMethod"] not in settings.payment_methods:
        raise InvalidCommand("paymentMethod", "this method is not enabled")
    return CreatePayment(
        order_id=body["orderId"],
        customer_id=body["customerId"],
        reservation_id=body["reservationId"],
        money=money,
        capture_method=CaptureMethod(body["captureMethod"]),
        payment_method=body["paymentMethod"],
        payment_method_id=body["paymentMethodId"],
        off_session=body["offSession"],
        return_url=body["returnUrl"],
        labels=body["metadata"],
    )


def _page(sessions: Sessions, query: dict[str, Any]) -> list[Payment]:
    """One payment more than the limit, so that the caller sees whether there is a next page."""
    columns = {"orderId": Payment.order_id, "customerId": Payment.customer_id, "status": Payment.status}
    select_page = access.only_visible(select(Payment)).order_by(Payment.id.desc()).limit(query["limit"] + 1)
    for name, column in columns.items():
        if name in query:
            select_page = select_page.where(column == query[name])
    if "createdAfter" in query:
        # Ids are in order of time too, and theirs is the index: no need to look through older ones.
        after = query["createdAfter"]
        select_page = select_page.where(Payment.created_at > after, Payment.id >= first_id_of(after))
    if "cursor" in query:
        select_page = select_page.where(Payment.id < uuid.UUID(query["cursor"]))
    with reading(sessions) as session:
        return list(session.scalars(select_page))
