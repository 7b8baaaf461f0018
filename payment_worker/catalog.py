"""The catalog contract's notices: a payment is wanted, a subscription has begun, a stock has changed."""

import functools
import re
from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from payment_worker.handling import Handler, Handling, canonical, moment
from shared.catalog_messages import METHOD_LABEL, PAYMENT_METHODS
from shared.commands.cards import default_card
from shared.commands.create import CreatePayment, create_payment, is_known
from shared.commands.received import was_received
from shared.commands.reservations import note_received
from shared.commands.stock import record_adjustment, undo_order
from shared.database import reading
from shared.models import Payment
from shared.money import Money
from shared.orders import ClaimedOrder
from shared.payments import DEAD, Announcement, InvalidCommand, Notice, PaymentConflict
from shared.telemetry import get_logger

DEFAULT_CURRENCY = "USD"
DEFAULT_METHOD = "credit_card"
PAYMENT_LABEL, PLAN_LABEL, START_LABEL = "catalogPaymentId", "catalogPlanId", "catalogStartDate"
OUT_OF_STOCK = "outofstock"

log = get_logger(__name__)


def initiate(handling: Handling) -> None:
    """Make a payment as POST /payments would, once the order service knows the order."""
    data, settings = handling.asked.data, handling.settings
    if data["timestamp"]:
        moment("timestamp", data["timestamp"])
    said = data["paymentMethod"] or DEFAULT_METHOD
    method = PAYMENT_METHODS.get(said, said)
    if method not in PAYMENT_METHODS.values() or not (
        settings.simulated or method in settings.payment_methods
    ):
        raise InvalidCommand("paymentMethod", "this method is not known or not enabled")
    labels = {PAYMENT_LABEL: data["paymentId"], METHOD_LABEL: said if said != method else None}
    command = CreatePayment(
        order_id=canonical(data["orderId"]),
        customer_id=canonical(data["userId"]),
        money=_money(handling, "amount", data["amount"], data["currency"]),
        payment_method=method,
        payment_method_id=data["paymentMethodId"],
        labels={name: value for name, value in labels.items() if value},
        outcome_topic=Announcement.PAYMENT_PROCESSED,
    )
    _check_order(handling, command)
    _create(handling, command)


def start_subscription(handling: Handling) -> None:
    """Charge the plan's price with the user's saved card, once for each subscription; a trial is free."""
    data = handling.asked.data["data"]
    plan, trial_days, began = data["plan"], data["trialPeriodDays"] or 0, data["startDate"]
    if began:
        moment("data.startDate", began)
    if trial_days < 0:
        raise InvalidCommand("data.trialPeriodDays", "must not be negative")
    if trial_days or plan["price"] == 0:
        log.info("a subscription begins without a charge", trial_days=trial_days)
        note_received(handling.sessions, handling.received)
        return
    customer_id = canonical(data["userId"])
    labels = {PLAN_LABEL: plan["planId"], START_LABEL: began}
    command = CreatePayment(
        subscription_id=canonical(data["subscriptionId"]),
        customer_id=customer_id,
        money=_money(handling, "data.plan.price", plan["price"], plan["currency"]),
        payment_method_id=data["paymentMethodId"] or _default_card(handling, customer_id),
        off_session=True,
        labels={name: value for name, value in labels.items() if value},
        outcome_topic=Announcement.PAYMENT_PROCESSED,
    )
    _check_same_start(handling, str(command.subscription_id), began)
    _create(handling, command, functools.partial(_need_card, command))


def adjust_inventory(handling: Handling) -> None:
    """Write the change down; with INVENTORY_REFUNDS, undo the payment of an order that is out of stock."""
    data = handling.asked.data["data"] or handling.asked.data
    product = data["productId"] or data["product"] or data["sku"]
    if not product:
        raise InvalidCommand("productId", "name the product, or its sku")
    quantity = data["quantity"] if data["adjustedQuantity"] is None else data["adjustedQuantity"]
    order_id, reason = canonical(data["orderId"]), data["reason"]
    with handling.sessions.begin() as session:
        record_adjustment(session, handling.received.message_id, product, quantity, reason, order_id)
    undone = (
        handling.settings.inventory_refunds == "on"
        and order_id
        and is_out_of_stock(reason)
        and undo_order(
            handling.sessions,
            order_id,
            reason,
            handling.origin,
            handling.received,
            recovery_after_s=handling.settings.recovery_after_s,
        )
    )
    if not undone:
        note_received(handling.sessions, handling.received)


def is_out_of_stock(reason: str | None) -> bool:
    """Whether a reason begins by saying that there is none left: OutOfStock, out_of_stock, Out of stock."""
    return re.sub(r"[^a-z]", "", (reason or "").lower()).startswith(OUT_OF_STOCK)


def _money(handling: Handling, field: str, amount: Decimal | int, currency: str | None) -> Money:
    if amount <= 0:
        raise InvalidCommand(field, "Must be greater than 0.")
    money = Money.from_decimal(amount, currency or DEFAULT_CURRENCY)
    handling.limits.check(money)
    return money


def _check_order(handling: Handling, command: CreatePayment) -> None:
    if handling.orders is None or was_received(handling.sessions, handling.received):
        return
    if is_known(handling.sessions, command, None):
        return
    claimed = ClaimedOrder(
        order_id=str(command.order_id), customer_id=str(command.customer_id), money=command.money
    )
    handling.orders.check(claimed, handling.origin.correlation_id, handling.origin.traceparent)


def _create(handling: Handling, command: CreatePayment, before_new: Any = None) -> None:
    create_payment(
        handling.sessions,
        command,
        handling.origin,
        simulated=handling.settings.simulated,
        recovery_after_s=handling.settings.recovery_after_s,
        received=handling.received,
        before_new=before_new,
    )


def _default_card(handling: Handling, customer_id: str) -> str | None:
    with reading(handling.sessions) as session:
        return default_card(session, customer_id)


def _need_card(command: CreatePayment, _: Session) -> None:
    if command.payment_method_id is None:
        raise InvalidCommand("data.paymentMethodId", "the user has no saved card")


def _check_same_start(handling: Handling, subscription_id: str, began: str | None) -> None:
    """Refuse another start aloud, where the same one is only a repeat."""
    query = select(Payment.labels).where(
        Payment.subscription_id == subscription_id, Payment.status.not_in(DEAD)
    )
    with reading(handling.sessions) as session:
        labels = session.scalar(query)
    if labels is not None and labels.get(START_LABEL) != began:
        raise PaymentConflict(
            "The subscription was charged already, for another startDate;"
            " a renewal needs a subscriptionId of its own"
        )


HANDLERS: Mapping[Notice, Handler] = MappingProxyType(
    {
        Notice.PAYMENT_INITIATED: initiate,
        Notice.USER_SUBSCRIPTION_STARTED: start_subscription,
        Notice.INVENTORY_ADJUSTED: adjust_inventory,
    }
)
