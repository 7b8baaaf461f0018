"""The ticketing contract's checks: whether an order, and a reservation, may be paid for as asked."""

import functools
from collections.abc import Callable

import flask
from sqlalchemy.orm import Session

from payment_api.services import services
from shared.commands.create import CreatePayment, is_known
from shared.commands.idempotency import IdempotentRequest
from shared.commands.reservations import check_reservation
from shared.orders import ClaimedOrder


def check_order(command: CreatePayment, idempotent: IdempotentRequest | None) -> None:
    """Ask the order service about an order, unless the payment exists already; no connection is held.

    Raises OrderNotFound, OrderNotOwned, OrderMismatch and OrderServiceUnavailable; nothing is stored then.
    """
    orders = services().orders
    if orders is None or is_known(services().sessions, command, idempotent):
        return
    claimed = ClaimedOrder(
        order_id=str(command.order_id), customer_id=str(command.customer_id), money=command.money
    )
    orders.check(claimed, flask.g.correlation_id, flask.g.traceparent)


def reservation_guard(command: CreatePayment) -> Callable[[Session], None] | None:
    """What is to be asked of the reservation in the transaction that records the payment, if anything."""
    if services().settings.reservations != "on" or command.reservation_id is None:
        return None
    return functools.partial(
        check_reservation, reservation_id=command.reservation_id, customer_id=command.customer_id
    )
