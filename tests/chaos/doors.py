"""The neighbours' ways to a payment: catalog and ticketing over Kafka, and the delivery contract."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import simplejson

from deploy.local.demo.orders import Case
from deploy.local.ordering import Answer
from shared.events import rfc3339
from tests.chaos.customers import Customers, Message, is_at_its_end, is_held, message

CARD: Final = "pm_card_visa"
SEATS_KEPT_FOR: Final = timedelta(hours=1)
SAVE_CARD: Final = "/payment/payment-method"


async def initiate(customers: Customers, case: Case, _prefer: str) -> None:
    """Have the catalog ask; for an order that is not declined, under a second id as well.

    (After a decline another message is another try, and not a repeat.)
    """
    order = case.order
    value = {
        "userId": order.customer_id,
        "orderId": order.order_id,
        "amount": order.amount,
        "paymentMethod": "CreditCard",
        "timestamp": rfc3339(datetime.now(UTC)),
    }
    times = 1 if case.expected == "failed" else 2
    await customers.ask(case, "payment-initiated", *(message(value) for _ in range(times)))


async def subscribe(customers: Customers, case: Case, _prefer: str) -> None:
    """Save a card, and have the catalog charge a plan with it, once, told under two ids; a trial is free."""
    await join(customers, case)
    await customers.post(SAVE_CARD, {"customerId": case.order.customer_id, "paymentMethodId": CARD})
    topic = "user-subscription-started"
    async with customers.telling(topic, _subscription(case, trialPeriodDays=14)):
        await customers.ask(case, topic, _subscription(case), _subscription(case))


def _subscription(case: Case, **more: int) -> Message:
    """A message that names its id in its value, and has no headers."""
    data = {
        "subscriptionId": case.order.order_id,
        "userId": case.order.customer_id,
        "plan": {"planId": "pro", "price": case.order.amount, "currency": case.order.currency},
        "startDate": "2026-03-04",
        **more,
    }
    value = {"eventId": str(uuid.uuid4()), "eventType": "UserSubscriptionStarted", "data": data}
    return simplejson.dumps(value).encode(), []


async def let_expire(customers: Customers, case: Case, prefer: str) -> None:
    """Hold the money for reserved seats, and let them go."""
    reservation_id = await _reserve(customers, case, prefer)
    await customers.until(case, is_held)
    await _expire(customers, case, reservation_id)


async def let_expire_at_once(customers: Customers, case: Case, prefer: str) -> None:
    """The same, while Stripe may just be asked for the money."""
    await _expire(customers, case, await _reserve(customers, case, prefer))


async def _reserve(customers: Customers, case: Case, prefer: str) -> str:
    reservation_id = str(uuid.uuid4())
    until = datetime.now(UTC) + SEATS_KEPT_FOR
    value = _reservation(case, reservation_id, "active") | {"expiresAt": rfc3339(until)}
    async with customers.telling("reservation-created", message(value)):
        await customers.order(case, prefer, reservationId=reservation_id)
    return reservation_id


async def _expire(customers: Customers, case: Case, reservation_id: str) -> None:
    value = _reservation(case, reservation_id, "expired") | {"expiredAt": rfc3339(datetime.now(UTC))}
    await customers.ask(case, "reservation-expired", message(value))


def _reservation(case: Case, reservation_id: str, status: str) -> dict[str, Any]:
    return {"reservationId": reservation_id, "customerId": case.order.customer_id, "status": status}


async def deliver(customers: Customers, case: Case, prefer: str) -> None:
    """Charge an order by the delivery contract, whose order service is to hear of it."""
    body = {
        "amount": case.money.amount_minor,
        "customerId": await join(customers, case),
        "paymentMethodId": CARD,
        "orderId": case.order.order_id,
    }
    await customers.post("/payment/payment-intent", body, prefer)
    payment = await customers.until(case, is_at_its_end(case))
    case.answers.append(Answer(0, payment["id"], payment["status"]))


async def join(customers: Customers, case: Case) -> str:
    """Become a customer; the id at Stripe."""
    own_id = case.order.customer_id
    answer = await customers.post(
        "/payment/customer", {"email": f"{own_id}@shop.example", "customerId": own_id}
    )
    return str(answer["data"]["customerId"])
