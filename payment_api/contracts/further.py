"""What the routes on a payment that exists have in common: how they read amounts, wait and answer."""

from decimal import Decimal
from http import HTTPStatus
from typing import Any

import flask
from flask_smorest import Blueprint

from payment_api.errors import ErrorCode
from payment_api.http import OptionalBodyParser, Preference, preference
from shared.models import Payment
from shared.money import Money


class FurtherBlueprint(Blueprint):
    """A blueprint that reads requests strictly; no body at all is an empty one."""

    ARGUMENTS_PARSER = OptionalBodyParser()


def minor_of(amount: Decimal | None, payment: Payment) -> int | None:
    """An amount in minor units of the payment's currency. Raises InvalidAmount, and never rounds."""
    return None if amount is None else Money.from_decimal(amount, payment.currency).amount_minor


def no_wait() -> Preference:
    """How long to wait: not at all unless the caller asks for it."""
    return preference(0)


def respond(
    body: dict[str, Any],
    refusal: ErrorCode | None,
    *,
    replayed: bool,
    applied: str | None,
    poll: str,
) -> flask.Response:
    """200 for what has come about, the refusal's status with its code, else 202 with where to `poll`."""
    if refusal:
        body["errorCode"] = refusal.name
    done = HTTPStatus.OK if body["success"] else HTTPStatus.ACCEPTED
    response = flask.make_response(flask.jsonify(body), refusal.status if refusal else done)
    if response.status_code == HTTPStatus.ACCEPTED:
        response.headers["Location"] = poll
    if applied:
        response.headers["Preference-Applied"] = applied
    if replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return response
